"""Recording and acknowledging, over a real result store and queue."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.errors import StoreError
from eyeline.core.ids import uuid7
from eyeline.core.settings import ReviewSettings
from eyeline.core.telemetry import SAVER_FAULTS
from eyeline.core.types import Delivery, Message, Result
from eyeline.queues import open_queue
from eyeline.queues.base import Queue
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultStore
from eyeline.stores.results.review import Doubt
from eyeline.worker.doubts import Doubts
from eyeline.worker.outcome import LeaseLost
from eyeline.worker.saver import Saver


def result(name: str) -> Result:
    now = utcnow()
    return Result(
        id=name, status="completed", site="s", pipeline="p", captured_at=now, received_at=now, completed_at=now
    )


@dataclass
class Desk:
    queue: Queue
    results: ResultStore

    async def deliveries(self, count: int) -> list[Delivery]:
        ids = [uuid7() for _ in range(count)]
        await self.queue.put_many([Message(id=name, topic="p.live", group="s", body=b"{}") for name in ids])
        return await self.queue.receive(count, 1.0, 30.0)

    async def waiting(self) -> int:
        stats = await self.queue.stats()
        return stats.depth + stats.in_flight


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    results = open_results(f"sqlite:///{tmp_path}/results.db")
    await results.upgrade()
    queue = open_queue(f"memory:///{uuid7()}")
    yield Desk(queue, results)
    await queue.close()
    await results.close()


@pytest.fixture
async def saving(desk: Desk) -> AsyncIterator[Callable[[ResultStore], Saver]]:
    running: list[asyncio.Task[None]] = []

    def start(store: ResultStore) -> Saver:
        saver = Saver(store, desk.queue, Doubts(desk.results, ReviewSettings()), busy=lambda _ready: False)
        running.append(asyncio.create_task(saver.run()))
        return saver

    yield start
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


Start = Callable[[ResultStore], Saver]


def always() -> bool:
    return True


async def test_what_is_saved_is_recorded_and_then_acknowledged(desk: Desk, saving: Start) -> None:
    saver = saving(desk.results)
    held = await desk.deliveries(5)
    await asyncio.gather(*(saver.save(result(each.id), each, always) for each in held))
    assert set(await desk.results.get_many([each.id for each in held])) == {each.id for each in held}
    assert await desk.waiting() == 0


async def test_an_acknowledgement_alone_records_nothing(desk: Desk, saving: Start) -> None:
    [held] = await desk.deliveries(1)
    await saving(desk.results).save(None, held, always)
    assert await desk.results.get(held.id) is None
    assert await desk.waiting() == 0


async def test_work_whose_lease_is_lost_is_not_recorded(desk: Desk, saving: Start) -> None:
    [held] = await desk.deliveries(1)
    with pytest.raises(LeaseLost):
        await saving(desk.results).save(result(held.id), held, lambda: False)
    assert await desk.results.get(held.id) is None


class Picky:
    """A real store that refuses one result for good, or everything for a while."""

    def __init__(self, behind: ResultStore, refused: str = "", failures: int = 0) -> None:
        self._behind = behind
        self._refused = refused
        self.failures = failures

    async def save_many(self, results: Sequence[Result], doubts: Mapping[str, Doubt] | None = None) -> set[str]:
        if self.failures:
            self.failures -= 1
            raise StoreError("locked")
        if any(each.id == self._refused for each in results):
            raise StoreError("a character that this database does not take", transient=False)
        return await self._behind.save_many(results, doubts)


async def test_one_result_that_the_store_refuses_does_not_keep_its_neighbours_back(desk: Desk, saving: Start) -> None:
    held = await desk.deliveries(4)
    saver = saving(Picky(desk.results, held[2].id))  # type: ignore[arg-type]
    said = await asyncio.gather(*(saver.save(result(each.id), each, always) for each in held), return_exceptions=True)
    assert [isinstance(each, StoreError) for each in said] == [False, False, True, False]
    assert await desk.waiting() == 1


class Faulty(Doubts):
    """Raises what nobody foresaw: for one result, or once for whatever comes."""

    def __init__(self, results: ResultStore, at: str = "") -> None:
        super().__init__(results, ReviewSettings())
        self._at = at

    async def of(self, results: Sequence[Result]) -> dict[str, Doubt]:
        if any(each.id == self._at for each in results):
            raise ZeroDivisionError("a bug")
        return await super().of(results)


async def test_a_fault_that_nobody_foresaw_is_counted_and_hits_its_own_job_alone(desk: Desk) -> None:
    before = SAVER_FAULTS._value.get()
    held = await desk.deliveries(4)
    saver = Saver(desk.results, desk.queue, Faulty(desk.results, held[2].id), busy=lambda _ready: False)
    running = asyncio.create_task(saver.run())
    said = await asyncio.gather(*(saver.save(result(each.id), each, always) for each in held), return_exceptions=True)
    assert [isinstance(each, ZeroDivisionError) for each in said] == [False, False, True, False]
    assert await desk.waiting() == 1  # not acknowledged: it comes again
    assert SAVER_FAULTS._value.get() == before + 2  # of the batch, and of the one in it
    assert not running.done()
    running.cancel()


async def test_a_fault_beside_the_store_leaves_nobody_waiting_and_the_next_are_saved(desk: Desk) -> None:
    faults = iter([ZeroDivisionError("a bug")])

    def busy(_ready: int) -> bool:
        for fault in faults:
            raise fault
        return False

    saver = Saver(desk.results, desk.queue, Doubts(desk.results, ReviewSettings()), busy=busy)
    running = asyncio.create_task(saver.run())
    first, second = await desk.deliveries(2)
    with pytest.raises(ZeroDivisionError):
        await saver.save(result(first.id), first, always)
    await saver.save(result(second.id), second, always)
    assert await desk.waiting() == 1
    running.cancel()


async def test_a_short_outage_of_the_store_costs_no_work(desk: Desk, saving: Start) -> None:
    picky = Picky(desk.results, failures=2)
    [held] = await desk.deliveries(1)
    await saving(picky).save(result(held.id), held, always)  # type: ignore[arg-type]
    assert await desk.results.get(held.id) is not None


async def test_a_long_one_gives_the_work_back_to_whoever_waits(desk: Desk, saving: Start) -> None:
    picky = Picky(desk.results, failures=99)
    [held] = await desk.deliveries(1)
    with pytest.raises(StoreError):
        await saving(picky).save(result(held.id), held, always)  # type: ignore[arg-type]
    assert await desk.waiting() == 1


async def test_a_busy_worker_records_together_what_gets_ready_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    save_many = desk.results.save_many

    async def counted(results: Sequence[Result], doubts: Mapping[str, Doubt]) -> set[str]:
        written.append(len(results))
        return await save_many(results, doubts)

    monkeypatch.setattr(desk.results, "save_many", counted)
    saver = Saver(desk.results, desk.queue, Doubts(desk.results, ReviewSettings()), busy=lambda ready: ready < 3)
    running = asyncio.create_task(saver.run())
    deliveries = await desk.deliveries(3)
    saving = [asyncio.create_task(saver.save(result(each.id), each, always)) for each in deliveries[:1]]
    await asyncio.sleep(0)
    saving += [asyncio.create_task(saver.save(result(each.id), each, always)) for each in deliveries[1:]]
    await asyncio.gather(*saving)
    running.cancel()
    assert written == [3]
    assert await desk.waiting() == 0
