"""The cache of many machines: Redis or Valkey. Its own expiry is the time to live; what it evicts was only a copy.

A cache that is away costs its callers two seconds at most: they go on without it.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from eyeline.core.errors import CacheError
from eyeline.core.settings import mask
from eyeline.stores.cache.base import OWED

#: Seconds that one command may take with everything: connecting, and the one retry that an idle connection's end needs.
PATIENCE = 1.8
#: Seconds for one try of it.
ATTEMPT = 0.9

#: One script, one step: nobody comes between the look and the change.
ADD = """
local holds = redis.call('GET', KEYS[1])
if holds then return holds end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
FORGET = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return false"

#: What is kept is when the bucket was, or will be, empty, by the server's clock; the entry ends when it is full.
DRAW = """
local time = redis.call('TIME')
local now, left = time[1] + time[2] / 1000000, {}
local rate, span, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for n, key in ipairs(KEYS) do
  local empty = math.max(tonumber(redis.call('GET', key) or 0), now - span) + ARGV[3 + n] / rate
  empty = math.min(math.max(empty, now - span), now + owed)
  redis.call('SET', key, string.format('%.6f', empty), 'PX', math.max(1, math.ceil((empty - now + span) * 1000)))
  left[n] = string.format('%.6f', (now - empty) * rate)
end
return left
"""


class RedisCache:
    """Keeps `stores.cache.base.Cache`'s promises on `redis://[user:password@]host:port/db?prefix=…`; `rediss://` is TLS."""

    def __init__(self, url: str) -> None:
        self._where = mask(url)
        address, self._prefix = _address(url)
        self._redis: Any = Redis.from_url(
            address,
            socket_connect_timeout=ATTEMPT,
            socket_timeout=ATTEMPT,
            retry=Retry(NoBackoff(), 1),
        )
        self._closed = False

    async def get(self, key: str) -> bytes | None:
        """See `Cache.get`."""
        value: bytes | None = await self._ask("get", self._prefix + key)
        return value

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        """See `Cache.set`."""
        await self._ask("psetex", self._prefix + key, _milliseconds(ttl), value)

    async def add(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """See `Cache.add`."""
        holds: bytes | None = await self._ask("eval", ADD, 1, self._prefix + key, value, _milliseconds(ttl))
        return holds

    async def delete(self, key: str, *, expected: bytes | None = None) -> None:
        """See `Cache.delete`."""
        if expected is None:
            await self._ask("delete", self._prefix + key)
        else:
            await self._ask("eval", FORGET, 1, self._prefix + key, expected)

    async def forget(self, beginnings: Sequence[str]) -> None:
        """See `Cache.forget`. Redis has no order of keys: all of ours are looked at once, some at a time."""
        wanted, cursor = tuple((self._prefix + each).encode() for each in beginnings), 0
        while wanted:
            cursor, keys = await self._ask("scan", cursor, f"{_escaped(self._prefix)}*", 1000)
            found = [key for key in keys if key.startswith(wanted)]
            if found:
                await self._ask("unlink", *found)
            if cursor == 0:
                return

    async def draw(self, taken: Mapping[str, float], *, rate: float, burst: float) -> list[float]:
        """See `SharedBuckets.draw`: one script for all of them."""
        keys, span = [self._prefix + key for key in taken], burst / rate
        left = await self._ask("eval", DRAW, len(keys), *keys, rate, span, OWED * span, *taken.values())
        return [float(tokens) for tokens in left]

    async def close(self) -> None:
        """See `Cache.close`."""
        self._closed = True
        await self._redis.aclose()

    async def _ask(self, command: str, *words: Any) -> Any:
        if self._closed:
            raise CacheError("this cache is closed; open it again to use it", transient=False)
        try:
            async with asyncio.timeout(PATIENCE):
                return await getattr(self._redis, command)(*words)
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            raise CacheError(f"{self._where} refuses this user or password: {error}", transient=False) from error
        except TimeoutError as error:
            raise CacheError(f"{self._where} did not answer within {PATIENCE:g} s; is it up and reachable?") from error
        except (RedisError, OSError, RuntimeError) as error:  # uvloop's word for a connection cut off while it is made
            raise CacheError(f"{self._where} cannot be used now: {error}") from error


def _address(url: str) -> tuple[str, str]:
    """The URL as the driver wants it, and the prefix of our keys."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", "eyeline:cache:")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), "")), prefix


def _escaped(text: str) -> str:
    """`text` as a pattern that fits nothing else."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def _milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))
