"""The queue on Redis or Valkey: a stream for each topic, what is held in its consumer group, whose turn it is in a sorted set.

    {prefix}:jobs:<topic>     stream: one entry for each message that is not yet acknowledged
       group `workers`        entries that were received: `held`, or `back` after a nack; the group counts the receives
    {prefix}:waiting:<topic>  sorted set: what may be received now, by its turn (see `queues.turns`)
    {prefix}:leased, :delayed sorted sets: what comes back by itself, by the time at which it does
    {prefix}:served, :turns:<topic>  the turn that is being served of a topic, and the last one of each site
    {prefix}:ids              hash: id → entry, so that an id is kept once
    {prefix}:news             stream of one entry, which wakes receivers

Each step is one script, so a process that dies leaves no half of it. Times are the server's. All keys carry one hash tag:
in a cluster they lie on one node.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.settings import mask
from eyeline.core.types import Delivery, Message, QueueStats
from eyeline.queues.base import Abilities
from eyeline.queues.claims import Claims
from eyeline.queues.turns import Turns, in_turn

#: Seconds that one command may take with everything, the one retry that an idle connection's end needs included.
PATIENCE = 2.5
#: Seconds for one connection or one answer.
ATTEMPT = 2.0
#: Seconds for which one look-out for news may block; less than `ATTEMPT`, or it would be taken for a dead server.
LOOKOUT = 1.0
#: Messages in one script: others wait while it runs.
CHUNK = 500

#: What all scripts share. `held`: is this very receive still the last one, and was it not handed back?
LIBRARY = """
local P = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function stream(topic) return P .. ':jobs:' .. topic end
local function waiting(topic) return P .. ':waiting:' .. topic end
local function member(entry, topic) return entry .. '|' .. topic end
local function tell() redis.call('XADD', P .. ':news', 'MAXLEN', 1, '*', 'n', 1) end
local function held(entry, topic, attempt)
  local found = redis.pcall('XPENDING', stream(topic), 'workers', entry, entry, 1)
  return not found.err and found[1] and found[1][2] == 'held' and tostring(found[1][4]) == attempt
end
local function wait_again(entry, topic)
  local found = redis.call('XRANGE', stream(topic), entry, entry)
  if found[1] then redis.call('ZADD', waiting(topic), found[1][2][6], entry) end
end
local function bring_back(set)
  while true do
    local due = redis.call('ZRANGEBYSCORE', P .. set, '-inf', now, 'LIMIT', 0, 500)
    if #due == 0 then return end
    for _, name in ipairs(due) do
      local entry, topic = string.match(name, '^([^|]*)|(.*)$')
      redis.call('ZREM', P .. set, name)
      wait_again(entry, topic)
    end
  end
end
"""

PUT = """
for at = 1, #ARGV, 5 do
  local id, topic, site, delay, body = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4]
  if redis.call('HEXISTS', P .. ':ids', id) == 0 then
    if redis.call('HSETNX', P .. ':served', topic, 0) == 1 then
      redis.pcall('XGROUP', 'CREATE', stream(topic), 'workers', '0', 'MKSTREAM')
    end
    local last = tonumber(redis.call('HGET', P .. ':turns:' .. topic, site) or 0)
    local turn = math.max(last, tonumber(redis.call('HGET', P .. ':served', topic))) + 1
    redis.call('HSET', P .. ':turns:' .. topic, site, turn)
    local entry = redis.call('XADD', stream(topic), '*', 'i', id, 'g', site, 't', turn, 'b', body)
    redis.call('HSET', P .. ':ids', id, member(entry, topic))
    if delay > 0 then
      redis.call('ZADD', P .. ':delayed', now + delay, member(entry, topic))
    else
      redis.call('ZADD', waiting(topic), turn, entry)
    end
  end
end
tell()
"""

#: limit, topics … (none: all) → milliseconds until something comes back (-1: nothing will), news, topic, count, …
LOOK = """
bring_back(':leased')
bring_back(':delayed')
local due = -1
for _, set in ipairs({':leased', ':delayed'}) do
  local first = redis.call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')
  if first[2] and (due < 0 or first[2] - now < due) then due = math.max(0, first[2] - now) end
end
local news = redis.call('XREVRANGE', P .. ':news', '+', '-', 'COUNT', 1)
local answer = {due, news[1] and news[1][1] or '0-0'}
local topics = {unpack(ARGV, 2)}
if #topics == 0 then topics = redis.call('HKEYS', P .. ':served') end
for _, topic in ipairs(topics) do
  answer[#answer + 1] = topic
  answer[#answer + 1] = math.min(tonumber(ARGV[1]), redis.call('ZCARD', waiting(topic)))
end
return answer
"""

#: lease in milliseconds, then topic, count, … → [topic, entry, attempt, id, site, body] …
TAKE = """
local answer = {}
for at = 2, #ARGV, 2 do
  local topic = ARGV[at]
  local served = tonumber(redis.call('HGET', P .. ':served', topic) or 0)
  local popped = redis.call('ZPOPMIN', waiting(topic), ARGV[at + 1])
  for index = 1, #popped, 2 do
    local entry = popped[index]
    local before = redis.call('XPENDING', stream(topic), 'workers', entry, entry, 1)
    local attempt = (before[1] and before[1][4] or 0) + 1
    local got = redis.call('XCLAIM', stream(topic), 'workers', 'held', 0, entry, 'RETRYCOUNT', attempt, 'FORCE')
    if got[1] then
      local fields = got[1][2]
      redis.call('ZADD', P .. ':leased', now + ARGV[1], member(entry, topic))
      served = math.max(served, tonumber(popped[index + 1]))
      answer[#answer + 1] = {topic, entry, attempt, fields[2], fields[4], fields[8]}
    end
  end
  redis.call('HSET', P .. ':served', topic, served)
end
return answer
"""

#: id, topic, entry, attempt, … → the ids whose lease was lost
ACK = """
local lost = {}
for at = 1, #ARGV, 4 do
  local id, topic, entry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if held(entry, topic, ARGV[at + 3]) then
    redis.call('XACK', stream(topic), 'workers', entry)
    redis.call('XDEL', stream(topic), entry)
    redis.call('ZREM', P .. ':leased', member(entry, topic))
    redis.call('ZREM', waiting(topic), entry)
    redis.call('HDEL', P .. ':ids', id)
  elseif redis.call('HEXISTS', P .. ':ids', id) == 1 then
    lost[#lost + 1] = id
  end
end
return lost
"""

#: delay in milliseconds, then as for ACK
NACK = """
for at = 2, #ARGV, 4 do
  local topic, entry = ARGV[at + 1], ARGV[at + 2]
  if held(entry, topic, ARGV[at + 3]) then
    redis.call('XCLAIM', stream(topic), 'workers', 'back', 0, entry, 'JUSTID')
    redis.call('ZREM', P .. ':leased', member(entry, topic))
    if tonumber(ARGV[1]) > 0 then
      redis.call('ZREM', waiting(topic), entry)
      redis.call('ZADD', P .. ':delayed', now + ARGV[1], member(entry, topic))
    else
      wait_again(entry, topic)
    end
  end
end
tell()
"""

#: lease in milliseconds, then as for ACK → the ids whose lease was lost
EXTEND = """
local lost = {}
for at = 2, #ARGV, 4 do
  local topic, entry = ARGV[at + 1], ARGV[at + 2]
  if held(entry, topic, ARGV[at + 3]) then
    redis.call('ZREM', waiting(topic), entry)
    redis.call('ZADD', P .. ':leased', now + ARGV[1], member(entry, topic))
  else
    lost[#lost + 1] = ARGV[at]
  end
end
return lost
"""

#: → in flight, age of the oldest waiting one in milliseconds (-1: none waits), topic, count, …
STATS = """
bring_back(':leased')
bring_back(':delayed')
local topics, counts = redis.call('HKEYS', P .. ':served'), {}
for _, topic in ipairs(topics) do counts[topic] = redis.call('ZCARD', waiting(topic)) end
for _, name in ipairs(redis.call('ZRANGE', P .. ':delayed', 0, -1)) do
  local topic = string.match(name, '|(.*)$')
  counts[topic] = (counts[topic] or 0) + 1
end
local function oldest(topic)
  local from = '-'
  while true do
    local entries = redis.call('XRANGE', stream(topic), from, '+', 'COUNT', 100)
    for _, entry in ipairs(entries) do
      if not redis.call('ZSCORE', P .. ':leased', member(entry[1], topic)) then
        return now - string.match(entry[1], '^%d+')
      end
      from = '(' .. entry[1]
    end
    if #entries == 0 then return -1 end
  end
end
local age, answer = -1, {redis.call('ZCARD', P .. ':leased'), 0}
for topic, count in pairs(counts) do
  if count > 0 then age = math.max(age, oldest(topic)) end
  answer[#answer + 1] = topic
  answer[#answer + 1] = count
end
answer[2] = age
return answer
"""


class RedisQueue:
    """Keeps `queues.base.Queue`'s promises on `redis://[user:password@]host:port/db?prefix=…`; `rediss://` is TLS."""

    abilities: ClassVar[Abilities] = Abilities()

    def __init__(self, url: str, *, topics: Sequence[str] | None = None) -> None:
        self._where = mask(url)
        address, prefix = _address(url)
        self._key = f"{{{prefix}}}"
        self._redis = _client(address, self._where)
        self._topics = None if topics is None else tuple(topics)
        self._turns: Turns[str] = Turns()
        self._claims = Claims(self._give_back)
        self._closed = False
        bodies = {"put": PUT, "look": LOOK, "take": TAKE, "ack": ACK, "nack": NACK, "extend": EXTEND, "stats": STATS}
        self._scripts: dict[str, Any] = {
            name: self._redis.register_script(LIBRARY + body) for name, body in bodies.items()
        }

    async def put_many(self, messages: Sequence[Message]) -> None:
        """See `Queue.put_many`. How durable that is, the server's `appendfsync` says."""
        for start in range(0, len(messages), CHUNK):
            chunk = messages[start : start + CHUNK]
            words = [(m.id, m.topic, m.group, _milliseconds(m.delay), m.body) for m in chunk]
            await self._run("put", *(word for message in words for word in message))

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:
        """See `Queue.receive`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            due, news, waiting = await self._look(limit)
            if picked := self._turns.pick(waiting, limit):
                if deliveries := await self._claims.of(self._take(picked, lease)):
                    return deliveries
                continue  # another receiver was quicker
            left = deadline - loop.time()
            if left <= 0:
                return []
            await self._lookout(news, left if due is None else min(left, due))

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Queue.ack_many`. A lease that ran out without another receiver is still good."""
        lost = set(await self._run("ack", *_leases(deliveries))) if deliveries else set()
        return [delivery for delivery in deliveries if delivery.id.encode() in lost]

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """See `Queue.nack`."""
        await self._run("nack", _milliseconds(delay), *_leases([delivery]))

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """See `Queue.extend`."""
        lost = set(await self._run("extend", _milliseconds(lease), *_leases(deliveries))) if deliveries else set()
        return [delivery for delivery in deliveries if delivery.id.encode() in lost]

    async def stats(self) -> QueueStats:
        """See `Queue.stats`."""
        in_flight, age, *counts = await self._run("stats")
        by_topic = {topic: count for topic, count in _pairs(counts) if count}
        return QueueStats(
            depth=sum(by_topic.values()),
            in_flight=in_flight,
            oldest_age=None if age < 0 else age / 1000,
            by_topic=by_topic,
        )

    async def advice(self) -> list[str]:
        """See `Advising.advice`."""
        found: dict[str, str] = await self._ask(self._redis.config_get("append*", "maxmemory-policy"))
        told = []
        if found.get("appendonly") != "yes" or found.get("appendfsync") != "always":
            told.append(
                f"appendonly is {found.get('appendonly')} and appendfsync {found.get('appendfsync')}: what was put can be lost "
                "in a power cut; set 'appendonly yes' and 'appendfsync always'"
            )
        if found.get("maxmemory-policy") != "noeviction":
            told.append(
                f"maxmemory-policy is {found.get('maxmemory-policy')}: jobs may be thrown away; set it to 'noeviction'"
            )
        return told

    async def close(self) -> None:
        """See `Queue.close`."""
        await self._claims.close()
        self._closed = True
        await self._redis.aclose()

    async def _look(self, limit: int) -> tuple[float | None, bytes, dict[str, list[str]]]:
        """Seconds until something comes back by itself, the last news, and what waits in each topic."""
        due, news, *counts = await self._run("look", limit, *(self._topics or ()))
        return None if due < 0 else due / 1000, news, {topic: [topic] * count for topic, count in _pairs(counts)}

    async def _take(self, picked: list[str], lease: float) -> list[Delivery]:
        words = [word for topic in dict.fromkeys(picked) for word in (topic, picked.count(topic))]
        taken: dict[str, list[Delivery]] = {topic: [] for topic in picked}
        for answer in await self._run("take", _milliseconds(lease), *words):
            delivery = _delivery(*answer)
            taken[delivery.topic].append(delivery)
        return in_turn(picked, taken)

    async def _lookout(self, news: bytes, seconds: float) -> None:
        """Wait until something was put or handed back since `news`, `seconds` at most."""
        block = min(LOOKOUT, seconds)
        await self._ask(self._redis.xread({f"{self._key}:news": news}, block=max(1, math.ceil(block * 1000))))

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        await self._run("nack", 0, *_leases(deliveries))

    async def _run(self, script: str, *words: Any) -> Any:
        return await self._ask(self._scripts[script](keys=[self._key], args=words))

    async def _ask(self, answer: Any) -> Any:
        if self._closed:
            answer.close()
            raise QueueError(f"the queue {self._where} is closed; open it again to use it", transient=False)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            raise QueueError(f"{self._where} refuses this user or password: {error}", transient=False) from error
        except TimeoutError as error:
            raise QueueError(f"{self._where} did not answer within {PATIENCE:g} s; is it up and reachable?") from error
        except (RedisError, OSError, RuntimeError) as error:  # uvloop's word for a connection cut off while it is made
            raise QueueError(f"{self._where} cannot be used now: {error}") from error


def _address(url: str) -> tuple[str, str]:
    """The URL as the driver wants it, and the prefix of our keys."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", "eyeline:queue")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), "")), prefix


def _client(address: str, where: str) -> Any:
    try:
        return redis.asyncio.Redis.from_url(
            address, socket_connect_timeout=ATTEMPT, socket_timeout=ATTEMPT, retry=Retry(NoBackoff(), 1)
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where} is no address of a Redis server: {error}; write redis://host:6379/0") from error


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _pairs(words: Sequence[Any]) -> Iterable[tuple[str, int]]:
    return ((words[at].decode(), words[at + 1]) for at in range(0, len(words), 2))


def _delivery(topic: bytes, entry: bytes, attempt: int, id: bytes, site: bytes, body: bytes) -> Delivery:  # noqa: A002
    receipt = f"{topic.decode()}|{entry.decode()}|{attempt}"
    return Delivery(
        id=id.decode(), topic=topic.decode(), group=site.decode(), body=body, attempt=attempt, receipt=receipt
    )


def _leases(deliveries: Iterable[Delivery]) -> list[str]:
    """id, topic, entry and attempt of each: the attempt names the lease, for each receive has its own."""
    words: list[str] = []
    for delivery in deliveries:
        topic, *rest = delivery.receipt.split("|")
        if len(rest) != 2:
            raise QueueError(f"receipt {delivery.receipt!r} of {delivery.id} is none of this queue's", transient=False)
        words += (delivery.id, topic, *rest)
    return words
