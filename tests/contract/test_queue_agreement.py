"""The queue that tests use and the queue that users get behave alike under any sequence of calls."""

import asyncio
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.core.types import Delivery, Message
from eyeline.queues.memory import MemoryQueue
from eyeline.queues.sqlite import SqliteQueue

TOPICS = ("a.live", "a.bulk", "b.live")

PUTS = st.tuples(
    st.just("put"), st.integers(0, 12), st.sampled_from(TOPICS), st.sampled_from("xyz"), st.sampled_from((0.0, 5.0))
)
RECEIVES = st.tuples(st.just("receive"), st.integers(1, 5))
OTHERS = st.tuples(st.sampled_from(("ack", "nack", "late nack", "extend", "wait", "stats")), st.integers(0, 20))


class Pair:
    """Both queues, on one clock, and all they ever delivered."""

    def __init__(self, folder: str) -> None:
        self.now = 100.0
        self.queues = (
            SqliteQueue(f"sqlite:///{folder}/q.db", clock=lambda: self.now, boot="a"),
            MemoryQueue(f"memory://{folder}", clock=lambda: self.now),
        )
        self.taken: tuple[list[Delivery], list[Delivery]] = ([], [])

    async def step(self, call: tuple[Any, ...]) -> None:
        one, other = [await self.call(index, call) for index in (0, 1)]
        assert one == other, call

    async def call(self, index: int, call: tuple[Any, ...]) -> object:
        queue, taken = self.queues[index], self.taken[index]
        name, number = call[0], call[1]
        if name == "put":
            message = Message(id=str(number), topic=call[2], group=call[3], body=b"x", delay=call[4])
            await queue.put_many([message])
            return None
        if name == "receive":
            got = await queue.receive(number, 0, 10.0)
            taken += got
            return [(delivery.id, delivery.topic, delivery.group, delivery.attempt) for delivery in got]
        if name == "wait":
            self.now += number / 4  # once for each queue: the same in the end
            return None
        if name == "stats":
            stats = await queue.stats()
            return stats.depth, stats.in_flight, stats.by_topic
        return await self.settle(index, name, taken[number % len(taken)]) if taken else None

    async def settle(self, index: int, name: str, delivery: Delivery) -> object:
        queue = self.queues[index]
        if name == "ack":
            return [lost.id for lost in await queue.ack_many([delivery])]
        if name == "extend":
            return [lost.id for lost in await queue.extend([delivery], 10.0)]
        await queue.nack(delivery, delay=3.0 if name == "late nack" else 0.0)
        return None

    async def close(self) -> None:
        for queue in self.queues:
            await queue.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(PUTS, RECEIVES, OTHERS), max_size=40))
def test_memory_and_sqlite_agree(calls: list[tuple[Any, ...]]) -> None:
    async def play(folder: str) -> None:
        pair = Pair(folder)
        for call in calls:
            await pair.step(call)
        await pair.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(folder))
