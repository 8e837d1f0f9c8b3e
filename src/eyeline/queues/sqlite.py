"""The embedded queue: one SQLite file, shared by the processes of one machine.

A message waits (state 0), is leased (1) or delayed (2); one index finds what waits by topic and turn, one what comes
back by time. What is put is on the disk before `put_many` returns. Leases and acknowledgements survive the death of
a process but are not forced to the disk: what a power cut undoes is received once more, which at-least-once allows.
"""

import asyncio
import contextlib
import json
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from eyeline.core.bell import Bell
from eyeline.core.clock import boot_id, lease_now
from eyeline.core.embedded import Embedded, path_of
from eyeline.core.errors import QueueError
from eyeline.core.types import Delivery, Message, QueueStats
from eyeline.queues.base import Abilities
from eyeline.queues.turns import Turns, next_turn

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    site TEXT NOT NULL,
    turn INTEGER NOT NULL,
    state INTEGER NOT NULL,
    visible_at REAL NOT NULL,
    put_at REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS waiting ON messages (topic, turn) WHERE state = 0;
CREATE INDEX IF NOT EXISTS coming_back ON messages (visible_at) WHERE state > 0;
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, served INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (
    topic TEXT NOT NULL, site TEXT NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (topic, site)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boot (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, now REAL NOT NULL) STRICT;
"""

#: Seconds between looks for work of other processes, which ring when there is some; and where no bell can be heard.
PAUSE, DEAF_PAUSE = 0.25, 0.02


class SqliteQueue:
    """Keeps `queues.base.Queue`'s promises on `sqlite:///file.db`. `clock` gives seconds since boot, `boot` names the boot."""

    abilities: ClassVar[Abilities] = Abilities()

    def __init__(
        self,
        url: str,
        *,
        topics: Sequence[str] | None = None,
        clock: Callable[[], float] = lease_now,
        boot: str | None = None,
    ) -> None:
        self._topics = None if topics is None else tuple(topics)
        self._clock = clock
        self._turns: Turns[tuple[int, str, int]] = Turns()
        self._news = asyncio.Event()
        self._releases: set[asyncio.Task[None]] = set()
        self._bell = Bell(path_of(url))
        self._file = Embedded(path_of(url), SCHEMA, QueueError, partial(_after_boot, boot or boot_id(), clock()))

    async def put_many(self, messages: Sequence[Message]) -> None:
        """See `Queue.put_many`. An id that is there already is left as it is."""
        if messages:
            await self._file.run(partial(_put, list(messages), self._clock()))
            self._tell()

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:
        """See `Queue.receive`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        pause = PAUSE if self._bell.listen(self._wake) else DEAF_PAUSE
        while True:
            news = self._news
            claim = partial(self._claim, limit, lease)
            deliveries = await self._file.run(claim, durable=False, undo=self._release)
            if deliveries or loop.time() >= deadline or not await self._work_comes(news, deadline, pause):
                return deliveries

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Queue.ack_many`. A lease that ran out without another receiver is still good."""
        if not deliveries:
            return []
        lost = await self._file.run(partial(_ack, _leases(deliveries)), durable=False)
        return [delivery for delivery in deliveries if delivery.id in lost]

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """See `Queue.nack`."""
        await self._file.run(partial(_nack, _leases([delivery]), self._clock(), delay), durable=False)
        self._tell()

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """See `Queue.extend`."""
        if not deliveries:
            return []
        lost = await self._file.run(partial(_extend, _leases(deliveries), self._clock() + lease), durable=False)
        return [delivery for delivery in deliveries if delivery.id in lost]

    async def stats(self) -> QueueStats:
        """See `Queue.stats`."""
        return await self._file.run(partial(_stats, self._clock()), write=False)

    async def close(self) -> None:
        """See `Queue.close`."""
        while self._releases:
            await asyncio.wait(self._releases)
        self._bell.close()
        await self._file.close()
        self._wake()

    def _tell(self) -> None:
        """Wake all receivers, this process's and those of others."""
        self._wake()
        self._bell.ring()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _work_comes(self, news: asyncio.Event, deadline: float, pause: float) -> bool:
        """Wait until something may be there (True) or the time is up (False)."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            due = await self._file.run(self._due, write=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(due, pause, left))
            if news.is_set() or due <= pause:
                return True
        return False

    def _due(self, db: Any) -> float:
        """Without a lock: seconds until there may be something to claim; 0 where there is."""
        waiting = any(
            db.execute("SELECT 1 FROM messages WHERE state = 0 AND topic = ? LIMIT 1", (topic,)).get
            for topic in self._watched(db)
        )
        if waiting:
            return 0.0
        comes_back = db.execute("SELECT min(visible_at) FROM messages WHERE state > 0").get
        return math.inf if comes_back is None else max(0.0, comes_back - self._clock())

    def _watched(self, db: Any) -> Iterable[str]:
        if self._topics is not None:
            return self._topics
        return [topic for (topic,) in db.execute("SELECT topic FROM topics")]

    def _claim(self, limit: int, lease: float, db: Any) -> list[Delivery]:
        now = self._clock()
        db.execute("UPDATE messages SET state = 0 WHERE state > 0 AND visible_at <= ?", (now,))
        waiting = {
            topic: db.execute(
                "SELECT seq, topic, turn FROM messages WHERE state = 0 AND topic = ? ORDER BY turn, seq LIMIT ?",
                (topic, limit),
            ).fetchall()
            for topic in self._watched(db)
        }
        picked = self._turns.pick(waiting, limit)
        return _lease(db, picked, now + lease) if picked else []

    def _release(self, deliveries: list[Delivery]) -> None:
        """A receiver was cancelled while its messages were on their way: hand them back at once."""
        for delivery in deliveries:
            task = asyncio.ensure_future(self.nack(delivery, delay=0.0))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)


def _after_boot(boot: str, now: float, db: Any) -> None:
    """Leases and delays of another boot are void, and its times are moved so that ages go on from here."""
    kept = db.execute("SELECT id, now FROM boot").get
    if kept is not None and kept[0] != boot:
        db.execute("UPDATE messages SET state = 0, token = NULL WHERE state > 0")
        db.execute("UPDATE messages SET put_at = put_at + ?", (now - kept[1],))
    if kept is None or kept[0] != boot or now > kept[1]:
        db.execute("INSERT OR REPLACE INTO boot (one, id, now) VALUES (1, ?, ?)", (boot, now))


def _put(messages: list[Message], now: float, db: Any) -> None:
    turns = {key: _last_turn(db, *key) for key in {(message.topic, message.group) for message in messages}}
    rows = []
    for message in messages:
        key = (message.topic, message.group)
        turns[key] += 1
        visible_at, state = now + message.delay, 2 if message.delay > 0 else 0
        rows.append((message.id, *key, turns[key], state, visible_at, now, message.body))
    db.executemany(
        "INSERT INTO messages (id, topic, site, turn, state, visible_at, put_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO NOTHING",
        rows,
    )
    db.executemany(
        "INSERT INTO lines (topic, site, turn) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET turn = excluded.turn",
        [(*key, turn) for key, turn in turns.items()],
    )


def _last_turn(db: Any, topic: str, site: str) -> int:
    """The turn before the next one of this site's line."""
    served = db.execute("SELECT served FROM topics WHERE topic = ?", (topic,)).get
    if served is None:
        db.execute("INSERT INTO topics (topic, served) VALUES (?, 0)", (topic,))
    last = db.execute("SELECT turn FROM lines WHERE topic = ? AND site = ?", (topic, site)).get
    return next_turn(last or 0, served or 0) - 1


def _lease(db: Any, picked: list[tuple[int, str, int]], until: float) -> list[Delivery]:
    """Lease the picked (seq, topic, turn) under a token of this very receive, which acks and nacks must show."""
    token = secrets.token_hex(8)
    rows = db.execute(
        "UPDATE messages SET state = 1, attempt = attempt + 1, token = ?, visible_at = ? "
        "WHERE seq IN (SELECT value FROM json_each(?)) RETURNING seq, id, topic, site, body, attempt",
        (token, until, json.dumps([seq for seq, _, _ in picked])),
    )
    found = {row[0]: row[1:] for row in rows}
    served = {topic: turn for _, topic, turn in sorted(picked, key=lambda entry: entry[2])}
    db.executemany(
        "UPDATE topics SET served = max(served, ?) WHERE topic = ?", [(turn, topic) for topic, turn in served.items()]
    )
    return [_delivery(seq, token, *found[seq]) for seq, _, _ in picked]


def _delivery(seq: int, token: str, id: str, topic: str, site: str, body: bytes, attempt: int) -> Delivery:  # noqa: A002
    return Delivery(id=id, topic=topic, group=site, body=body, attempt=attempt, receipt=f"{seq}.{token}")


def _leases(deliveries: Iterable[Delivery]) -> list[tuple[int, str, str]]:
    """(seq, id, token) of each: found by seq, which is quicker; the id makes sure, for seqs are used again."""
    leases = []
    for delivery in deliveries:
        seq, _, token = delivery.receipt.partition(".")
        if not seq.isdecimal():
            raise QueueError(f"receipt {delivery.receipt!r} of {delivery.id} is none of this queue's", transient=False)
        leases.append((int(seq), delivery.id, token))
    return leases


def _ack(leases: list[tuple[int, str, str]], db: Any) -> set[str]:
    rows = db.executemany("DELETE FROM messages WHERE seq = ? AND id = ? AND token = ? RETURNING id", leases)
    done = {row[0] for row in rows}
    there = "SELECT id FROM messages WHERE id = ?"  # by id alone: seqs are used again, and an id put again is there
    return {lease[1] for lease in leases if lease[1] not in done and db.execute(there, lease[1:2]).get}


def _nack(leases: list[tuple[int, str, str]], now: float, delay: float, db: Any) -> None:
    state = 2 if delay > 0 else 0
    db.executemany(
        "UPDATE messages SET state = ?, visible_at = ?, token = NULL WHERE seq = ? AND id = ? AND token = ?",
        [(state, now + delay, *lease) for lease in leases],
    )


def _extend(leases: list[tuple[int, str, str]], until: float, db: Any) -> set[str]:
    rows = db.executemany(
        "UPDATE messages SET state = 1, visible_at = ? WHERE seq = ? AND id = ? AND token = ? RETURNING id",
        [(until, *lease) for lease in leases],
    )
    held = {row[0] for row in rows}
    return {lease[1] for lease in leases if lease[1] not in held}


def _stats(now: float, db: Any) -> QueueStats:
    by_topic = {topic: 0 for (topic,) in db.execute("SELECT topic FROM topics")}
    by_topic.update(db.execute("SELECT topic, count(*) FROM messages WHERE state = 0 GROUP BY topic").fetchall())
    returning = db.execute(
        "SELECT topic, state = 1 AND visible_at > ?, count(*) FROM messages WHERE state > 0 GROUP BY 1, 2", (now,)
    ).fetchall()
    for topic, leased, count in returning:
        by_topic[topic] += 0 if leased else count
    oldest = db.execute(
        "SELECT put_at FROM messages WHERE state <> 1 OR visible_at <= ? ORDER BY seq LIMIT 1", (now,)
    ).get
    return QueueStats(
        depth=sum(by_topic.values()),
        in_flight=sum(count for _, leased, count in returning if leased),
        oldest_age=None if oldest is None else max(0.0, now - oldest),
        by_topic={topic: count for topic, count in by_topic.items() if count},
    )
