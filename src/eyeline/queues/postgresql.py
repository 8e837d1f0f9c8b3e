"""The queue in PostgreSQL, for those who have a database and want no broker: the sqlite queue's tables, claimed by SKIP LOCKED.

A message waits (state 0), is leased (1) or delayed (2). What is put is on the server's disk before `put_many` returns;
leases and acknowledgements are not waited for: what a crash of the server undoes is received once more. Times are the
server's. NOTIFY wakes receivers.
"""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.settings import mask
from eyeline.core.types import Delivery, Message, QueueStats
from eyeline.queues.base import Abilities
from eyeline.queues.claims import Claims
from eyeline.queues.turns import Turns, in_turn

T = TypeVar("T")

#: Seconds that one call may take with everything, connecting included.
PATIENCE = 2.5
#: Connections of one process, beside the one that hears of news; each call holds one for a millisecond or two.
CONNECTIONS = 4
#: Seconds between looks for work where no notification comes (its connection broke, or is a pooler's).
LOOKOUT = 1.0
#: Messages in one statement.
CHUNK = 1000

#: {s} is the schema. Puts take turns (the lock), so that turn numbers do; takes never wait for one another.
SCHEMA = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.messages (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    topic text NOT NULL,
    site text NOT NULL,
    turn bigint NOT NULL,
    state smallint NOT NULL,
    visible_at timestamptz NOT NULL,
    put_at timestamptz NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    token text,
    body bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX IF NOT EXISTS waiting ON {s}.messages (topic, turn, seq) WHERE state = 0;
CREATE INDEX IF NOT EXISTS coming_back ON {s}.messages (visible_at) WHERE state > 0;
CREATE TABLE IF NOT EXISTS {s}.topics (topic text PRIMARY KEY, served bigint NOT NULL);
CREATE TABLE IF NOT EXISTS {s}.lines (topic text, site text, turn bigint NOT NULL, PRIMARY KEY (topic, site));
CREATE OR REPLACE FUNCTION {s}.put_1(
    new_ids text[], new_topics text[], new_sites text[], new_delays float8[], new_bodies bytea[]
) RETURNS void LANGUAGE plpgsql AS $put$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(hashtext('{s}'), 1);
    INSERT INTO {s}.topics (topic, served) SELECT DISTINCT unnest(new_topics), 0 ON CONFLICT DO NOTHING;
    WITH given AS (
        SELECT DISTINCT ON (id) * FROM unnest(new_ids, new_topics, new_sites, new_delays, new_bodies)
        WITH ORDINALITY AS g (id, topic, site, delay, body, place)
        WHERE NOT EXISTS (SELECT 1 FROM {s}.messages m WHERE m.id = g.id) ORDER BY id, place
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY topic, site ORDER BY place) AS rank FROM given
    ), base AS (
        SELECT topic, site, greatest(coalesce(l.turn, 0), t.served) AS turn, max(rank) AS count
        FROM ranked JOIN {s}.topics t USING (topic) LEFT JOIN {s}.lines l USING (topic, site)
        GROUP BY topic, site, l.turn, t.served
    ), moved AS (
        INSERT INTO {s}.lines (topic, site, turn) SELECT topic, site, turn + count FROM base
        ON CONFLICT (topic, site) DO UPDATE SET turn = excluded.turn
    )
    INSERT INTO {s}.messages (id, topic, site, turn, state, visible_at, put_at, body)
    SELECT id, topic, site, base.turn + rank, CASE WHEN delay > 0 THEN 2 ELSE 0 END,
        clock_timestamp() + delay * interval '1 second', clock_timestamp(), body
    FROM ranked JOIN base USING (topic, site) ORDER BY place;
    PERFORM pg_notify('{s}', '');
END $put$;
"""

#: limit, topics or null → topic, how many wait (limit at most), seconds until something comes back by itself.
LOOK = """
WITH due AS (
    UPDATE {s}.messages SET state = 0 WHERE seq IN (
        SELECT seq FROM {s}.messages WHERE state > 0 AND visible_at <= clock_timestamp()
        ORDER BY visible_at LIMIT 500 FOR UPDATE SKIP LOCKED
    ) RETURNING topic
)
SELECT topic,
    (SELECT count(*) FROM (SELECT 1 FROM {s}.messages m WHERE state = 0 AND m.topic = t.topic LIMIT $1) AS found)
    + (SELECT count(*) FROM due WHERE due.topic = t.topic),
    (SELECT extract(epoch FROM min(visible_at) - clock_timestamp())::float8 FROM {s}.messages
     WHERE state > 0 AND visible_at > clock_timestamp())
FROM {s}.topics t WHERE $2::text[] IS NULL OR topic = ANY ($2)
"""

#: topics, how many of each, token, lease. Who finds `served` locked leaves it: the other one's turn is as good.
TAKE = """
WITH picked AS (
    SELECT p.seq FROM unnest($1::text[], $2::int[]) AS wanted (topic, count) CROSS JOIN LATERAL (
        SELECT seq FROM {s}.messages m WHERE state = 0 AND m.topic = wanted.topic
        ORDER BY turn, seq LIMIT wanted.count FOR UPDATE SKIP LOCKED
    ) AS p
), taken AS (
    UPDATE {s}.messages m SET state = 1, attempt = attempt + 1, token = $3,
        visible_at = clock_timestamp() + $4 * interval '1 second'
    FROM picked WHERE m.seq = picked.seq RETURNING m.seq, id, topic, site, body, attempt, turn
), moved AS (
    UPDATE {s}.topics t SET served = greatest(served, latest.turn)
    FROM (SELECT topic, max(turn) AS turn FROM taken GROUP BY topic) AS latest
    WHERE t.topic = latest.topic
        AND t.topic IN (SELECT topic FROM {s}.topics WHERE topic = ANY ($1) FOR UPDATE SKIP LOCKED)
)
SELECT seq, id, topic, site, body, attempt FROM taken ORDER BY turn, seq
"""

#: → the ids whose lease was lost: they are still there, and not ours.
ACK = """
WITH l AS (SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]) AS l (seq, id, token)),
gone AS (DELETE FROM {s}.messages m USING l WHERE m.seq = l.seq AND m.token = l.token RETURNING m.id)
SELECT id FROM l WHERE id NOT IN (SELECT id FROM gone) AND EXISTS (SELECT 1 FROM {s}.messages m WHERE m.id = l.id)
"""

NACK = """
WITH back AS (
    UPDATE {s}.messages m SET state = CASE WHEN $4::float8 > 0 THEN 2 ELSE 0 END, token = NULL,
        visible_at = clock_timestamp() + $4 * interval '1 second'
    FROM unnest($1::bigint[], $2::text[], $3::text[]) AS l (seq, id, token)
    WHERE m.seq = l.seq AND m.token = l.token RETURNING m.seq
)
SELECT pg_notify('{s}', '') FROM (SELECT 1 FROM back LIMIT 1) AS any_came_back
"""

#: → the ids that are held now.
EXTEND = """
UPDATE {s}.messages m SET state = 1, visible_at = clock_timestamp() + $4 * interval '1 second'
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS l (seq, id, token) WHERE m.seq = l.seq AND m.token = l.token RETURNING m.id
"""

STATS = """
SELECT topic, count(*) FILTER (WHERE NOT leased) AS waiting, count(*) FILTER (WHERE leased) AS leased
FROM (SELECT topic, state = 1 AND visible_at > clock_timestamp() AS leased FROM {s}.messages) AS all_of_them GROUP BY topic
"""

OLDEST = """
SELECT extract(epoch FROM clock_timestamp() - put_at)::float8 FROM {s}.messages
WHERE state <> 1 OR visible_at <= clock_timestamp() ORDER BY seq LIMIT 1
"""

_PERMANENT = (
    asyncpg.InvalidAuthorizationSpecificationError,  # the password among them
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)


class PostgresqlQueue:
    """Keeps `queues.base.Queue`'s promises on `postgresql://user:password@host/database?schema=…&sslmode=…`."""

    abilities: ClassVar[Abilities] = Abilities()

    def __init__(self, url: str, *, topics: Sequence[str] | None = None) -> None:
        self._where = mask(url)
        self._address, self._schema = _address(url)
        self._topics = None if topics is None else list(topics)
        self._turns: Turns[str] = Turns()
        self._claims = Claims(self._give_back)
        self._news = asyncio.Event()
        self._opening = asyncio.Lock()
        self._pool: Any = None
        self._listener: Any = None
        self._closed = False

    async def put_many(self, messages: Sequence[Message]) -> None:
        """See `Queue.put_many`. An id that is there already is left as it is."""
        for start in range(0, len(messages), CHUNK):
            rows = [(m.id, m.topic, m.group, m.delay, m.body) for m in messages[start : start + CHUNK]]
            await self._fetch("SELECT {s}.put_1($1, $2, $3, $4, $5)", *map(list, zip(*rows, strict=True)))

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:
        """See `Queue.receive`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if wait > 0:
            await self._listen()
        while True:
            news = self._news
            rows = await self._fetch(LOOK, limit, self._topics)
            if picked := self._turns.pick({row[0]: [row[0]] * row[1] for row in rows}, limit):
                if deliveries := await self._claims.of(self._take(picked, lease)):
                    return deliveries
                continue  # another receiver was quicker
            left = deadline - loop.time()
            if left <= 0:
                return []
            soonest = rows[0][2] if rows and rows[0][2] is not None else left
            await _happens(news, min(left, max(0.001, soonest), LOOKOUT))

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Queue.ack_many`. A lease that ran out without another receiver is still good."""
        lost = {row[0] for row in await self._fetch(ACK, *_leases(deliveries))} if deliveries else set()
        return [delivery for delivery in deliveries if delivery.id in lost]

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """See `Queue.nack`."""
        await self._fetch(NACK, *_leases([delivery]), delay)

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """See `Queue.extend`."""
        held = {row[0] for row in await self._fetch(EXTEND, *_leases(deliveries), lease)} if deliveries else set()
        return [delivery for delivery in deliveries if delivery.id not in held]

    async def stats(self) -> QueueStats:
        """See `Queue.stats`."""
        counts, oldest = await self._fetch(STATS), await self._fetch(OLDEST)
        return QueueStats(
            depth=sum(waiting for _, waiting, _ in counts),
            in_flight=sum(leased for _, _, leased in counts),
            oldest_age=max(0.0, oldest[0][0]) if oldest else None,
            by_topic={topic: waiting for topic, waiting, _ in counts if waiting},
        )

    async def close(self) -> None:
        """See `Queue.close`."""
        await self._claims.close()
        self._closed = True
        opened = [each for each in (self._listener, self._pool) if each is not None]
        self._pool, self._listener = None, None
        for each in opened:
            try:
                await asyncio.wait_for(each.close(), PATIENCE)
            except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                each.terminate()

    async def _take(self, picked: list[str], lease: float) -> list[Delivery]:
        topics = list(dict.fromkeys(picked))
        counts = [picked.count(topic) for topic in topics]
        token = secrets.token_hex(8)
        taken: dict[str, list[Delivery]] = {topic: [] for topic in topics}
        for row in await self._fetch(TAKE, topics, counts, token, lease):
            taken[row["topic"]].append(_delivery(token, *row))
        return in_turn(picked, taken)

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        await self._fetch(NACK, *_leases(deliveries), 0.0)

    # ------------------------------------------------------------ connections
    async def _fetch(self, statement: str, *values: Any) -> list[Any]:
        async def fetch() -> list[Any]:
            pool = await self._opened()
            rows: list[Any] = await pool.fetch(statement.replace("{s}", self._schema), *values)
            return rows

        return await self._ask(fetch())

    async def _opened(self) -> Any:
        if self._closed:
            raise QueueError(f"the queue {self._where} is closed; open it again to use it", transient=False)
        async with self._opening:
            if self._pool is None:
                self._pool = await self._connect()
        return self._pool

    async def _connect(self) -> Any:
        pool = await asyncpg.create_pool(
            self._address,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=PATIENCE,
            server_settings={"synchronous_commit": "off", "application_name": "eyeline"},
        )
        async with pool.acquire() as connection, connection.transaction():
            if await connection.fetchval("SELECT to_regproc($1)", f"{self._schema}.put_1") is None:
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1), 0)", self._schema)
                await connection.execute(SCHEMA.replace("{s}", self._schema))
        return pool

    async def _listen(self) -> None:
        """Hear of news on a connection of its own; a broken one is replaced at the next receive."""

        async def listen() -> None:
            await self._opened()
            if self._listener is None or self._listener.is_closed():
                self._listener = await asyncpg.connect(self._address, timeout=PATIENCE)
                await self._listener.add_listener(self._schema, self._tell)

        if self._listener is None or self._listener.is_closed():
            await self._ask(listen())

    def _tell(self, *_about: object) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, the driver's errors as ours, never later than `PATIENCE`."""
        try:
            return await _within(PATIENCE, work)
        except _PERMANENT as error:
            raise QueueError(f"{self._where} does not allow this: {error}", transient=False) from error
        except TimeoutError as error:
            self._drop()
            raise QueueError(f"{self._where} did not answer within {PATIENCE:g} s; is it up and reachable?") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise QueueError(f"{self._where} cannot be used now: {error}") from error

    def _drop(self) -> None:
        """Whoever is silent once is connected to anew."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.timeout`, but it does not wait for the driver to tell a silent server that nobody listens any more."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    raise TimeoutError


def _address(url: str) -> tuple[str, str]:
    """The URL as the driver wants it, and the schema of our tables."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    schema = query.pop("schema", "eyeline_queue")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", schema):
        raise ConfigError(f"schema {schema!r} of {mask(url)}: write a to z, 0 to 9 and _, 41 characters at most")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), "")), schema


async def _happens(news: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), seconds)


def _delivery(token: str, seq: int, id: str, topic: str, site: str, body: bytes, attempt: int) -> Delivery:  # noqa: A002
    return Delivery(id=id, topic=topic, group=site, body=body, attempt=attempt, receipt=f"{seq}.{token}")


def _leases(deliveries: Iterable[Delivery]) -> tuple[list[int], list[str], list[str]]:
    """Row, id and token of each."""
    rows, ids, tokens = [], [], []
    for delivery in deliveries:
        row, _, token = delivery.receipt.partition(".")
        if not row.isdecimal():
            raise QueueError(f"receipt {delivery.receipt!r} of {delivery.id} is none of this queue's", transient=False)
        rows.append(int(row))
        ids.append(delivery.id)
        tokens.append(token)
    return rows, ids, tokens
