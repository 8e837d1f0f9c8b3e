"""How review goes today: one reviewer's own pace, and the share of pictures that a person had to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from statistics import median
from zoneinfo import ZoneInfo

from eyeline.core.settings import SiteSettings
from eyeline.core.shifts import on_the_wall
from eyeline.stores.results.base import ResultStore
from eyeline.stores.results.review import ReviewQuery

#: Between two decisions that lie further apart, the reviewer did something else.
PAUSE = timedelta(minutes=2)
#: The step, in seconds, of the figures that are kept for long enough; every time zone's midnight is at the edge of one.
QUARTER = 900


@dataclass(frozen=True)
class Pace:
    """What one reviewer decided today, and the median of the seconds from one decision to the next, pauses left out."""

    decided: int
    seconds: float | None


@dataclass(frozen=True)
class Needed:
    """The share of pictures that had to be looked at; None for a day without pictures."""

    today: float | None
    yesterday: float | None


async def pace(results: ResultStore, sites: Sequence[SiteSettings], query: ReviewQuery, now: datetime) -> Pace:
    """The pace of `query.by` today. Raises StoreError."""
    return pace_of(await results.decisions(query, _midnight(sites, query, now, 0)))


def pace_of(decided: Sequence[datetime]) -> Pace:
    """When the picture was opened is kept nowhere: what is known is when each decision came, in order."""
    gaps = [later - earlier for earlier, later in pairwise(decided)]
    worked = [gap.total_seconds() for gap in gaps if gap < PAUSE]
    return Pace(len(decided), round(median(worked), 1) if worked else None)


async def needed(results: ResultStore, sites: Sequence[SiteSettings], query: ReviewQuery, now: datetime) -> Needed:
    """Of today's and of yesterday's pictures. Raises StoreError."""
    began = [_midnight(sites, query, now, days) for days in (1, 0)]
    within = query.sites if query.site is None else [query.site]
    images = [0.0, 0.0]
    for row in await results.series(QUARTER, int(began[0].timestamp()), within):
        images[row.start >= began[1].timestamp()] += row.sums.get("images", 0)
    waited = [
        await results.count_doubted(query, since, until) for since, until in zip(began, (began[1], now), strict=True)
    ]
    # figures come some seconds later than what waits
    yesterday, today = (min(1.0, some / of) if of else None for some, of in zip(waited, images, strict=True))
    return Needed(today, yesterday)


def _midnight(sites: Sequence[SiteSettings], query: ReviewQuery, now: datetime, days: int) -> datetime:
    """When the day began so many days ago, by the clock of the site that is asked for, or of the first that may be seen."""
    seen = [
        site for site in sites if query.site in {None, site.name} and (query.sites is None or site.name in query.sites)
    ]
    zone = ZoneInfo(seen[0].timezone if seen else "UTC")
    day = now.astimezone(zone).date() - timedelta(days=days)
    return on_the_wall(datetime.combine(day, time()), zone).astimezone(UTC)
