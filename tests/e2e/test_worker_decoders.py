import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from eyeline.core.errors import BadImage, TooLarge
from eyeline.pipeline.contract import InputContract
from eyeline.pipeline.geometry import CROP_PIXELS
from eyeline.worker.decoders import DecoderPool
from eyeline.worker.memory import Layout, Memory
from eyeline.worker.orders import Order, Prepared, Room
from eyeline.worker.outcome import DecoderDied

CONTRACT = InputContract(name="images", size=(32, 32), fit="stretch")


def png(grey: int, width: int = 64, height: int = 48) -> bytes:
    return bytes(cv2.imencode(".png", np.full((height, width, 3), grey, np.uint8))[1])


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Bench:
    """A pool over its memory, and one way to have an image decoded."""

    def __init__(self, pool: DecoderPool, memory: Memory) -> None:
        self.pool = pool
        self.memory = memory

    async def decode(self, data: bytes, *, frame: bool = False) -> Prepared:
        slot = await self.memory.take()
        try:
            room = Room(CONTRACT, slot.index * self.memory.layout.slot_bytes)
            order = Order(slot.put_image(data), (room,), slot.frame_room() if frame else None, "apply", 10**7, 10**6)
            self.prepared = await self.pool.decode(order)
            shape = (32, 32, 3)
            self.tensor = self.memory.tensors.view(room.offset, shape, np.uint8).copy()
            self.frame = slot.frame(self.prepared.frame).copy() if self.prepared.frame else None
            return self.prepared
        finally:
            self.memory.give(slot)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Two children; `@pytest.mark.parametrize("bench", ["KIND=SHA"], indirect=True)` names a fault point."""
    monkeypatch.setenv("EYELINE_SECRET_TOKEN", "canary")
    if hasattr(request, "param"):
        monkeypatch.setenv("EYELINE_FAULT", request.param)
    memory = Memory(4, Layout(slot_bytes=8192, frames=True), 1_000_000)
    hangs = "hang" in getattr(request, "param", "")
    pool = DecoderPool(2, wall_seconds=2.0 if hangs else 60.0)
    await pool.open(memory)
    yield Bench(pool, memory)
    await pool.close()
    memory.close()


async def test_pixels_arrive_in_shared_memory_upright_and_placed(bench: Bench) -> None:
    prepared = await bench.decode(png(200), frame=True)
    assert (prepared.width, prepared.height, prepared.format) == (64, 48, "png")
    assert prepared.placements[0].scale_x == 0.5
    assert (bench.tensor == 200).all()
    assert bench.frame is not None
    assert bench.frame.shape == (48, 64, 3)
    assert (bench.frame == 200).all()


async def test_a_frame_larger_than_its_room_is_made_smaller_and_says_so(bench: Bench) -> None:
    data = png(120, 4000, 2400)
    prepared = await bench.decode(data, frame=True)
    assert (prepared.width, prepared.height) == (4000, 2400)
    assert prepared.frame is not None
    height, width = prepared.frame
    assert height * width <= CROP_PIXELS
    assert abs(width / height - 4000 / 2400) < 0.01


async def test_a_broken_image_is_refused_with_its_reason_and_the_child_goes_on(bench: Bench) -> None:
    pids = sorted(bench.pool.pids)
    with pytest.raises(BadImage) as refusal:
        await bench.decode(b"GIF89a, or so it says")
    assert refusal.value.code
    with pytest.raises(TooLarge):
        await bench.decode(png(1, 5000, 5000))
    assert sorted(bench.pool.pids) == pids


VICTIM = png(13)


@pytest.mark.parametrize("bench", [f"decoder_abort={sha(VICTIM)}"], indirect=True)
async def test_a_crash_is_charged_to_its_image_and_hurts_no_neighbour(bench: Bench) -> None:
    before = set(bench.pool.pids)
    good = [png(grey) for grey in range(20, 40)]
    answers = await asyncio.gather(*(bench.decode(data) for data in [*good, VICTIM]), return_exceptions=True)
    assert isinstance(answers[-1], DecoderDied)
    assert "SIGABRT" in str(answers[-1])
    assert all(isinstance(answer, Prepared) for answer in answers[:-1])
    async with asyncio.timeout(30):
        while len(bench.pool.pids) < 2 or set(bench.pool.pids) == before:
            await asyncio.sleep(0.01)
    assert len(set(bench.pool.pids) & before) == 1


@pytest.mark.parametrize("bench", [f"decoder_hang={sha(VICTIM)}"], indirect=True)
async def test_a_child_that_takes_too_long_is_killed(bench: Bench) -> None:
    with pytest.raises(DecoderDied, match="longer than 2 s"):
        await bench.decode(VICTIM)
    assert (await bench.decode(png(5))).width == 64


@pytest.mark.parametrize("bench", [f"decoder_memory={sha(VICTIM)}"], indirect=True)
async def test_an_image_that_needs_too_much_memory_is_too_large(bench: Bench) -> None:
    with pytest.raises(TooLarge, match="MiB"):
        await bench.decode(VICTIM)
    assert (await bench.decode(png(5))).width == 64


async def test_a_child_that_is_killed_while_idle_is_replaced(bench: Bench) -> None:
    before = set(bench.pool.pids)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(30):
        while len(bench.pool.pids) < 2 or victim in bench.pool.pids:
            await asyncio.sleep(0.01)
    assert await asyncio.gather(*(bench.decode(png(grey)) for grey in range(10)))


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs Linux's /proc")
async def test_a_child_has_no_secrets_no_network_and_no_rights(bench: Bench) -> None:
    for pid in bench.pool.pids:
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert status["NoNewPrivs"].strip() == "1"
        limits = (process / "limits").read_text()
        assert "Max core file size        0 " in limits
        assert "Max address space         unlimited" not in limits
        if os.geteuid() == 0:
            assert status["Uid"].split() == ["65534"] * 4
            assert b"canary" not in (process / "environ").read_bytes()
            assert (process / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            opened = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
            assert not [path for path in opened if path.endswith((".db", ".log"))]


async def test_a_child_is_replaced_after_its_term(bench: Bench) -> None:
    pool = DecoderPool(1, recycle=3)
    await pool.open(bench.memory)
    before = pool.pids
    for grey in range(8):
        await Bench(pool, bench.memory).decode(png(grey))
    assert pool.pids != before
    await pool.close()
    assert pool.pids == []
