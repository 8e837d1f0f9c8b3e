"""The cache for tests and single processes: a dictionary. Caches of the same URL share their entries."""

from collections.abc import Callable, Mapping, Sequence
from weakref import WeakValueDictionary

from eyeline.core.clock import lease_now
from eyeline.core.errors import CacheError
from eyeline.stores.cache.base import OWED

#: Entries above which the oldest are forgotten.
MOST = 100_000


class _Entries(dict[str, tuple[bytes, float]]):
    """Key → (value, when it ends)."""


_STORES: WeakValueDictionary[str, _Entries] = WeakValueDictionary()


class MemoryCache:
    """Keeps `stores.cache.base.Cache`'s promises on `memory://name`, within one process."""

    def __init__(self, url: str, *, clock: Callable[[], float] = lease_now, most: int = MOST) -> None:
        self._entries = _STORES.setdefault(url, _Entries())
        self._clock = clock
        self._most = most
        self._closed = False

    async def get(self, key: str) -> bytes | None:
        """See `Cache.get`."""
        self._check_open()
        value, ends = self._entries.get(key, (None, 0.0))
        return value if ends > self._clock() else None

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        """See `Cache.set`."""
        self._check_open()
        self._entries.pop(key, None)
        self._entries[key] = (value, self._clock() + ttl)
        while len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]

    async def add(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """See `Cache.add`."""
        holds = await self.get(key)
        if holds is None:
            await self.set(key, value, ttl=ttl)
        return holds

    async def delete(self, key: str, *, expected: bytes | None = None) -> None:
        """See `Cache.delete`."""
        holds = await self.get(key)
        if expected is None or holds == expected:
            self._entries.pop(key, None)

    async def forget(self, beginnings: Sequence[str]) -> None:
        """See `Cache.forget`."""
        self._check_open()
        for key in [key for key in self._entries if key.startswith(tuple(beginnings))]:
            del self._entries[key]

    async def draw(self, taken: Mapping[str, float], *, rate: float, burst: float) -> list[float]:
        """See `SharedBuckets.draw`. What is kept is when the bucket was, or will be, empty."""
        now, span, left = self._clock(), burst / rate, []
        for key, tokens in taken.items():
            empty = max(float(await self.get(key) or "-inf"), now - span) + tokens / rate
            empty = min(max(empty, now - span), now + OWED * span)
            await self.set(key, repr(empty).encode(), ttl=empty - now + span)
            left.append((now - empty) * rate)
        return left

    async def close(self) -> None:
        """See `Cache.close`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise CacheError("this memory cache is closed; open it again to use it", transient=False)
