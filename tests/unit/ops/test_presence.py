"""A process says who it is, and hears from the store whether it is to take no new work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from eyeline.core.service import WorkState
from eyeline.ops import presence
from eyeline.ops.presence import Presence
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action, ResultStore

DRAINED = Action(what="replica.drained", by="ana")


class Work:
    """Two images in hand, which are finished when the test says so."""

    def __init__(self) -> None:
        self.in_hand = 2
        self.wanted = False
        self.heard: list[bool] = []

    @property
    def state(self) -> WorkState:
        return "running" if not self.wanted else "draining" if self.in_hand else "drained"

    def drain(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.heard.append(wanted)


@pytest.fixture
async def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ResultStore]:
    monkeypatch.setattr(presence, "LOOK", 0.01)
    monkeypatch.setattr(presence, "PAUSE", 3600)
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    yield store
    await store.close()


@asynccontextmanager
async def reporting(one: Presence) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.create_task(one.run(stop))
    yield
    stop.set()
    await running


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def test_it_hears_that_it_is_to_be_drained_and_says_how_far_it_is(results: ResultStore) -> None:
    work = Work()
    me = Presence(results, "worker", work, more={"environment": {"numpy": "2.4"}})
    assert me.row().body["environment"] == {"numpy": "2.4"}

    async def says(state: str, in_hand: int) -> None:
        async with asyncio.timeout(20):
            while True:
                rows = await results.replicas()
                if rows and (rows[0].body["doing"], rows[0].body["in_hand"]) == (state, in_hand):
                    return
                await asyncio.sleep(0.01)

    async with reporting(me):
        await says("running", 2)
        assert await results.drain_replica(me.row().id, drained=True, action=DRAINED)
        await says("draining", 2)
        work.in_hand = 1
        await says("draining", 1)
        work.in_hand = 0
        await says("drained", 0)
        assert await results.drain_replica(me.row().id, drained=False, action=DRAINED)
        await says("running", 0)


async def test_the_word_for_one_of_the_same_name_that_ended_is_not_for_the_one_that_was_started_again(
    results: ResultStore,
) -> None:
    work = Work()
    me = Presence(results, "worker", work)
    before = replace(me.row(), started_at=me.row().started_at - timedelta(hours=1))
    await results.report_replica(before)
    assert await results.drain_replica(before.id, drained=True, action=DRAINED)
    async with reporting(me):
        await until(lambda: len(work.heard) >= 3)
    assert not any(work.heard)
    (row,) = await results.replicas()
    assert row.drained_at is None
