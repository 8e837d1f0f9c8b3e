"""Times of the week, by the clock on the wall: `22:00-06:00`, `Sat 08:00-12:00`, `Mon-Fri 06:00-22:00`. Pure."""

import re
from collections.abc import Iterable
from datetime import datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from eyeline.core.shifts import on_the_wall

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = "|".join(DAYS)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_SPAN = re.compile(rf"(?:(?P<first>{_DAY})(?:-(?P<last>{_DAY}))? )?(?P<start>{_CLOCK})-(?P<end>{_CLOCK}|24:00)")


class Span(NamedTuple):
    """From `start` to `end` on each of these days (0: Monday); an `end` that is not later lies on the next day."""

    days: frozenset[int]
    start: time
    end: time


def span(text: str) -> Span:
    """The times in `text`. Raises ValueError saying how they are written."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        message = (
            f"{text[:60]!r} is no time of the week; write it as 22:00-06:00, Sat 08:00-12:00 or Mon-Fri 06:00-22:00"
        )
        raise ValueError(message)
    start, end = time.fromisoformat(match["start"]), time.fromisoformat(match["end"].replace("24:00", "00:00"))
    return Span(_days(match["first"], match["last"]), start, end)


def _days(first: str | None, last: str | None) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((begin + n) % 7 for n in range((end - begin) % 7 + 1))


def covered_until(spans: Iterable[Span], zone: ZoneInfo, moment: datetime) -> datetime | None:
    """When the spans that cover `moment` end, those that follow without a gap included; None where none covers it."""
    spans = tuple(spans)
    found, until = None, _end(spans, zone, moment)
    while until is not None and until - moment < timedelta(days=8):
        found, until = until, _end(spans, zone, until)
    return found


def _end(spans: Iterable[Span], zone: ZoneInfo, moment: datetime) -> datetime | None:
    today = moment.astimezone(zone).date()
    ends = []
    for each in spans:
        for day in (today, today - timedelta(days=1)):
            if day.weekday() in each.days:
                start = on_the_wall(datetime.combine(day, each.start), zone)
                last = day + timedelta(days=1) if each.end <= each.start else day
                end = on_the_wall(datetime.combine(last, each.end), zone)
                if start <= moment < end:
                    ends.append(end)
    return max(ends, default=None)
