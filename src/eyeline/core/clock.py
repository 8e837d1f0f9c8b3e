"""Time: aware UTC for people, a clock that nobody sets for leases."""

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


def utcnow() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


def lease_now() -> float:
    """Seconds since boot, sleep included: the same in every process of this machine, and never set by anyone."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@cache
def boot_id() -> str:
    """What tells this boot from the last one; leases of another boot are void."""
    path = Path("/proc/sys/kernel/random/boot_id")
    if path.exists():
        return path.read_text().strip()
    return str(round(time.time() - time.monotonic()))


def isoformat(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, the one way times are written."""
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The inverse of `isoformat`; a time without an offset is refused (ValueError)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = f"{text!r} has no UTC offset; write it as 2026-01-31T12:00:00Z"
        raise ValueError(message)
    return moment.astimezone(UTC)
