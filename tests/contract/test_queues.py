"""What every queue promises (`queues.base.Queue`), on every backend there is."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from eyeline.core.errors import QueueError
from eyeline.core.types import Delivery, Message
from eyeline.queues import QUEUES, open_queue
from eyeline.queues.base import Promise, Queue
from tests.contract.servers import GRAINS

LONG = 60.0

Open = Callable[..., Queue]


def needs(*promises: Promise) -> pytest.MarkDecorator:
    """Skips the case, with the backend's own reason, where its `abilities` say that it cannot promise this."""
    return pytest.mark.needs(*promises)


@pytest.fixture
def short(queue_url: str) -> float:
    """A lease or delay that a test waits for, in seconds."""
    scheme = urlsplit(queue_url).scheme
    return max(0.2, GRAINS.get(scheme, QUEUES.load(scheme).abilities.grain))


@pytest.fixture
async def open_one(queue_url: str) -> AsyncIterator[Open]:
    """Opens the test's queue as often as it is called: each call is another receiver."""
    async with AsyncExitStack() as stack:

        def opened(topics: Sequence[str] | None = None) -> Queue:
            queue = open_queue(queue_url, topics)
            stack.push_async_callback(queue.close)
            return queue

        yield opened


@pytest.fixture
def queue(open_one: Open) -> Queue:
    return open_one()


def a_message(id: str = "one", topic: str = "parcels.live", group: str = "north", **more: object) -> Message:  # noqa: A002
    fields: dict[str, object] = {"body": id.encode(), **more}
    return Message(id=id, topic=topic, group=group, **fields)  # type: ignore[arg-type]


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


async def drain(queue: Queue, limit: int = 10) -> list[Delivery]:
    """Everything that is visible, received in order."""
    taken: list[Delivery] = []
    while got := await queue.receive(limit, 0, LONG):
        taken += got
    return taken


async def test_what_is_put_is_received_whole(queue: Queue) -> None:
    body = os.urandom(4096)
    await queue.put_many([a_message(body=body)])
    [delivery] = await queue.receive(10, 1, LONG)
    assert (delivery.id, delivery.topic, delivery.group) == ("one", "parcels.live", "north")
    assert delivery.body == body
    assert delivery.attempt == 1


async def test_an_acknowledged_message_never_comes_back(queue: Queue, short: float) -> None:
    await queue.put_many([a_message()])
    taken = await queue.receive(1, 1, short)
    assert await queue.ack_many(taken) == []
    assert await queue.receive(1, 2 * short, LONG) == []


async def test_an_acknowledgement_said_twice_is_said_once(queue: Queue) -> None:
    await queue.put_many([a_message()])
    taken = await queue.receive(1, 1, LONG)
    await queue.ack_many(taken)
    assert await queue.ack_many(taken) == []


async def test_nothing_to_do_is_done(queue: Queue) -> None:
    await queue.put_many([])
    assert await queue.ack_many([]) == []
    assert await queue.extend([], LONG) == []
    assert await queue.receive(5, 0, LONG) == []


@needs("one holder")
async def test_a_leased_message_is_hidden(queue: Queue, open_one: Open) -> None:
    await queue.put_many([a_message()])
    assert await queue.receive(1, 1, LONG)
    assert await open_one().receive(1, 0.05, LONG) == []


@needs("leases")
async def test_a_lease_that_runs_out_gives_the_message_to_another_with_a_higher_attempt(
    queue: Queue, open_one: Open, short: float
) -> None:
    await queue.put_many([a_message()])
    [first] = await queue.receive(1, 1, short)
    [second] = await open_one().receive(1, 20 * short, LONG)
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.body == first.body


@needs("leases", "lost leases")
async def test_a_late_ack_is_reported_and_forgets_nothing(queue: Queue, open_one: Open, short: float) -> None:
    await queue.put_many([a_message()])
    late = await queue.receive(1, 1, short)
    other = open_one()
    held = await other.receive(1, 20 * short, LONG)
    assert await queue.ack_many(late) == late
    assert (await other.stats()).in_flight == 1
    assert await other.ack_many(held) == []
    assert (await other.stats()).in_flight == 0


@needs("leases", "lost leases")
async def test_only_the_lost_ones_of_a_batch_are_reported(queue: Queue, open_one: Open, short: float) -> None:
    await queue.put_many([a_message("lost"), a_message("held")])
    taken = {delivery.id: delivery for delivery in await queue.receive(2, 1, short)}
    assert await queue.extend([taken["held"]], LONG) == []
    assert ids(await open_one().receive(1, 20 * short, LONG)) == ["lost"]
    assert ids(await queue.ack_many([taken["lost"], taken["held"]])) == ["lost"]


@needs("one holder")
async def test_an_extended_lease_holds_longer(queue: Queue, open_one: Open, short: float) -> None:
    await queue.put_many([a_message()])
    taken = await queue.receive(1, 1, short)
    assert await queue.extend(taken, LONG) == []
    assert await open_one().receive(1, 2 * short, LONG) == []


@needs("leases", "lost leases")
async def test_extending_a_lost_lease_is_reported(queue: Queue, open_one: Open, short: float) -> None:
    await queue.put_many([a_message()])
    late = await queue.receive(1, 1, short)
    await open_one().receive(1, 20 * short, LONG)
    assert await queue.extend(late, LONG) == late


async def test_nack_brings_it_back_with_a_higher_attempt(queue: Queue) -> None:
    await queue.put_many([a_message()])
    [taken] = await queue.receive(1, 1, LONG)
    await queue.nack(taken, delay=0)
    [again] = await queue.receive(1, 1, LONG)
    assert (again.id, again.attempt) == ("one", 2)


async def test_nack_with_a_delay_hides_it_that_long(queue: Queue, short: float) -> None:
    await queue.put_many([a_message()])
    [taken] = await queue.receive(1, 1, LONG)
    await queue.nack(taken, delay=short)
    assert await queue.receive(1, 0, LONG) == []
    assert ids(await queue.receive(1, 20 * short, LONG)) == ["one"]


@needs("leases", "lost leases")
async def test_nack_of_a_lost_lease_changes_nothing(queue: Queue, open_one: Open, short: float) -> None:
    await queue.put_many([a_message()])
    [late] = await queue.receive(1, 1, short)
    other = open_one()
    held = await other.receive(1, 20 * short, LONG)
    await queue.nack(late, delay=0)
    assert await queue.receive(1, 0.05, LONG) == []
    assert await other.ack_many(held) == []


async def test_a_message_put_with_a_delay_is_hidden_that_long(open_one: Open, short: float) -> None:
    queue = open_one(["parcels.live"])
    assert await queue.receive(1, 0, LONG) == []
    await queue.put_many([a_message(delay=short)])
    assert (await queue.stats()).depth == 1
    assert await queue.receive(1, 0, LONG) == []
    assert ids(await queue.receive(1, 20 * short, LONG)) == ["one"]


@needs("ids")
async def test_the_same_id_put_twice_is_kept_once(queue: Queue) -> None:
    await queue.put_many([a_message(), a_message()])
    await queue.put_many([a_message(body=b"other")])
    assert [delivery.body for delivery in await drain(queue)] == [b"one"]


@needs("order")
async def test_messages_of_one_site_come_in_the_order_they_were_put(queue: Queue) -> None:
    names = [f"m{number}" for number in range(30)]
    for start in range(0, 30, 7):
        await queue.put_many([a_message(name) for name in names[start : start + 7]])
    assert ids(await drain(queue, limit=4)) == names


async def test_no_more_than_the_limit_is_received(queue: Queue) -> None:
    await queue.put_many([a_message(str(number)) for number in range(5)])
    assert len(await queue.receive(3, 1, LONG)) == 3


async def test_a_receiver_sees_only_its_topics(open_one: Open) -> None:
    await open_one().put_many([a_message("a", "parcels.live"), a_message("b", "boards.live")])
    assert ids(await drain(open_one(["boards.live", "boards.bulk"]))) == ["b"]


async def test_of_five_messages_four_are_live_and_one_is_bulk(queue: Queue) -> None:
    for lane in ("bulk", "live"):
        await queue.put_many([a_message(f"{lane}{number}", f"parcels.{lane}") for number in range(100)])
    for limit in (1, 4, 10):
        lanes = Counter[str]()
        while lanes.total() < 20:
            lanes.update(delivery.topic for delivery in await queue.receive(min(limit, 20 - lanes.total()), 0, LONG))
        assert lanes == {"parcels.live": 16, "parcels.bulk": 4}


async def test_a_live_message_does_not_wait_behind_bulk_ones_that_were_there_before(open_one: Open) -> None:
    queue = open_one(["parcels.live", "parcels.bulk"])
    await queue.put_many([a_message(f"bulk{number}", "parcels.bulk") for number in range(60)])
    assert len(await queue.receive(10, 1, LONG)) == 10
    await queue.put_many([a_message(f"live{number}") for number in range(10)])
    await asyncio.sleep(0.3)
    lanes = Counter(delivery.topic for delivery in await queue.receive(10, 0, LONG))
    assert lanes == {"parcels.live": 8, "parcels.bulk": 2}


@pytest.mark.parametrize("lane", ["live", "bulk"])
async def test_an_idle_lane_leaves_its_share_to_the_other(queue: Queue, lane: str) -> None:
    await queue.put_many([a_message(str(number), f"parcels.{lane}") for number in range(20)])
    assert len(await queue.receive(20, 0, LONG)) == 20


async def test_pipelines_of_a_lane_take_turns(queue: Queue) -> None:
    for name in ("parcels", "boards"):
        await queue.put_many([a_message(f"{name}{number}", f"{name}.live") for number in range(20)])
    topics = Counter(delivery.topic for delivery in await queue.receive(10, 0, LONG))
    assert topics == {"parcels.live": 5, "boards.live": 5}


@needs("sites")
async def test_a_site_with_many_waiting_does_not_starve_one_with_few(queue: Queue) -> None:
    await queue.put_many([a_message(f"big{number}", group="big") for number in range(200)])
    assert len(await queue.receive(20, 0, LONG)) == 20
    await queue.put_many([a_message(f"small{number}", group="small") for number in range(5)])
    sites = Counter(delivery.group for delivery in await queue.receive(12, 0, LONG))
    assert sites["small"] == 5


@needs("sites")
async def test_a_site_that_was_busy_is_not_made_to_pay_for_it(queue: Queue) -> None:
    await queue.put_many([a_message(f"a{number}", group="a") for number in range(50)])
    await queue.ack_many(await drain(queue))
    for number in range(10):
        await queue.put_many([a_message(f"b{number}", group="b"), a_message(f"c{number}", group="a")])
    sites = Counter(delivery.group for delivery in await queue.receive(10, 0, LONG))
    assert sites == {"a": 5, "b": 5}


async def test_stats_count_what_waits_and_what_is_held(queue: Queue) -> None:
    assert (await queue.stats()).depth == 0
    await queue.put_many(
        [a_message("a"), a_message("b"), a_message("c", "parcels.bulk"), a_message("d", "parcels.bulk", delay=LONG)]
    )
    before = await queue.stats()
    assert (before.depth, before.in_flight, before.by_topic) == (4, 0, {"parcels.live": 2, "parcels.bulk": 2})
    assert before.oldest_age is None or 0 <= before.oldest_age < LONG
    await queue.receive(1, 0, LONG)
    after = await queue.stats()
    assert (after.depth, after.in_flight) == (3, 1)


@needs("leases")
async def test_a_message_whose_lease_ran_out_counts_as_waiting(queue: Queue, short: float) -> None:
    await queue.put_many([a_message()])
    await queue.receive(1, 1, short)
    await asyncio.sleep(2 * short)
    stats = await queue.stats()
    assert (stats.depth, stats.in_flight) == (1, 0)


async def test_a_waiting_receiver_gets_what_is_put_meanwhile(queue: Queue, open_one: Open) -> None:
    for putter in (queue, open_one()):
        waiting = asyncio.create_task(queue.receive(1, 30, LONG))
        await asyncio.sleep(0.05)
        await putter.put_many([a_message()])
        taken = await waiting
        assert ids(taken) == ["one"]
        await queue.ack_many(taken)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_receivers_that_are_cancelled_keep_nothing(queue: Queue, turns: int) -> None:
    await queue.put_many([a_message(str(number)) for number in range(20)])
    seen = set[str]()
    for _ in range(10):
        task = asyncio.create_task(queue.receive(2, 0, LONG))
        await asyncio.sleep(0)
        time.sleep(0.005)  # the answer comes while this event loop is busy …
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()  # … and is not wanted any more when the loop gets to it
        [got] = await asyncio.gather(task, return_exceptions=True)
        seen.update(ids(got) if isinstance(got, list) else ())
    while len(seen) < 20:
        got = await queue.receive(20, 5, LONG)
        assert got, f"only {len(seen)} came back"
        seen.update(ids(got))


@needs("one holder")
async def test_no_two_receivers_hold_the_same_message(open_one: Open) -> None:
    putters, receivers = [open_one() for _ in range(2)], [open_one() for _ in range(4)]
    total = 400
    held = Counter[str]()

    async def put(queue: Queue, first: int) -> None:
        for number in range(first, total, 20):
            await queue.put_many([a_message(str(n), group=f"site{n % 7}") for n in range(number, number + 10)])

    async def take(queue: Queue) -> None:
        while held.total() < total and (got := await queue.receive(7, 2, LONG)):
            held.update(ids(got))
            assert await queue.ack_many(got) == []

    await asyncio.gather(
        *(put(queue, 10 * n) for n, queue in enumerate(putters)), *(take(queue) for queue in receivers)
    )
    assert held == {str(number): 1 for number in range(total)}


@needs("lost leases")
async def test_a_forged_receipt_is_a_lost_lease(queue: Queue) -> None:
    await queue.put_many([a_message()])
    [taken] = await queue.receive(1, 1, LONG)
    forged = Delivery(
        id=taken.id, topic=taken.topic, group=taken.group, body=b"", attempt=1, receipt=taken.receipt[:-1] + "x"
    )
    assert await queue.ack_many([forged]) == [forged]
    assert (await queue.stats()).in_flight == 1


async def test_closing_twice_is_closing_once(queue: Queue) -> None:
    await queue.close()
    await queue.close()


async def test_a_closed_queue_says_so(queue: Queue) -> None:
    await queue.close()
    with pytest.raises(QueueError, match="closed") as caught:
        await queue.put_many([a_message()])
    assert not caught.value.transient
