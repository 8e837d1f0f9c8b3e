"""What others say the time is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def clock_of(headers: Mapping[str, str]) -> datetime | None:
    """The sender's clock in HTTP headers: X-Timestamp (seconds since 1970, as many cameras send), or Date; None without."""
    named = {name.lower(): value for name, value in headers.items()}
    try:
        if "x-timestamp" in named:
            return datetime.fromtimestamp(float(named["x-timestamp"]), UTC)
        moment = parsedate_to_datetime(named["date"])
    except (KeyError, ValueError, OverflowError, OSError, TypeError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
