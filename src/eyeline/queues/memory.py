"""The queue for tests: the same promises within one process. Queues of the same URL share their messages."""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakValueDictionary

from eyeline.core.clock import lease_now
from eyeline.core.errors import QueueError
from eyeline.core.types import Delivery, Message, QueueStats
from eyeline.queues.base import Abilities
from eyeline.queues.turns import Turns, next_turn

#: How often a waiting receiver looks for leases and delays that ran out, in seconds.
PAUSE = 0.01


@dataclass(slots=True)
class _Kept:
    message: Message
    turn: int
    put_at: float
    visible_at: float
    attempt: int = 0
    token: str | None = None
    leased: bool = False


@dataclass(eq=False)
class _Store:
    kept: dict[str, _Kept] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lines: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


_STORES: WeakValueDictionary[str, _Store] = WeakValueDictionary()


class MemoryQueue:
    """Keeps `queues.base.Queue`'s promises on `memory://name`, but for the death of the process."""

    abilities: ClassVar[Abilities] = Abilities()

    def __init__(
        self, url: str, *, topics: Sequence[str] | None = None, clock: Callable[[], float] = lease_now
    ) -> None:
        self._store = _STORES.setdefault(url, _Store())
        self._topics = None if topics is None else frozenset(topics)
        self._clock = clock
        self._turns: Turns[_Kept] = Turns()
        self._closed = False

    async def put_many(self, messages: Sequence[Message]) -> None:
        """See `Queue.put_many`."""
        self._check_open()
        for message in messages:
            self._put(message)
        await self._tell()

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:
        """See `Queue.receive`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            self._check_open()
            deliveries = self._claim(limit, lease)
            left = deadline - loop.time()
            if deliveries or left <= 0:
                return deliveries
            await self._change(min(left, PAUSE))

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Queue.ack_many`."""
        self._check_open()
        lost = [delivery for delivery in deliveries if delivery.id in self._store.kept and not self._held(delivery)]
        for delivery in deliveries:
            if self._held(delivery):
                del self._store.kept[delivery.id]
        return lost

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """See `Queue.nack`."""
        self._check_open()
        if kept := self._held(delivery):
            kept.leased, kept.token, kept.visible_at = False, None, self._clock() + delay
            await self._tell()

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """See `Queue.extend`."""
        self._check_open()
        lost = []
        for delivery in deliveries:
            if kept := self._held(delivery):
                kept.leased, kept.visible_at = True, self._clock() + lease
            else:
                lost.append(delivery)
        return lost

    async def stats(self) -> QueueStats:
        """See `Queue.stats`."""
        self._check_open()
        now = self._clock()
        waiting = [kept for kept in self._store.kept.values() if not kept.leased or kept.visible_at <= now]
        return QueueStats(
            depth=len(waiting),
            in_flight=len(self._store.kept) - len(waiting),
            oldest_age=max((now - kept.put_at for kept in waiting), default=None),
            by_topic=Counter(kept.message.topic for kept in waiting),
        )

    async def close(self) -> None:
        """See `Queue.close`."""
        self._closed = True
        await self._tell()

    def _check_open(self) -> None:
        if self._closed:
            raise QueueError("this memory queue is closed; open it again to use it", transient=False)

    def _put(self, message: Message) -> None:
        if message.id in self._store.kept:
            return
        now = self._clock()
        line = (message.topic, message.group)
        turn = next_turn(self._store.lines[line], self._store.served[message.topic])
        self._store.lines[line] = turn
        self._store.kept[message.id] = _Kept(message, turn, put_at=now, visible_at=now + message.delay)

    def _claim(self, limit: int, lease: float) -> list[Delivery]:
        now = self._clock()
        waiting: dict[str, list[_Kept]] = defaultdict(list)
        for kept in self._store.kept.values():
            if kept.visible_at <= now and (self._topics is None or kept.message.topic in self._topics):
                waiting[kept.message.topic].append(kept)
        for line in waiting.values():
            line.sort(key=lambda kept: kept.turn)
        return [self._lease(kept, now + lease) for kept in self._turns.pick(waiting, limit)]

    def _lease(self, kept: _Kept, until: float) -> Delivery:
        kept.attempt += 1
        kept.token = secrets.token_hex(8)
        kept.leased, kept.visible_at = True, until
        message = kept.message
        self._store.served[message.topic] = max(self._store.served[message.topic], kept.turn)
        return Delivery(
            id=message.id,
            topic=message.topic,
            group=message.group,
            body=message.body,
            attempt=kept.attempt,
            receipt=kept.token,
        )

    def _held(self, delivery: Delivery) -> _Kept | None:
        kept = self._store.kept.get(delivery.id)
        return kept if kept is not None and kept.token == delivery.receipt else None

    async def _tell(self) -> None:
        async with self._store.changed:
            self._store.changed.notify_all()

    async def _change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds), self._store.changed:
                await self._store.changed.wait()
        except TimeoutError:
            return
