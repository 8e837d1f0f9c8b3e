"""Times of the week by the clock on the wall, over midnight and over the changes of the clock."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from eyeline.core.weekly import covered_until, span

BERLIN = ZoneInfo("Europe/Berlin")


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spans", "now", "until"),
    [
        (["22:00-06:00"], utc(2026, 1, 5, 22), utc(2026, 1, 6, 5)),  # 23:00 on the wall
        (["22:00-06:00"], utc(2026, 1, 6, 4, 59), utc(2026, 1, 6, 5)),
        (["22:00-06:00"], utc(2026, 1, 6, 5), None),
        (["Sat 08:00-12:00"], utc(2026, 1, 10, 7), utc(2026, 1, 10, 11)),
        (["Sat 08:00-12:00"], utc(2026, 1, 9, 8), None),
        (["Fri 22:00-06:00"], utc(2026, 1, 10, 4), utc(2026, 1, 10, 5)),  # begun on Friday, it is Saturday now
        (["Fri 22:00-06:00"], utc(2026, 1, 9, 4), None),  # Thursday's night is not meant
        (["Sat 00:00-24:00", "Sun 00:00-24:00"], utc(2026, 1, 10, 12), utc(2026, 1, 11, 23)),  # to its very end
        (["Fri-Mon 00:00-24:00"], utc(2026, 1, 11, 12), utc(2026, 1, 12, 23)),
        (["22:00-06:00"], utc(2026, 3, 28, 22), utc(2026, 3, 29, 4)),  # the clock jumps: an hour sooner
    ],
)
def test_a_time_is_covered_until_the_end_of_what_covers_it(
    spans: list[str], now: datetime, until: datetime | None
) -> None:
    assert covered_until(map(span, spans), BERLIN, now) == until


def test_all_week_ends_nowhere_near_and_that_is_an_answer() -> None:
    until = covered_until([span("00:00-24:00")], BERLIN, utc(2026, 1, 5))
    assert until is not None
    assert until > utc(2026, 1, 12)


@pytest.mark.parametrize("text", ["", "22-6", "25:00-06:00", "Sun", "Xxx 08:00-09:00", "08:00-24:30"])
def test_what_is_no_time_of_the_week_says_how_it_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="Mon-Fri 06:00-22:00"):
        span(text)
