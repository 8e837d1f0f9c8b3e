"""One works, others stand by; who is replaced stops, and what dies is followed."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError, StoreError, Superseded
from eyeline.ops.standby import OneActive
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Holding, ResultStore

BEAT, PATIENCE = 0.02, 0.2


class Counter:
    """Counts while it is at work, and keeps where it is; as an engine does, it tries again what the store refuses."""

    def __init__(self, results: ResultStore, name: str, at_work: list[str]) -> None:
        self.results, self.name, self.at_work = results, name, at_work

    async def run(self, stop: asyncio.Event) -> None:
        self.at_work.append(self.name)
        try:
            while not stop.is_set():
                with contextlib.suppress(StoreError):
                    await self._count()
                await asyncio.sleep(0.1)
            await self._count()
        finally:
            self.at_work.remove(self.name)
            await self.results.close()

    async def _count(self) -> None:
        count = int(await self.results.load_state("count") or b"0")
        await self.results.commit_alerts(state={"count": b"%d" % (count + 1)}, alerts=[], deliveries=[])


@pytest.fixture
def open_(tmp_path: Path) -> Callable[[], ResultStore]:
    return partial(open_results, f"sqlite:///{tmp_path}/results.db")


def one_of_many(name: str, open_: Callable[[], ResultStore], at_work: list[str]) -> OneActive:
    return OneActive("count", open_, lambda results: Counter(results, name, at_work), beat=BEAT, patience=PATIENCE)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_works_and_the_other_follows_when_it_stops(open_: Callable[[], ResultStore]) -> None:
    at_work: list[str] = []
    stops = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(one_of_many("a", open_, at_work).run(stops[0]))
    await until(lambda: at_work == ["a"])
    second = asyncio.create_task(one_of_many("b", open_, at_work).run(stops[1]))
    await asyncio.sleep(3 * PATIENCE)
    assert at_work == ["a"]
    stops[0].set()
    await first
    await until(lambda: at_work == ["b"])
    stops[1].set()
    await second
    assert at_work == []


async def test_a_frozen_holder_is_followed_and_stops_when_it_wakes(open_: Callable[[], ResultStore]) -> None:
    at_work: list[str] = []
    stop, keeper = asyncio.Event(), open_()
    await keeper.upgrade()
    frozen = await keeper.hold("count", "frozen")
    running = asyncio.create_task(one_of_many("a", open_, at_work).run(stop))
    await until(lambda: at_work == ["a"])
    with pytest.raises(Superseded):
        await keeper.commit_alerts(state={"count": b"0"}, alerts=[], deliveries=[])
    assert frozen == Holding(holder="frozen", beat=1)
    await keeper.close()
    # and the other way round: it is replaced itself, stops, and stands by
    other = open_()
    async with asyncio.timeout(20):
        while (now := await other.hold("count", "other")).holder != "other":
            await other.hold("count", "other", now)
    await until(lambda: at_work == [])
    await other.close()
    await until(lambda: at_work == ["a"])
    stop.set()
    await running


async def test_a_stop_ends_the_wait_too(open_: Callable[[], ResultStore]) -> None:
    at_work: list[str] = []
    stop, keeper = asyncio.Event(), open_()
    await keeper.upgrade()
    await keeper.hold("count", "keeper")
    running = asyncio.create_task(
        OneActive("count", open_, lambda results: Counter(results, "a", at_work), beat=60.0, patience=60.0).run(stop)
    )
    await asyncio.sleep(0.1)
    stop.set()
    async with asyncio.timeout(10):
        await running
    assert at_work == []
    await keeper.close()


async def test_settings_that_cannot_work_are_told_before_the_wait(open_: Callable[[], ResultStore]) -> None:
    def refuse(_results: ResultStore) -> Counter:
        raise ConfigError("no such rule")

    keeper = open_()
    await keeper.upgrade()
    await keeper.hold("count", "keeper")
    with pytest.raises(ConfigError, match="no such rule"):
        await OneActive("count", open_, refuse).run(asyncio.Event())
    await keeper.close()
