"""The promise of every cache: small values that may vanish at any time."""

from collections.abc import Sequence
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


@runtime_checkable
class BlockingGet(Protocol):
    """What a cache on this machine may have besides: a look-up for callers who are in a thread of their own already."""

    def get_now(self, key: str) -> bytes | None:
        """`get`, blocking."""
        ...
