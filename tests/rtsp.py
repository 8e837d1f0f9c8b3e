"""A real RTSP server as a process of its own, made to misbehave; and a proxy before it that spoils what goes through."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def film(
    path: Path, size: tuple[int, int] = (320, 240), seconds: int = 30, fps: int = 10, *, still: bool = False
) -> None:
    """An H.264 film: a bar that travels over noise, or one picture all the time."""
    av = pytest.importorskip("av", reason="pip install 'eyeline[rtsp]'")
    rng = np.random.default_rng(3)
    noise = rng.integers(60, 180, (size[1], size[0], 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (9, 9), 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        stream.options = {"g": str(fps), "preset": "ultrafast", "tune": "zerolatency"}
        for number in range(seconds * fps):
            picture = noise.copy()
            if not still:
                left = number * 7 % size[0]
                picture[40:80, left : left + 20] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


class RtspServer:
    """`rtsp-server` over a folder of films; the same port however often it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    def url(self, film: str, port: int | None = None) -> str:
        return f"rtsp://127.0.0.1:{port or self.port}/{film}"

    async def start(self) -> None:
        command = Path(sys.executable).with_name("rtsp-server")
        if not command.exists():
            pytest.skip("no rtsp-server here: pip install aio-rtsp-toolkit")
        control = free_port()
        with (self.folder.parent / "rtsp.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                command, "-d", str(self.folder), "-H", "127.0.0.1", "-p", str(self.port), "-cp", str(control),
                stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(60):
            while not await _listens(self.port):
                await asyncio.sleep(0.1)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGKILL)
        await self._process.wait()
        self._process = None

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def rtsp_server(folder: Path) -> AsyncIterator[RtspServer]:
    folder.mkdir(exist_ok=True)
    server = RtspServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Proxy:
    """A TCP proxy; `spoil` may change each chunk that the server sends, `cut` breaks all connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.spoil: Callable[[bytes], bytes] = lambda chunk: chunk
        self.port = 0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.cut()
            server.close()

    def _spoiled(self, chunk: bytes) -> bytes:
        return self.spoil(chunk)

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, down}
        try:
            await asyncio.gather(_copy(reader, down, lambda chunk: chunk), _copy(up, writer, self._spoiled))
        finally:
            self._writers -= {writer, down}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError, asyncio.CancelledError):
        while chunk := await reader.read(65_536):
            writer.write(change(chunk))
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()
