"""A TCP proxy that misbehaves when it is told to: late, silent, cut off. It runs in a thread of its own."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

#: An immediate reset at the close.
_ABORT = struct.pack("ii", 1, 0)


class FaultProxy:
    """Passes everything on to `port` on this machine, until one of its methods says otherwise."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._delay = 0.0
        self._open: asyncio.Event
        self._writers: set[asyncio.StreamWriter] = set()
        self._refuses = False
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(self._start())

    def slow(self, seconds: float) -> None:
        """Everything comes so much later, both ways together; 0: at once again."""
        self._delay = seconds / 2

    def silent(self) -> None:
        """A black hole: connections stay, and new ones are taken, but nothing comes through."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def reset(self) -> None:
        """All connections are cut off; new ones work."""
        self._call(self._cut())

    def refuse(self) -> None:
        """All connections are cut off, and so are new ones."""
        self._refuses = True
        self.reset()

    def heal(self) -> None:
        """As before."""
        self._delay, self._refuses = 0.0, False
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """Stop listening, cut all off."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> asyncio.Server:
        self._open = asyncio.Event()
        self._open.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _abort(writer)
            return
        self._writers.add(writer)
        try:
            await self._open.wait()
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._forget(writer)
            return
        self._writers.add(out_writer)
        with contextlib.suppress(asyncio.CancelledError):  # at the end of the proxy
            await asyncio.gather(self._pump(reader, out_writer), self._pump(out_reader, writer))
        self._forget(writer)
        self._forget(out_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
