"""The relay: every job reaches the queue, in as few transactions as may be, and is marked before it counts as lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.core.types import BlobRef, Delivery, Job, Result
from eyeline.gateway import relay as relays
from eyeline.gateway.relay import Relay
from eyeline.queues.base import Abilities
from eyeline.queues.memory import MemoryQueue
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob, ResultStore


def a_job() -> Job:
    blob = BlobRef("north/" + "0" * 64, 1, "0" * 64)
    now = utcnow()
    return Job(id=uuid7(), site="north", pipeline="p", lane="live", blob=blob, received_at=now, captured_at=now)


@pytest.fixture
async def results(tmp_path: Path) -> AsyncIterator[ResultStore]:
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    yield store
    await store.close()


@pytest.fixture
async def queue() -> AsyncIterator[MemoryQueue]:
    opened = MemoryQueue("memory://relay")
    yield opened
    await opened.close()


async def kept(results: ResultStore, count: int) -> list[Job]:
    jobs = [a_job() for _ in range(count)]
    await results.keep_jobs([NewJob(job=job) for job in jobs])
    return jobs


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_jobs_that_come_one_by_one_into_a_line_go_on_the_queue_together(
    results: ResultStore, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts: list[int] = []
    put = queue.put_many

    async def counted(messages: list[object]) -> None:
        puts.append(len(messages))
        await put(messages)  # type: ignore[arg-type]

    monkeypatch.setattr(queue, "put_many", counted)
    relay = Relay(queue, results, lambda: True)
    forwarding = asyncio.create_task(relay.forward())
    for job in await kept(results, 3):
        relay.offer([job])
        await asyncio.sleep(0)
    received = await queue.receive(3, wait=5.0, lease=60.0)
    assert (len(received), puts) == (3, [3])
    await ended(forwarding)


async def test_what_was_passed_on_is_marked_by_the_sweep(results: ResultStore, queue: MemoryQueue) -> None:
    relay = Relay(queue, results, lambda: False)
    background = [asyncio.create_task(relay.forward()), asyncio.create_task(relay.sweep())]
    relay.offer(await kept(results, 2))
    async with asyncio.timeout(10):
        while await results.unqueued(-1.0, 10):
            await asyncio.sleep(0.05)
    for task in background:
        await ended(task)


async def test_a_relay_that_stops_leaves_nothing_unmarked(results: ResultStore, queue: MemoryQueue) -> None:
    relay = Relay(queue, results, lambda: False)
    relay.offer(await kept(results, 2))
    await relay.drain()
    assert await results.unqueued(-1.0, 10) == []
    assert (await queue.stats()).depth == 2


async def test_what_a_dead_process_left_is_passed_on_at_the_start_all_of_it(
    results: ResultStore, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "BATCH", 4)
    await kept(results, 10)
    relay = Relay(queue, results, lambda: False)
    sweeping = asyncio.create_task(relay.sweep())
    received: list[Delivery] = []
    async with asyncio.timeout(relays.LEFT_BEHIND / 2):
        while len(received) < 10:
            received += await queue.receive(10, wait=0.1, lease=60.0)
    await ended(sweeping)
    assert len({delivery.id for delivery in received}) == 10


class Forgetful(MemoryQueue):
    """A broker that keeps what it is given twice, as often as it is given."""

    abilities = Abilities(cannot={"ids": "it does not look at them"})


@pytest.mark.parametrize("kind", [MemoryQueue, Forgetful])
async def test_what_the_queue_lost_is_put_there_again_and_what_it_has_is_not(
    kind: type[MemoryQueue], results: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LOST": -1.0, "LOOK": 0.05, "SWEEP": 0.02, "BATCH": 4}.items():
        monkeypatch.setattr(relays, name, value)
    queue = kind(f"memory://{uuid7()}")
    jobs = await kept(results, 10)
    relay = Relay(queue, results, lambda: False)
    sweeping = asyncio.create_task(relay.sweep())
    had = await taken(queue, 10)  # its broker dies: all but the last one, which a worker still holds, are gone
    await queue.ack_many(had[:9])
    if kind is Forgetful:
        await asyncio.sleep(0.3)
        assert (await queue.stats()).depth == 0  # while it has anything, it may have all
        await queue.ack_many(had[9:])
    again = await taken(queue, 10 if kind is Forgetful else 9)
    assert len(again) == len({delivery.id for delivery in again})
    await results.save_many([a_result(job) for job in jobs])
    await queue.ack_many(again)
    await asyncio.sleep(0.2)
    await queue.ack_many(await queue.receive(100, wait=0.0, lease=60.0))  # what was under way
    await asyncio.sleep(0.2)
    assert (await queue.stats()).depth == 0
    await ended(sweeping)
    await queue.close()


async def taken(queue: MemoryQueue, count: int) -> list[Delivery]:
    received: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(received) < count:
            received += await queue.receive(count - len(received), wait=0.1, lease=60.0)
    return received


def a_result(job: Job) -> Result:
    now = utcnow()
    return Result(
        id=job.id, status="completed", site="north", pipeline="p", captured_at=now, received_at=now, completed_at=now
    )
