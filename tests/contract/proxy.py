"""Between a client and a server on this machine: falls silent, cuts connections, or speaks TLS to the client."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from pathlib import Path

from tests.contract.servers import missing


class Proxy:
    """Passes bytes on to the server on port `behind`."""

    def __init__(self, behind: int, context: ssl.SSLContext | None = None) -> None:
        self._behind = behind
        self._context = context
        self._writers: list[asyncio.StreamWriter] = []
        self._speaks = asyncio.Event()
        self._speaks.set()

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._behind)
        self._writers += [writer, ours]
        await asyncio.gather(self._pump(reader, ours), self._pump(theirs, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(65536):
                await self._speaks.wait()
                sink.write(data)
        sink.close()

    def fall_silent(self) -> None:
        """Take what comes, and pass on nothing."""
        self._speaks.clear()

    def speak(self) -> None:
        """Pass on again, what was held back first."""
        self._speaks.set()

    def cut(self) -> None:
        """Every connection there is."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def close(self) -> None:
        """Take no connection any more, and end those that are there."""
        self.speak()
        self.cut()
        self._server.close()


def tls(folder: Path) -> ssl.SSLContext:
    """What a server at 127.0.0.1 speaks TLS with; who is to know it trusts `cert.pem` in that folder."""
    if shutil.which("openssl") is None:
        missing("no certificate for the TLS case: install openssl")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", *files]
    subprocess.run(["openssl", *words.split(), *more], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
