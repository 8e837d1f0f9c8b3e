"""The camera command as a real process, killed and started again while its gateway comes and goes: each frame arrives once."""

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tomli_w

from eyeline.cameras.spool import Counts, Spool
from tests.system import patience
from tests.unit.cameras.gateway import SmallGateway

SEED = 7


class Agent:
    """`eyeline camera belt`, as often as it is started."""

    def __init__(self, folder: Path, gateway: SmallGateway, **camera: Any) -> None:
        self.folder = folder
        self.config = folder / "eyeline.toml"
        settings = {
            "data_dir": str(folder / "data"),
            "gateway": {"port": gateway.port},
            "cameras": [{"name": "belt", **camera}],
        }
        self.config.write_text(tomli_w.dumps(settings))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "eyeline", "camera", "belt", "--config", str(self.config), stdout=log, stderr=log
            )

    async def end(self, *, kill: bool = False) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill() if kill else self.process.terminate()
        return await self.process.wait()

    def books(self) -> Counts:
        """Read when no process runs."""
        spool = Spool(self.folder / "data" / "spool" / "belt", 10**9)
        counts = spool.counts()
        spool.close()
        return counts


@pytest.fixture
async def gateway() -> AsyncIterator[SmallGateway]:
    small = SmallGateway()
    await small.start()
    yield small
    await small.stop()


async def until(condition: Callable[[], Any], seconds: float, agent: Agent) -> None:
    try:
        async with asyncio.timeout(patience(seconds)):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s; the agent said: {(agent.folder / 'log').read_text()[-2000:]}")


def film(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    rng = np.random.default_rng(SEED)
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()


async def test_each_file_arrives_once_though_agent_and_gateway_are_killed_at_random(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    rng = random.Random(SEED)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    agent = Agent(tmp_path, gateway, url=str(inbox))
    answers: list[int | str] = [202, 202, 202, 429, 503, "cut", "reset"]
    gateway.answer = lambda _: rng.choice(answers)
    written = 0
    for round_ in range(6):
        for _ in range(40):
            draft = inbox / f".{written}"
            draft.write_bytes(f"picture {written}".encode())
            draft.rename(inbox / f"{written}.jpg")
            written += 1
        await agent.start()
        before = gateway.uploads
        await until(lambda before=before: gateway.uploads > before, 30, agent)  # type: ignore[misc]
        await asyncio.sleep(rng.uniform(0.0, 0.8))
        if round_ % 2:
            await gateway.stop()
            await asyncio.sleep(0.3)
        await agent.end(kill=True)
        if round_ % 2:
            await gateway.start()
    gateway.answer = lambda _: 202
    await agent.start()
    await until(lambda: len(gateway.kept) == written, 60, agent)
    await until(lambda: gateway.reports and gateway.reports[-1]["accepted"] == written, 20, agent)
    assert await agent.end() == 0
    assert sorted(kept.data for kept in gateway.kept.values()) == sorted(
        f"picture {i}".encode() for i in range(written)
    )
    assert agent.books() == Counts(captured=written, accepted=written, dropped={}, spooled=0, in_hand=0)


async def test_every_frame_of_a_video_arrives_once_though_the_agent_is_killed(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    rng = random.Random(SEED)
    film(tmp_path / "belt.avi", 120)
    agent = Agent(tmp_path, gateway, url=str(tmp_path / "belt.avi"))
    for _ in range(4):
        before = len(gateway.kept)
        await agent.start()
        await until(lambda before=before: len(gateway.kept) > before or len(gateway.kept) == 120, 30, agent)  # type: ignore[misc]
        await asyncio.sleep(rng.uniform(0.0, 0.05))
        await agent.end(kill=True)
    await agent.start()
    await until(lambda: gateway.reports and gateway.reports[-1]["state"] == "finished", 60, agent)
    await until(lambda: gateway.reports[-1]["accepted"] == 120, 20, agent)
    assert await agent.end() == 0
    assert len(gateway.kept) == len({kept.data for kept in gateway.kept.values()}) == 120
    assert agent.books() == Counts(captured=120, accepted=120, dropped={}, spooled=0, in_hand=0)


async def test_a_live_camera_over_its_spool_drops_with_a_reason_and_the_books_close(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    film(tmp_path / "belt.avi", 50)
    await gateway.stop()
    agent = Agent(tmp_path, gateway, url=str(tmp_path / "belt.avi"), loop=True, spool_bytes=60_000)
    await agent.start()
    spool = tmp_path / "data" / "spool" / "belt"
    await until(lambda: any(b"spool_full" in log.read_bytes() for log in spool.glob("outcomes-*.log")), 30, agent)
    assert sum(path.stat().st_size for path in (spool / "spool").glob("*.frame")) < 70_000
    await agent.end(kill=True)
    await gateway.start()
    await agent.start()
    await until(lambda: gateway.reports and gateway.reports[-1]["spooled"] == 0 and gateway.kept, 30, agent)
    assert "bulk" in {kept.query["lane"] for kept in gateway.kept.values()}
    assert await agent.end() == 0
    counts = agent.books()
    assert counts.captured == counts.accepted + sum(counts.dropped.values()) + counts.spooled
    assert counts.accepted == len(gateway.kept)
    assert counts.dropped["spool_full"] > 0


async def test_the_bottle_video_arrives_at_the_rate_that_was_asked_for(
    tmp_path: Path, gateway: SmallGateway, shared_data: Path
) -> None:
    path = next((shared_data / "video").glob("*bottle*"))
    agent = Agent(tmp_path, gateway, url=path.resolve().as_uri(), fps=5)
    begun = time.monotonic()
    await agent.start()
    await until(lambda: gateway.reports and gateway.reports[-1]["state"] == "finished", 90, agent)
    await until(lambda: gateway.reports[-1]["in_hand"] == 0, 20, agent)
    assert await agent.end() == 0
    capture = cv2.VideoCapture(str(path))
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert abs(len(gateway.kept) - seconds * 5) <= 2
    assert agent.books().captured == len(gateway.kept)
    assert time.monotonic() - begun < 90


async def test_a_camera_that_is_not_defined_is_said_with_exit_code_2(tmp_path: Path, gateway: SmallGateway) -> None:
    agent = Agent(tmp_path, gateway, url=str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "eyeline", "camera", "other", "--config", str(agent.config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=dict(os.environ),
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 2
    assert b"belt" in said
