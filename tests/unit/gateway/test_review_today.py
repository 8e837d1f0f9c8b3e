"""Review today: a reviewer's pace, and the share of pictures that had to be looked at, by the clock of the site."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from eyeline.core.ids import first_id
from eyeline.core.settings import SiteSettings
from eyeline.reports.review import Needed, Pace, needed, pace_of
from eyeline.stores.results import open_results
from eyeline.stores.results.base import SeriesRow
from eyeline.stores.results.review import Doubt, ReviewQuery
from tests.unit.worker.test_doubts import result

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def test_the_pace_is_the_median_between_decisions_and_pauses_are_left_out() -> None:
    seconds = [0, 4, 10, 16.4, 500, 507]
    assert pace_of([NOW + timedelta(seconds=each) for each in seconds]) == Pace(6, 6.2)
    assert [pace_of([]), pace_of([NOW]), pace_of([NOW, NOW + timedelta(minutes=3)])] == [
        Pace(0, None), Pace(1, None), Pace(2, None),
    ]  # fmt: skip


async def test_the_share_is_of_the_day_of_the_site(tmp_path: Path) -> None:
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    sites = [SiteSettings(name="north", timezone="Asia/Tokyo"), SiteSettings(name="south")]
    midnight = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)  # in Tokyo

    def row(at: datetime, images: int, site: str = "north") -> SeriesRow:
        return SeriesRow(step=900, start=int(at.timestamp()), site=site, sums={"images": images})

    await store.add_sums([row(midnight, 40), row(midnight - timedelta(minutes=15), 10), row(NOW, 99, "south")])
    made = [
        msgspec.structs.replace(result(), id=first_id(midnight + timedelta(seconds=each)), site="north")
        for each in (1, 2, -1)
    ]
    await store.save_many(made, {each.id: Doubt(0.5, "low score") for each in made})
    north, south = (ReviewQuery(sites=["north", "south"], site=site) for site in ("north", "south"))
    assert await needed(store, sites, north, NOW) == Needed(0.05, 0.1)
    assert await needed(store, sites, south, NOW) == Needed(0.0, None)
    await store.close()
