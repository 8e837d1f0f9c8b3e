"""The queue on Kafka: a topic `<prefix>.<pipeline>.<lane>` for each of ours, retry topics for what is to come back later.

A message is its consumer's until that commits past it or leaves the group. A commit is a position: only what is finished
without a gap is committed (`queues.offsets`). Handing back is putting again: at once on the topic itself, later on
the retry topic of the next longer delay. The sites are the keys, so the order of a site is that of its partition.

The driver blocks: everything that touches the consumer runs in one thread, in short turns; putting and counting in others.
"""

import asyncio
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.settings import mask
from eyeline.core.types import Delivery, Message, QueueStats
from eyeline.queues.base import Abilities
from eyeline.queues.claims import Claims
from eyeline.queues.offsets import Offsets
from eyeline.queues.turns import Turns

T = TypeVar("T")

#: Seconds that one call may take; the client's own default is minutes.
PATIENCE = 2.0
#: Seconds of one turn of the consumer's thread: acknowledgements wait no longer than that.
SLICE = 0.05
#: Seconds for which the first receive waits for the group to give partitions, and for each of them to say what it has.
JOINING, FILLING = 10.0, 1.0
#: Seconds that a receive looks at least, where nothing was read ahead.
GLANCE = 0.2
#: Seconds between looks for topics that others made, where none are named.
LIST_EVERY = 1.0
#: Messages of a topic that are read ahead; above, its partitions are paused.
AHEAD = 1000
#: Retry topics' delays, in seconds.
DELAYS = "5,60,600"

_PERMANENT = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - the driver's public name for it
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.TOPIC_EXCEPTION,
    )
)

#: What the client tells aside, while its calls say only that nobody answers.
_REFUSED = _PERMANENT | {KafkaError._SSL}  # noqa: SLF001 - the driver's public name for it

Place = tuple[str, int]  # a Kafka topic and a partition


@dataclass(frozen=True)
class Read:
    """A message that was read ahead: where it lies, and when it may be given out (seconds of this process's monotonic clock)."""

    place: Place
    offset: int
    due: float
    delivery: Delivery


class KafkaQueue:
    """Keeps `queues.base.Queue`'s promises, but for `abilities`, on `kafka://[user:password@]host:port[,host:port]/prefix?…`."""

    abilities: ClassVar[Abilities] = Abilities(
        grain=5.0,
        cannot={
            "leases": "a message is its consumer's until that leaves the group (after 45 s of silence)",
            "lost leases": "Kafka knows positions, not messages",
            "ids": "a topic keeps every message that it is sent",
            "sites": "the order within a partition is fixed; sites of one partition wait for each other",
            "one holder": "while consumers join or leave, what is not committed is read again by the next",
        },
    )

    def __init__(self, url: str, *, topics: Sequence[str] | None = None) -> None:
        self._where = mask(url)
        self._settings, self._prefix, query = _settings(url)
        self._delays = sorted(int(seconds) for seconds in query.get("delays", DELAYS).split(","))
        self._partitions = int(query.get("partitions", "6"))
        self._topics = None if topics is None else tuple(topics)
        self._turns: Turns[Read] = Turns()
        self._claims = Claims(self._unread)
        self._lines: defaultdict[str, deque[Read]] = defaultdict(deque)
        self._later: list[Read] = []
        self._held: dict[str, Read] = {}
        self._offsets: dict[Place, Offsets] = {}
        self._generation = 0
        self._unseen: set[Place] = set()
        self._positions: dict[Place, int] = {}
        self._subscribed: frozenset[str] = frozenset()
        self._listed_at = -LIST_EVERY
        self._made: set[str] = set()
        self._trouble: str | None = None
        self._closed = False
        self._state = threading.Lock()  # over what the consumer's thread writes and `stats` reads
        self._threads = {name: ThreadPoolExecutor(1, f"kafka {name}") for name in ("consumer", "producer", "stats")}
        self._clients: dict[str, Any] = {}

    async def put_many(self, messages: Sequence[Message]) -> None:
        """See `Queue.put_many`. Raises after a part of it was kept, too: putting all of it again is harmless."""
        if messages:
            await self._in("producer", partial(self._put, [(message, 1) for message in messages]))

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:  # noqa: ARG002 - Kafka has no leases
        """See `Queue.receive`. The first one waits until the group has given this receiver its partitions."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        await self._in("consumer", self._subscribe)
        deadline = max(deadline, loop.time() + GLANCE)
        while True:
            await self._in("consumer", self._subscribe)
            if deliveries := await self._claims.of(self._in("consumer", partial(self._take, limit))):
                return deliveries
            left = deadline - loop.time()
            if left <= 0:
                return []
            await self._in("consumer", partial(self._read, min(SLICE, left)))

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Queue.ack_many`. Those whose partition has gone to another receiver are lost."""
        return await self._in("consumer", partial(self._finish, list(deliveries))) if deliveries else []

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """See `Queue.nack`."""
        if delivery.receipt not in self._held:
            return
        message = Message(
            id=delivery.id, topic=delivery.topic, group=delivery.group, body=delivery.body, delay=max(0.0, delay)
        )
        await self._in("producer", partial(self._put, [(message, delivery.attempt + 1)]))
        await self._in("consumer", partial(self._finish, [delivery]))

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:  # noqa: ARG002
        """There is nothing to extend. Returns those whose partition has gone to another receiver."""
        return [delivery for delivery in deliveries if delivery.receipt not in self._held]

    async def leave(self) -> None:
        """See `Leaving.leave`."""
        await self._claims.close()
        await self._in("consumer", self._leave)

    async def stats(self) -> QueueStats:
        """See `Queue.stats`. What other receivers have in hand counts as waiting; ages are not to be had."""
        return await self._in("stats", self._stats)

    async def close(self) -> None:
        """See `Queue.close`. What is not acknowledged is read by another receiver."""
        if self._closed:
            return
        await self._claims.close()
        self._closed = True
        loop = asyncio.get_running_loop()
        for name, thread in self._threads.items():
            await loop.run_in_executor(thread, partial(self._end, name))
            thread.shutdown(wait=False)

    # ------------------------------------------------------------ threads
    async def _in(self, name: str, work: Callable[[], T]) -> T:
        if self._closed:
            raise QueueError(f"the queue {self._where} is closed; open it again to use it", transient=False)
        return await asyncio.get_running_loop().run_in_executor(self._threads[name], partial(self._translated, work))

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except KafkaException as problem:
            error: Any = problem.args[0]
            raise QueueError(f"{self._where}: {error.str()}", transient=error.code() not in _PERMANENT) from problem
        except (ValueError, TypeError) as problem:
            raise QueueError(f"{self._where}: the Kafka client refuses: {problem}", transient=False) from problem

    def _client(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._clients:
            self._clients[name] = make()
        return self._clients[name]

    def _end(self, name: str) -> None:
        if (client := self._clients.pop(name, None)) is not None and name != "producer":
            client.close()

    # ------------------------------------------------------------ putting
    def _put(self, messages: list[tuple[Message, int]]) -> None:
        producer = self._client("producer", self._new_producer)
        self._require({self._name(message) for message, _ in messages})
        failed: list[Any] = []

        def told(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        for message, attempt in messages:
            headers = {"id": message.id, "attempt": str(attempt)}
            producer.produce(
                self._name(message), key=message.group, value=message.body, headers=headers, on_delivery=told
            )
            producer.poll(0)
        left = producer.flush(PATIENCE + 1)
        if failed:
            raise KafkaException(failed[0])
        if left:
            raise QueueError(f"{self._where}: {left} messages were not taken within {PATIENCE + 1:g} s")

    def _new_producer(self) -> Any:
        settings = {"acks": "all", "message.timeout.ms": int(PATIENCE * 1000), "linger.ms": 2, **self._settings}
        return Producer(settings)

    def _name(self, message: Message) -> str:
        """The Kafka topic for it: that of its delay, rounded up (the longest one at most)."""
        name = f"{self._prefix}.{message.topic}"
        if message.delay <= 0:
            return name
        delay = next((delay for delay in self._delays if delay >= message.delay), self._delays[-1])
        return f"{name}.retry-{delay}"

    def _topic(self, name: str) -> str:
        """Our topic behind a Kafka topic or its retry topic."""
        return re.sub(r"\.retry-\d+$", "", name.removeprefix(f"{self._prefix}."))

    def _require(self, names: set[str]) -> None:
        """Make the topics that are not there."""
        if names <= self._made:
            return
        refusals: list[Any] = []
        settings: Any = {**self._settings, "error_cb": refusals.append}
        admin = AdminClient(settings)
        try:
            self._made |= set(admin.list_topics(timeout=PATIENCE).topics)
        except KafkaException as problem:
            admin.poll(0)  # only now it tells what stood in the way
            told = [error for error in refusals if error.code() in _REFUSED]
            if told:
                raise KafkaException(told[-1]) from problem
            raise
        new = [
            NewTopic(name, num_partitions=1 if ".retry-" in name else self._partitions, replication_factor=-1)
            for name in sorted(names - self._made)
        ]
        for made in (
            admin.create_topics(new, operation_timeout=PATIENCE, request_timeout=PATIENCE).values() if new else ()
        ):
            try:
                made.result(PATIENCE + 1)
            except KafkaException as problem:
                error: Any = problem.args[0]
                if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        self._made |= names

    # ------------------------------------------------------------ receiving, all in the consumer's thread
    def _subscribe(self) -> None:
        """To the topics and their retry topics; waits until the group has given something, and that has been read."""
        now = time.monotonic()
        if now - self._listed_at < LIST_EVERY or (self._topics is not None and self._subscribed):
            return
        self._listed_at = now
        topics = {self._topic(name) for name in self._list("consumer")} if self._topics is None else self._topics
        bases = {f"{self._prefix}.{topic}" for topic in topics}
        names = frozenset(bases | {f"{base}.retry-{delay}" for base in bases for delay in self._delays})
        if names == self._subscribed or not names:
            return
        self._require(set(names))
        consumer = self._client("consumer", self._new_consumer)
        consumer.subscribe(sorted(names), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
        self._subscribed = names
        self._wait(JOINING, lambda: bool(self._offsets))
        self._wait(FILLING, lambda: not self._unseen)

    def _wait(self, seconds: float, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not enough() and time.monotonic() < deadline:
            self._read(SLICE)

    def _list(self, name: str) -> set[str]:
        """All of our topics that there are."""
        client = self._client(name, self._new_consumer)
        found: dict[str, Any] = client.list_topics(timeout=PATIENCE).topics
        return {topic for topic in found if topic.startswith(f"{self._prefix}.")}

    def _new_consumer(self) -> Any:
        settings = {
            "group.id": self._prefix,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "partition.assignment.strategy": "cooperative-sticky",
            "max.poll.interval.ms": 900_000,  # a worker that waits for a dependency does not receive
            "queued.min.messages": AHEAD,
            "fetch.wait.max.ms": 100,
            "error_cb": self._on_error,
            **self._settings,
        }
        return Consumer(settings)

    def _on_error(self, error: Any) -> None:
        if error.code() in {KafkaError._ALL_BROKERS_DOWN, *_PERMANENT}:  # noqa: SLF001 - the driver's public name
            self._trouble = error.str()

    def _on_assign(self, _consumer: Any, partitions: list[Any]) -> None:
        with self._state:
            self._generation += 1  # a partition that comes back is read again: other receipts for the same messages
            for each in partitions:
                self._offsets[each.topic, each.partition] = Offsets()
                self._unseen.add((each.topic, each.partition))

    def _on_revoke(self, _consumer: Any, partitions: list[Any]) -> None:
        """What is in hand of them is lost: the next owner reads it again."""
        gone = {(each.topic, each.partition) for each in partitions}
        with self._state:
            for place in gone:
                self._offsets.pop(place, None)
                self._positions.pop(place, None)
            self._unseen -= gone
            self._later = [read for read in self._later if read.place not in gone]
            for topic, line in self._lines.items():
                self._lines[topic] = deque(read for read in line if read.place not in gone)
            self._held = {receipt: read for receipt, read in self._held.items() if read.place not in gone}

    def _read(self, seconds: float) -> None:
        """Read ahead what comes within `seconds`; returns early when something has come."""
        consumer = self._clients.get("consumer")
        if consumer is None:
            time.sleep(seconds)
            return
        first = consumer.poll(seconds)
        for message in [first, *consumer.consume(AHEAD, 0)] if first is not None else ():
            self._sort_in(message)
        if first is None and self._trouble is not None:
            consumer.list_topics(timeout=PATIENCE)  # raises, unless a broker is back
        self._trouble = None
        self._commit()
        self._pause(consumer)

    def _sort_in(self, message: Any) -> None:
        place = (message.topic(), message.partition())
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the driver's public name
            raise KafkaException(error)
        with self._state:
            self._unseen.discard(place)
            if error is None and place in self._offsets:
                self._offsets[place].read(message.offset())
                self._later.append(self._as_read(place, message))

    def _as_read(self, place: Place, message: Any) -> Read:
        headers = {name: value.decode() for name, value in message.headers() or ()}
        topic = self._topic(place[0])
        delivery = Delivery(
            id=headers.get("id", f"{place[0]}/{place[1]}/{message.offset()}"),
            topic=topic,
            group=(message.key() or b"").decode(),
            body=message.value() or b"",
            attempt=int(headers.get("attempt", "1")),
            receipt=f"{place[0]}/{place[1]}/{message.offset()}/{self._generation}",
        )
        return Read(place, message.offset(), _due(place[0], message), delivery)

    def _take(self, limit: int) -> list[Delivery]:
        """Look first: what waits here of one lane must not keep the other's from being seen."""
        self._read(0.0)
        now = time.monotonic()
        with self._state:
            for read in [read for read in self._later if read.due <= now]:
                self._lines[read.delivery.topic].append(read)
            self._later = [read for read in self._later if read.due > now]
            picked = self._turns.pick(self._lines, limit)
            for read in picked:
                self._lines[read.delivery.topic].popleft()
                self._held[read.delivery.receipt] = read
        return [read.delivery for read in picked]

    def _pause(self, consumer: Any) -> None:
        """Read no further ahead of one topic than `AHEAD`."""
        with self._state:
            waiting = dict.fromkeys(self._offsets, 0)
            for read in [*self._later, *(read for line in self._lines.values() for read in line)]:
                waiting[read.place] = waiting.get(read.place, 0) + 1
        full = [TopicPartition(*place) for place, count in waiting.items() if count >= AHEAD]
        free = [TopicPartition(*place) for place, count in waiting.items() if count < AHEAD // 2]
        if full:
            consumer.pause(full)
        if free:
            consumer.resume(free)

    def _leave(self) -> None:
        """What was read ahead is read by the next owners."""
        try:
            self._commit()
        finally:
            self._end("consumer")
            self._on_revoke(None, [TopicPartition(*place) for place in self._offsets])
            self._subscribed = frozenset()

    async def _unread(self, deliveries: list[Delivery]) -> None:
        """A receiver was cancelled: they are the next ones again."""
        with self._state:
            for delivery in reversed(deliveries):
                if (read := self._held.pop(delivery.receipt, None)) is not None:
                    self._lines[delivery.topic].appendleft(read)

    def _finish(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Commit as far as there is no gap. A receipt that is finished already is none of ours any more, and no loss."""
        lost = []
        with self._state:
            for delivery in deliveries:
                read = self._held.pop(delivery.receipt, None)
                if read is None:
                    place = _place(delivery)
                    lost += [] if place in self._offsets else [delivery]
                elif (position := self._offsets[read.place].finish(read.offset)) is not None:
                    self._positions[read.place] = position
        self._commit()
        return lost

    def _commit(self) -> None:
        """What a broker did not take stays to be committed."""
        if self._positions:
            places = [TopicPartition(*place, position) for place, position in self._positions.items()]
            self._clients["consumer"].commit(offsets=places, asynchronous=False)
            self._positions.clear()

    # ------------------------------------------------------------ counting
    def _stats(self) -> QueueStats:
        names = self._list("stats")
        client = self._clients["stats"]
        topics = client.list_topics(timeout=PATIENCE).topics
        places = [TopicPartition(name, number) for name in sorted(names) for number in topics[name].partitions]
        by_topic: defaultdict[str, int] = defaultdict(int)
        for place in client.committed(places, timeout=PATIENCE) if places else ():
            low, high = client.get_watermark_offsets(place, timeout=PATIENCE)
            start = low if place.offset in (OFFSET_INVALID, None) or place.offset < 0 else place.offset
            by_topic[self._topic(place.topic)] += max(0, high - start)
        with self._state:
            held = list(self._held.values())
            finished = {place: offsets.finished for place, offsets in self._offsets.items()}
        for read in held:
            by_topic[read.delivery.topic] -= 1
        for (name, _), count in finished.items():
            by_topic[self._topic(name)] -= count
        waiting = {topic: count for topic, count in by_topic.items() if count > 0}
        return QueueStats(depth=sum(waiting.values()), in_flight=len(held), oldest_age=None, by_topic=waiting)


def _due(name: str, message: Any) -> float:
    """When what was put there may be given out: after its retry topic's delay, less its age. Only its age goes by the clocks of
    two machines, so that one which was set back makes nobody wait for longer than the delay.
    """
    if ".retry-" not in name:
        return 0.0
    delay = float(name.rpartition("-")[2])
    age: float = time.time() - message.timestamp()[1] / 1000
    return time.monotonic() + min(delay - age, delay)


def _place(delivery: Delivery) -> Place:
    name, _, rest = delivery.receipt.partition("/")
    number = rest.partition("/")[0]
    if not number.isdecimal():
        raise QueueError(f"receipt {delivery.receipt!r} of {delivery.id} is none of this queue's", transient=False)
    return name, int(number)


def _settings(url: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    """The client's settings, the prefix of all topics, and our own settings: those of the query without a dot."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    hosts, prefix = parts.netloc.rpartition("@")[2], parts.path.strip("/") or "eyeline"
    if not hosts or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", prefix):
        raise ConfigError(f"{mask(url)} is no address of a Kafka cluster; write kafka://host:9092,host2:9092/prefix")
    settings: dict[str, Any] = {
        "bootstrap.servers": hosts,
        "socket.connection.setup.timeout.ms": 1500,
        "topic.metadata.refresh.interval.ms": 30_000,
        "allow.auto.create.topics": False,
        "log_level": 2,
    }
    if parts.username:
        settings |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": unquote(parts.username),
            "sasl.password": unquote(parts.password or ""),
        }
    settings |= {name: value for name, value in query.items() if "." in name}
    return settings, prefix, {name: value for name, value in query.items() if "." not in name}
