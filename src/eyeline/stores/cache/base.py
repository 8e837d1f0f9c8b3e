"""The promise of every cache: small values that may vanish at any time."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


class Cache(Protocol):
    """Keys to bytes with a time to live. Losing an entry is never an error. All methods raise CacheError."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        """Keep the value for `ttl` seconds."""
        ...

    async def add(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """Set only where there is none, atomically over all processes. None: it was set; else the value that holds."""
        ...

    async def delete(self, key: str, *, expected: bytes | None = None) -> None:
        """Forget the key (only while it holds `expected`, where given). Idempotent."""
        ...

    async def forget(self, beginnings: Sequence[str]) -> None:
        """Forget every key that begins so. Idempotent; may have to look at all keys."""
        ...

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        ...


#: How many times its burst a bucket may owe: a clock that is set back must not close it for hours.
OWED = 10.0


@runtime_checkable
class SharedBuckets(Protocol):
    """What a cache of many machines has besides: buckets of tokens, each filled with `rate` a second up to `burst`."""

    async def draw(self, taken: Mapping[str, float], *, rate: float, burst: float) -> list[float]:
        """Note that so many tokens were taken of these keys' buckets (below 0: given back), atomically over all processes.

        What is left in each, in that order; below 0 is owed. Whatever is taken, ten bursts are owed at most. Raises CacheError.
        """
        ...


@runtime_checkable
class BlockingGet(Protocol):
    """What a cache on this machine may have besides: a look-up for callers who are in a thread of their own already."""

    def get_now(self, key: str) -> bytes | None:
        """`get`, blocking."""
        ...
