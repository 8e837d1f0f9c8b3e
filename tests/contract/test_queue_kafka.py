"""What only the Kafka queue can get wrong: positions, retry topics, partitions that move to another receiver."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.types import Delivery, Message
from eyeline.queues import open_queue
from eyeline.queues.base import Leaving, Queue
from tests.contract.proxy import Proxy, tls
from tests.contract.servers import QUEUE_SERVERS, TANSU, Tansu

LONG = 60.0
TOPICS = ["parcels.live"]


def a_message(id: str = "one", group: str = "north") -> Message:  # noqa: A002
    return Message(id=id, topic="parcels.live", group=group, body=b"x")


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[[], Queue]]:
    url = QUEUE_SERVERS["kafka"](tmp_path)
    async with AsyncExitStack() as stack:

        def another() -> Queue:
            queue = open_queue(url, TOPICS)
            stack.push_async_callback(queue.close)
            return queue

        yield another


async def test_what_is_not_finished_is_read_again_by_the_next_receiver_and_nothing_before_it(
    opened: Callable[[], Queue],
) -> None:
    first = opened()
    await first.put_many([a_message(str(number)) for number in range(6)])
    taken = await first.receive(6, 5, LONG)
    assert [delivery.id for delivery in taken] == list("012345")
    await first.ack_many([taken[number] for number in (0, 1, 3, 5)])
    stats = await first.stats()
    assert (stats.depth, stats.in_flight) == (0, 2)
    await first.close()
    again = await opened().receive(6, 10, LONG)
    assert [delivery.id for delivery in again] == list("2345")  # 3 and 5 lie behind the gap: once more, and harmless


async def test_a_receiver_that_leaves_keeps_nothing_from_the_others_and_may_come_back(
    opened: Callable[[], Queue],
) -> None:
    first, other = opened(), opened()
    assert isinstance(first, Leaving)
    await first.put_many([a_message(str(number)) for number in range(4)])
    taken = await first.receive(1, 5, LONG)  # the others are read ahead
    await first.ack_many(taken)
    await first.leave()
    rest = await other.receive(4, 10, LONG)
    assert [delivery.id for delivery in rest] == list("123")
    await other.ack_many(rest)
    await other.close()
    await first.put_many([a_message("4")])
    assert [delivery.id for delivery in await first.receive(4, 20, LONG)] == ["4"]


async def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_the_delay(
    opened: Callable[[], Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    await queue.put_many([replace(a_message(), delay=1.0)])
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() - 3600)
    assert [delivery.id for delivery in await queue.receive(1, 30, LONG)] == ["one"]


async def test_a_partition_that_moved_is_lost_and_when_it_comes_back_its_messages_have_other_receipts(
    opened: Callable[[], Queue],
) -> None:
    first, second = opened(), opened()
    await first.put_many([a_message(str(number), group=f"site{number}") for number in range(40)])
    held = await first.receive(40, 5, LONG)
    assert len(held) == 40
    moved = asyncio.create_task(second.receive(40, 30, LONG))
    while not moved.done():
        assert await first.receive(40, 0.2, LONG) == []  # a consumer that does not poll gives nothing up
    lost = {delivery.id for delivery in await first.extend(held, LONG)}
    assert lost
    assert lost == {delivery.id for delivery in await moved}
    assert {delivery.id for delivery in await first.ack_many(held)} == lost
    await second.close()
    again: list[Delivery] = []
    async with asyncio.timeout(60):
        while len(again) < len(lost):
            again += await first.receive(40, 1, LONG)
    assert lost <= {delivery.id for delivery in again}
    assert {delivery.receipt for delivery in again}.isdisjoint(delivery.receipt for delivery in held)


def test_an_address_without_a_broker_is_refused() -> None:
    with pytest.raises(ConfigError, match="no address"):
        open_queue("kafka:///prefix")


async def test_tls_is_spoken_where_the_url_says_so_and_only_with_who_is_known(tmp_path: Path) -> None:
    broker = Tansu()
    between = Proxy(broker.port, tls(tmp_path))
    broker.advertised = await between.start()
    broker.start()
    url = f"kafka://127.0.0.1:{broker.advertised}/tls?partitions=1&{TANSU}&security.protocol=SSL"
    known, stranger = open_queue(f"{url}&ssl.ca.location={tmp_path}/cert.pem", TOPICS), open_queue(url, TOPICS)
    await known.put_many([a_message()])
    assert (await known.stats()).depth == 1
    with pytest.raises(QueueError, match="certificate verify failed"):
        await stranger.put_many([a_message()])
    await known.close()
    await stranger.close()
    between.close()
    broker.stop()
