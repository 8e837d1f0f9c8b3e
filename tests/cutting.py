"""A relay before a real server that cuts connections on request: the answer is made, and never arrives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class Cutter:
    """Forwards to a server; `lose` answers are swallowed, `cut()` ends all connections now."""

    host: str
    port: int
    lose: int = 0
    away: bool = False  # nobody answers
    requests: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)  # those that arrived
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """End every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self.host, self.port)
        self._writers |= {writer, back}
        try:
            up = asyncio.create_task(self._up(reader, back))
            await self._down(there, writer)
            up.cancel()
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                self.requests.append(chunk)
                back.write(chunk)
                await back.drain()

    async def _down(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await there.read(65536):
                if self.lose:
                    self.lose -= 1
                    return
                self.answers.append(chunk)
                writer.write(chunk)
                await writer.drain()


@contextlib.asynccontextmanager
async def cutting(url: str) -> AsyncIterator[Cutter]:
    """A relay on a free port before the server at `url`."""
    host, _, port = url.removeprefix("http://").partition(":")
    cutter = Cutter(host, int(port))
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cutter
    finally:
        server.close()
        cutter.cut()
        await asyncio.sleep(0)
