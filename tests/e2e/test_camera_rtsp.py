"""RTSP against a real server that stalls, drops, restarts, changes size and sends garbage: seen, survived, and every frame
accounted for.
"""

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from eyeline.cameras import open_camera
from eyeline.cameras.agent import CameraAgent
from eyeline.cameras.base import Memory
from eyeline.cameras.gate import change
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.settings import CameraSettings
from eyeline.pipeline.decode import decode
from tests.rtsp import Proxy, RtspServer, film, free_port, rtsp_server
from tests.unit.cameras.agents import books, closes, running_agent, small_gateway, until
from tests.unit.cameras.gateway import SmallGateway

pytest.importorskip("av", reason="pip install 'eyeline[rtsp]'")

PATIENCE = 60.0


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film(folder / "belt.mp4")
    film(folder / "large.mp4", size=(480, 360))
    film(folder / "still.mp4", still=True)
    return folder


@pytest.fixture
async def server(tmp_path: Path, films: Path) -> AsyncIterator[RtspServer]:
    shutil.copytree(films, tmp_path / "films")
    async with rtsp_server(tmp_path / "films") as running:
        yield running


@pytest.fixture
async def gateway() -> AsyncIterator[SmallGateway]:
    async with small_gateway() as small:
        yield small


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.rtsp.TIMEOUT", (4.0, 1.0))
    monkeypatch.setattr("eyeline.cameras.agent.backoff", lambda *_, **__: 0.3)
    monkeypatch.setattr("eyeline.cameras.agent.REPORT_EVERY", 0.1)


def conditions(gateway: SmallGateway) -> dict[str, str]:
    """What the last report says is wrong."""
    health = gateway.reports[-1]["health"] if gateway.reports else None
    return dict(health["conditions"]) if health else {}


@contextlib.asynccontextmanager
async def watched(tmp_path: Path, gateway: SmallGateway, url: str) -> AsyncIterator[CameraAgent]:
    """An agent whose frames arrive; at the end every one of them is accounted for."""
    async with running_agent(tmp_path, gateway, url, stall_seconds=2.0, frozen_seconds=3.0) as agent:
        await arrives(gateway, 5)
        yield agent
        await arrives(gateway, 5)
    counts = books(tmp_path)
    assert closes(counts)
    assert counts.in_hand == 0  # what came last may lie in the spool
    assert counts.accepted == len(gateway.kept)
    assert set(counts.dropped) <= {"corrupt", "newest_first"}


async def arrives(gateway: SmallGateway, more: int) -> None:
    wanted = len(gateway.kept) + more
    await until(lambda: len(gateway.kept) >= wanted, PATIENCE, lambda: gateway.reports[-1:])


async def test_a_stall_is_seen_and_the_frames_go_on_after_it(
    tmp_path: Path, server: RtspServer, gateway: SmallGateway
) -> None:
    async with watched(tmp_path, gateway, server.url("belt.mp4")):
        server.pause()
        await until(lambda: "stalled" in conditions(gateway), PATIENCE)
        assert gateway.reports[-1]["state"] == "offline"
        server.resume()
        await until(lambda: conditions(gateway) == {}, PATIENCE)


async def test_a_dropped_connection_is_made_again(tmp_path: Path, server: RtspServer, gateway: SmallGateway) -> None:
    async with Proxy(server.port).running() as proxy, watched(tmp_path, gateway, server.url("belt.mp4", proxy.port)):
        before = proxy.connections
        proxy.cut()
        await until(lambda: proxy.connections > before, PATIENCE)
        await arrives(gateway, 5)


async def test_a_camera_that_restarts_with_another_size_goes_on(
    tmp_path: Path, server: RtspServer, gateway: SmallGateway
) -> None:
    async with watched(tmp_path, gateway, server.url("belt.mp4")):
        await server.stop()
        await until(lambda: gateway.reports[-1]["state"] == "offline", PATIENCE)
        shutil.copy(server.folder / "large.mp4", server.folder / "belt.mp4")
        await server.start()
        await arrives(gateway, 5)
    sizes = [decode(kept.data).pixels.shape[:2] for kept in gateway.kept.values()]
    assert (sizes[0], sizes[-1]) == ((240, 320), (360, 480))


def spoiler(rate: float) -> Callable[[bytes], bytes]:
    """Twenty bytes of some chunks become others; of all chunks, everything."""
    rng = random.Random(5)

    def spoil(chunk: bytes) -> bytes:
        if rate == 1.0:
            return rng.randbytes(len(chunk))
        if rng.random() >= rate or chunk.startswith(b"RTSP"):
            return chunk
        spoiled = bytearray(chunk)
        for _ in range(20):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        return bytes(spoiled)

    return spoil


async def test_garbage_gives_no_frames_and_the_camera_comes_back(
    tmp_path: Path, server: RtspServer, gateway: SmallGateway
) -> None:
    async with Proxy(server.port).running() as proxy, watched(tmp_path, gateway, server.url("belt.mp4", proxy.port)):
        proxy.spoil = spoiler(1.0)
        await until(lambda: "stalled" in conditions(gateway), PATIENCE)
        proxy.spoil = lambda chunk: chunk
        await until(lambda: conditions(gateway) == {}, PATIENCE)


async def test_a_damaged_stream_gives_whole_frames_or_none(
    tmp_path: Path, server: RtspServer, gateway: SmallGateway
) -> None:
    """A smear would look like a defect of the goods: every frame that arrives is one of the film."""
    proxy = Proxy(server.port)
    proxy.spoil = spoiler(0.05)
    async with proxy.running(), running_agent(tmp_path, gateway, server.url("belt.mp4", proxy.port), quality=100):
        await until(lambda: len(gateway.kept) >= 8 and gateway.reports[-1]["dropped"].get("corrupt", 0) >= 5, PATIENCE)
    counts = books(tmp_path)
    assert closes(counts)
    assert counts.accepted == len(gateway.kept)
    originals = await asyncio.to_thread(_pictures, server.folder / "belt.mp4")
    small = np.stack([picture[::8, ::8].astype(np.int16) for picture in originals])
    for kept in gateway.kept.values():
        pixels = decode(kept.data).pixels
        nearest = int(np.abs(small - pixels[::8, ::8]).mean(axis=(1, 2, 3)).argmin())
        assert change(pixels, originals[nearest]) < 25


def _pictures(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


async def test_a_frozen_camera_is_told_from_a_living_one(
    tmp_path: Path, server: RtspServer, gateway: SmallGateway
) -> None:
    async with running_agent(tmp_path, gateway, server.url("still.mp4"), frozen_seconds=3.0):
        await until(lambda: "frozen" in conditions(gateway), PATIENCE, lambda: gateway.reports[-1:])
        assert gateway.reports[-1]["state"] == "live"


async def test_what_is_wrong_is_said_in_words(server: RtspServer) -> None:
    for url, said in {
        server.url("other.mp4"): "no stream of this name",
        f"rtsp://127.0.0.1:{free_port()}/belt.mp4": "nothing listens",
        "rtsp://camera.invalid/belt": "cannot be reached",
    }.items():
        camera = open_camera(CameraSettings(name="c", url=url), Memory(lambda _: False, utcnow()))
        with pytest.raises(CameraError, match=said):
            await anext(camera.frames())
        await camera.close()


async def test_a_refused_password_is_said_and_never_shown() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            number = head.decode().lower().partition("cseq:")[2].split()[0]
            challenge = 'WWW-Authenticate: Basic realm="camera"'
            writer.write(f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\n{challenge}\r\n\r\n".encode())

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await refuse(reader, writer)
        writer.close()

    listening = await asyncio.start_server(quietly, "127.0.0.1", 0)
    url = f"rtsp://admin:hunter2@127.0.0.1:{listening.sockets[0].getsockname()[1]}/live"
    camera = open_camera(CameraSettings(name="c", url=url), Memory(lambda _: False, utcnow()))
    with pytest.raises(CameraError, match="refuses the user name or the password") as refused:
        async for _ in camera.frames():
            pass
    await camera.close()
    listening.close()
    assert "hunter2" not in str(refused.value)
