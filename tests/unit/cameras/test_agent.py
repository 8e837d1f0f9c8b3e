"""The agent against a small real gateway that goes away, is busy, and dies mid-request: nothing is lost, nothing is doubled."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from eyeline.cameras.agent import CameraAgent, _end
from eyeline.cameras.delivery import answer_of
from eyeline.cameras.spool import Counts, Spool
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import ConfigError
from eyeline.core.settings import CameraSettings
from tests.system import patience
from tests.unit.cameras.gateway import SmallGateway


def fill(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for index in range(start, start + count):
        path = folder / f"{index:04}.jpg"
        path.write_bytes(f"picture {index}".encode())
        os.utime(path, (time.time() - 1000 + index, time.time() - 1000 + index))


@pytest.fixture
async def gateway() -> AsyncIterator[SmallGateway]:
    small = SmallGateway()
    await small.start()
    yield small
    await small.stop()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.agent.backoff", lambda *_, **__: 0.05)
    monkeypatch.setattr("eyeline.cameras.agent.REPORT_EVERY", 0.05)
    monkeypatch.setattr("eyeline.cameras.agent.DRAIN", 0.5)


def agent_for(tmp_path: Path, gateway: SmallGateway, **changes: Any) -> CameraAgent:
    settings = CameraSettings(name="belt", site="north", pipeline="parcels", url=str(tmp_path / "inbox"), **changes)
    return CameraAgent(settings, gateway.url, tmp_path / "spool", "key-1")


@contextlib.asynccontextmanager
async def running(agent: CameraAgent) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    await until(lambda: task.done() or hasattr(agent, "_spool"))
    try:
        yield task
    finally:
        stop.set()
        await task


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(patience(seconds)):
        while not condition():
            await asyncio.sleep(0.01)


async def killed(agent: CameraAgent, task: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch) -> None:
    """As near to kill -9 as one process comes: no drain, and the books are dropped instead of closed."""
    monkeypatch.setattr(agent._spool, "close", lambda: os.close(agent._spool._lock))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def books(tmp_path: Path) -> Counts:
    spool = Spool(tmp_path / "spool", 10**9)
    counts = spool.counts()
    spool.close()
    return counts


def closes(counts: Counts) -> bool:
    return counts.captured == counts.accepted + sum(counts.dropped.values()) + counts.spooled + counts.in_hand


async def test_every_file_arrives_once_with_its_camera_site_and_time(tmp_path: Path, gateway: SmallGateway) -> None:
    fill(tmp_path / "inbox", 30)
    async with running(agent_for(tmp_path, gateway)):
        await until(lambda: len(gateway.kept) == 30)
    assert sorted(kept.data for kept in gateway.kept.values()) == sorted(f"picture {i}".encode() for i in range(30))
    one = next(iter(gateway.kept.values()))
    assert {k: one.query[k] for k in ("camera", "site", "pipeline", "lane")} == {
        "camera": "belt", "site": "north", "pipeline": "parcels", "lane": "live",
    }  # fmt: skip
    assert parse_time(one.query["captured_at"]) < utcnow()
    assert one.headers["Authorization"] == "Bearer key-1"
    assert gateway.uploads == 30
    assert books(tmp_path) == Counts(captured=30, accepted=30, dropped={}, spooled=0, in_hand=0)


async def test_while_the_gateway_is_away_frames_are_spooled_and_replayed_as_bulk(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    await gateway.stop()
    fill(tmp_path / "inbox", 20)
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(lambda: len(list((tmp_path / "spool" / "spool").glob("*.frame"))) >= 16)
        await gateway.start()
        await until(lambda: len(gateway.kept) == 20)
        await until(lambda: not agent._spool.spooled)
    assert "bulk" in {kept.query["lane"] for kept in gateway.kept.values()}
    assert books(tmp_path) == Counts(captured=20, accepted=20, dropped={}, spooled=0, in_hand=0)


async def test_beyond_the_spool_a_live_camera_drops_and_says_why(tmp_path: Path, gateway: SmallGateway) -> None:
    await gateway.stop()
    fill(tmp_path / "inbox", 40)
    agent = agent_for(tmp_path, gateway, drop="newest", spool_bytes=45)
    async with running(agent):
        await until(lambda: agent._spool.counts().captured == 40)
        await until(lambda: not agent._buffer)
    counts = books(tmp_path)
    assert counts.captured == 40
    assert counts.spooled in {4, 5}  # of nine or ten bytes each
    assert set(counts.dropped) <= {"spool_full", "newest_first"}
    assert "spool_full" in counts.dropped
    assert closes(counts)


async def test_beyond_the_spool_a_lossless_camera_waits(tmp_path: Path, gateway: SmallGateway) -> None:
    await gateway.stop()
    fill(tmp_path / "inbox", 40)
    agent = agent_for(tmp_path, gateway, drop="never", spool_bytes=45)
    async with running(agent):
        await until(lambda: len(agent._spool.spooled) in {4, 5} and len(agent._buffer) >= 8)
        await asyncio.sleep(0.2)
        assert agent._spool.counts().captured < 20
        assert agent._spool.counts().dropped == {}
        await gateway.start()
        await until(lambda: len(gateway.kept) == 40)
        await until(lambda: agent._spool.counts().accepted == 40)
    assert books(tmp_path) == Counts(captured=40, accepted=40, dropped={}, spooled=0, in_hand=0)


async def test_a_busy_gateway_is_waited_for_and_nothing_is_dropped(tmp_path: Path, gateway: SmallGateway) -> None:
    fill(tmp_path / "inbox", 20)
    gateway.answer = lambda _: 429 if gateway.uploads % 3 else 202
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(lambda: agent._spool.counts().accepted == 20)
    assert len(gateway.kept) == 20
    assert books(tmp_path).dropped == {}


async def test_a_live_camera_spools_what_a_busy_gateway_does_not_take(tmp_path: Path, gateway: SmallGateway) -> None:
    gateway.answer = lambda _: 429 if gateway.uploads < 30 else 202
    fill(tmp_path / "inbox", 8)
    agent = agent_for(tmp_path, gateway, drop="newest")
    async with running(agent):
        await until(lambda: agent._spool.counts().spooled > 0)
        await until(lambda: agent._spool.counts().accepted == 8)
    assert len(gateway.kept) == 8


@pytest.mark.parametrize("death", ["cut", "reset"])
async def test_a_gateway_that_dies_mid_request_gets_the_frame_again(
    tmp_path: Path, gateway: SmallGateway, death: str
) -> None:
    fill(tmp_path / "inbox", 12)
    gateway.answer = lambda _: death if gateway.uploads % 2 else 202
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(lambda: agent._spool.counts().accepted == 12)
    assert sorted(kept.data for kept in gateway.kept.values()) == sorted(f"picture {i}".encode() for i in range(12))
    assert books(tmp_path).captured == 12


async def test_a_refused_frame_is_dropped_with_its_reason_and_the_others_go_on(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    fill(tmp_path / "inbox", 10)
    gateway.answer = lambda data: 422 if data == b"picture 3" else 202
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(lambda: agent._spool.counts().captured == 10 and not agent._spool.in_hand)
    assert books(tmp_path) == Counts(captured=10, accepted=9, dropped={"rejected": 1}, spooled=0, in_hand=0)


async def test_a_frame_that_always_breaks_the_gateway_does_not_hold_up_the_others(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    await gateway.stop()
    fill(tmp_path / "inbox", 10)
    gateway.answer = lambda data: 500 if data == b"picture 0" else 202
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(lambda: agent._spool.counts().spooled == 10)
        await gateway.start()
        await until(lambda: agent._spool.counts().accepted == 9)
    counts = books(tmp_path)
    assert (counts.accepted, counts.spooled) == (9, 1)


async def test_a_slow_gateway_makes_a_live_camera_drop_the_oldest(tmp_path: Path, gateway: SmallGateway) -> None:
    gateway.hold = asyncio.Event()
    fill(tmp_path / "inbox", 30)
    agent = agent_for(tmp_path, gateway, drop="newest")
    async with running(agent):
        await until(lambda: agent._spool.counts().captured == 30)
        await until(lambda: agent._spool.counts().dropped.get("newest_first", 0) == 30 - 8 - 4)
        gateway.hold.set()
        await until(lambda: not agent._spool.in_hand)
    data = {kept.data for kept in gateway.kept.values()}
    assert {f"picture {i}".encode() for i in range(22, 30)} <= data  # the newest are there
    assert closes(books(tmp_path))


async def test_the_accounting_is_reported_and_closes_at_every_report(tmp_path: Path, gateway: SmallGateway) -> None:
    fill(tmp_path / "inbox", 25)
    gateway.answer = lambda _: [202, 429, 422, 503][gateway.uploads % 4]
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(
            lambda: agent._spool.counts().captured == 25 and not agent._spool.in_hand and not agent._spool.spooled
        )
        agent._watch.health.clock("camera", -12.34)
        assert (agent._health() or {})["clocks"]["camera"] == -12.3
        await asyncio.sleep(0.1)
    assert len(gateway.reports) >= 2
    for said in gateway.reports:
        assert said["captured"] == said["accepted"] + sum(said["dropped"].values()) + said["spooled"] + said["in_hand"]
    last = gateway.reports[-1]
    assert (last["captured"], last["state"]) == (25, "stopped")
    assert last["accepted"] == len(gateway.kept)


async def test_a_restart_sends_each_file_once_whatever_was_in_hand(
    tmp_path: Path, gateway: SmallGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "inbox", 12)
    gateway.hold = asyncio.Event()
    agent = agent_for(tmp_path, gateway)
    task = asyncio.create_task(agent.run(asyncio.Event()))
    await until(lambda: gateway.uploads >= 4)
    await killed(agent, task, monkeypatch)
    gateway.hold.set()
    second = agent_for(tmp_path, gateway)
    async with running(second):
        await until(lambda: second._spool.counts().accepted == 12)
    assert sorted(kept.data for kept in gateway.kept.values()) == sorted(f"picture {i}".encode() for i in range(12))
    assert books(tmp_path) == Counts(captured=12, accepted=12, dropped={}, spooled=0, in_hand=0)


async def test_a_source_that_comes_late_is_waited_for(tmp_path: Path, gateway: SmallGateway) -> None:
    agent = agent_for(tmp_path, gateway)  # there is no inbox yet: it looks like a video that is not there
    async with running(agent):
        await until(lambda: any(said["state"] == "offline" for said in gateway.reports))
        fill(tmp_path / "inbox", 3)
        await until(lambda: len(gateway.kept) == 3)


async def test_stopping_while_the_gateway_is_away_loses_nothing(tmp_path: Path, gateway: SmallGateway) -> None:
    fill(tmp_path / "inbox", 10)
    await gateway.stop()
    agent = agent_for(tmp_path, gateway)
    async with running(agent):
        await until(lambda: agent._spool.counts().captured >= 5)
    counts = books(tmp_path)
    assert closes(counts)
    assert counts.accepted == 0
    assert counts.dropped == {}


async def test_an_unknown_scheme_stops_the_start(tmp_path: Path, gateway: SmallGateway) -> None:
    agent = CameraAgent(CameraSettings(name="c", url="gopher://x"), gateway.url, tmp_path, None)
    with pytest.raises(ConfigError, match="gopher"):
        await agent.run(asyncio.Event())


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, "kept"), (202, "kept"), (409, "kept"), (429, "busy"), (503, "away"),
        (302, "away"), (500, "away"), (401, "away"), (404, "away"),
     (400, "refused"), (413, "refused"), (422, "refused")],
)  # fmt: skip
def test_what_a_status_means(status: int, verdict: str) -> None:
    assert answer_of(status, {"Retry-After": "2"}).verdict == verdict


@pytest.mark.parametrize(("header", "wait"), [("2", 2.0), ("0", 0.05), ("999", 30.0), ("soon", 1.0), ("", 1.0)])
def test_how_long_a_busy_gateway_is_left_alone(header: str, wait: float) -> None:
    assert answer_of(429, {"Retry-After": header}).wait == wait


async def test_a_task_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.agent.CANCEL_AGAIN", 0.01)

    async def loses() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    task = asyncio.create_task(loses())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await _end([task])
    assert task.cancelled()
