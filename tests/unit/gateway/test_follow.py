"""One reader of the event log wakes everybody, and a slow reader hurts only itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.types import Event
from eyeline.gateway.follow import BUFFER, Follower, Subscriber
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultStore


def event(seq: int) -> Event:
    return Event(seq=seq, kind="system", site="north", at=utcnow(), body={})


@pytest.fixture
async def results(tmp_path: Path) -> AsyncIterator[ResultStore]:
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    yield store
    await store.close()


async def test_a_subscriber_gets_what_it_wants_in_order() -> None:
    subscriber = Subscriber(lambda each: each.seq % 2 == 0)
    subscriber.feed([event(n) for n in range(6)])
    events, lost = await subscriber.take(1.0)
    assert ([each.seq for each in events], lost) == ([0, 2, 4], False)


async def test_a_subscriber_that_falls_behind_is_told_once_and_goes_on() -> None:
    subscriber = Subscriber(lambda _: True)
    subscriber.feed([event(n) for n in range(BUFFER + 1)])
    assert await subscriber.take(1.0) == ([], True)
    subscriber.feed([event(9)])
    events, lost = await subscriber.take(1.0)
    assert ([each.seq for each in events], lost) == ([9], False)


async def test_events_are_taken_together_but_an_alert_does_not_wait() -> None:
    subscriber = Subscriber(lambda _: True)
    subscriber.feed([event(1)])
    assert [each.seq for each in (await subscriber.take(1.0, after=60.0))[0]] == [1], "the first one is told at once"
    subscriber.feed([event(2)])
    taking = asyncio.create_task(subscriber.take(1.0, after=60.0))
    await asyncio.sleep(0.05)
    assert not taking.done()
    subscriber.feed([event(3), Event(seq=4, kind="alert", site="north", at=utcnow(), body={})])
    assert [each.seq for each in (await asyncio.wait_for(taking, 10))[0]] == [2, 3, 4]


async def test_taking_from_a_silent_stream_ends_in_time() -> None:
    assert await Subscriber(lambda _: True).take(0.01) == ([], False)


async def test_only_events_from_now_on_are_told_and_every_result_is_counted(results: ResultStore) -> None:
    completed: list[str] = []
    await results.add_event("system", "north", {"n": 0})
    follower = Follower(results, completed.append, lambda: False)
    await follower.begin()
    subscriber = follower.subscribe(lambda _: True)
    reading = asyncio.create_task(follower.run())
    await results.add_event("system", "north", {"n": 1})
    events, _ = await subscriber.take(5.0)
    assert [each.body for each in events] == [{"n": 1}]
    reading.cancel()


async def test_answers_from_the_cache_do_not_count_as_work_done(results: ResultStore) -> None:
    """They were never in the line; counted, they would make slow workers look fast."""
    completed: list[str] = []
    follower = Follower(results, completed.append, lambda: False)
    follower._tell(
        [
            Event(seq=n, kind="result", site="north", at=utcnow(), body={"id": str(n), "timings": timings})
            for n, timings in enumerate(({"decode": 0.1}, {"cache": 0.1}, {}))
        ]
    )
    assert completed == ["0", "2"]


async def test_a_wait_ends_when_the_process_stops(results: ResultStore) -> None:
    follower = Follower(results, lambda _: None, lambda: False)
    future = follower.expect("x")
    waiting: asyncio.Task[Any] = asyncio.create_task(follower.wait("x", future, 60.0))
    await asyncio.sleep(0)
    follower.stop()
    assert await waiting is None
    assert follower._waiters == {}


async def test_a_wait_that_ran_out_leaves_nothing_behind(results: ResultStore) -> None:
    follower = Follower(results, lambda _: None, lambda: False)
    assert await follower.wait("x", follower.expect("x"), 0.01) is None
    assert follower._waiters == {}


async def test_what_was_missed_is_read_in_pages_up_to_where_the_live_stream_begins(results: ResultStore) -> None:
    follower = Follower(results, lambda _: None, lambda: False)
    for number in range(7):
        await results.add_event("system", "north", {"n": number})
    last = await results.last_seq()
    missed = [each.body["n"] async for each in follower.missed(last - 5, last - 1)]
    assert missed == [2, 3, 4, 5]
