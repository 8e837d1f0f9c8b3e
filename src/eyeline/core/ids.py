"""Identifiers: UUIDv7 (RFC 9562), so that ids sort by the time they were made."""

import hashlib
import os
import threading
import time
import uuid
from datetime import UTC, datetime

_lock = threading.Lock()
_last = 0
_pool = b""


def random_bytes(count: int) -> bytes:
    """`count` (at most 64) random bytes from a pool: one system call for many ids, which lets go of the GIL only then."""
    global _pool  # noqa: PLW0603 - the pool
    with _lock:
        if len(_pool) < count:
            _pool = os.urandom(4096)
        taken, _pool = _pool[:count], _pool[count:]
        return taken


def _forget_pool() -> None:
    """A forked child must not hand out what its parent will."""
    global _pool  # noqa: PLW0603 - the pool
    _pool = b""


os.register_at_fork(after_in_child=_forget_pool)


def uuid7() -> str:
    """A new UUIDv7 as text: 48 bits of Unix milliseconds, a 12-bit counter, 62 random bits; never decreasing in a process."""
    global _last  # noqa: PLW0603 - the counter that keeps ids of one process in order
    with _lock:
        now = (time.time_ns() * 4096) // 1_000_000  # milliseconds with 12 bits of fraction
        _last = max(now, _last + 1)
        ticks = _last
    value = (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62
    value |= int.from_bytes(random_bytes(8), "big") >> 2
    return str(uuid.UUID(int=value))


def first_id(moment: datetime) -> str:
    """The smallest UUIDv7 of that millisecond: ids from there on were made since."""
    return str(uuid.UUID(int=max(0, int(moment.timestamp() * 1000)) << 80 | 0x7 << 76 | 0b10 << 62))


def derived_id(moment: datetime, *parts: str) -> str:
    """The same UUIDv7 for the same moment and parts, in every process: what is done again gets no second name."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    value = int(moment.timestamp() * 1000) << 80 | int.from_bytes(digest[:10], "big")
    value = value & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62
    return str(uuid.UUID(int=value))


def moment_of(id: str) -> datetime:  # noqa: A002
    """When a UUIDv7 was made."""
    return datetime.fromtimestamp(int(id[:8] + id[9:13], 16) / 1000, UTC)


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical form, as our ids are."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
