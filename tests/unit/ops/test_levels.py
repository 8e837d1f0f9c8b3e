"""Service levels over the last minutes: fire, no fire for a blip, reset, counters that begin anew, no traffic."""

from pathlib import Path

from eyeline.core.types import Event
from eyeline.ops.levels import EVERY, Levels, LevelService, Reading, reading
from eyeline.ops.slo import read
from eyeline.stores.results import open_results

PAGE = """
# TYPE eyeline_api_request_seconds histogram
eyeline_api_request_seconds_bucket{route="images",le="0.1"} 90
eyeline_api_request_seconds_bucket{route="images",le="0.3"} 100
eyeline_api_request_seconds_bucket{route="images",le="+Inf"} 100
eyeline_api_request_seconds_bucket{route="images?wait",le="0.1"} 0
eyeline_api_request_seconds_bucket{route="images?wait",le="+Inf"} 50
# TYPE eyeline_images_total counter
eyeline_images_total{status="completed"} 99
eyeline_images_total{status="failed"} 1
# TYPE eyeline_accelerator_utilisation gauge
eyeline_accelerator_utilisation{device="0"} 0.5
eyeline_accelerator_utilisation{device="1"} 0.7
"""


def at(seconds: float, completed: float, failed: float) -> Reading:
    return Reading(seconds, {}, {}, {"completed": completed, "failed": failed}, None)


def errors(levels: Levels) -> tuple[float, float] | None:
    level = levels.measured().get("error_rate")
    return None if level is None else (level["value"], level["hour"])


def test_a_scrape_has_what_levels_are_made_of() -> None:
    found = reading(read(PAGE), 7.0)
    assert found.api == {0.1: 90.0, 0.3: 100.0, float("inf"): 100.0}  # long polls are no response time
    assert (found.at, found.wait, dict(found.images)) == (7.0, {}, {"completed": 99.0, "failed": 1.0})
    assert found.utilisation == 0.6


def test_a_level_is_of_the_last_five_minutes_and_of_the_last_hour() -> None:
    levels = Levels()
    for minute in range(121):  # ten images a minute; in the last five minutes half of them fail
        bad = max(0, minute - 115) * 5
        levels.add(at(60.0 * minute, 10.0 * minute - bad, float(bad)))
    assert errors(levels) == (0.5, round(25 / 600, 6))


def test_a_blip_of_a_minute_is_a_fifth_of_the_short_window_and_is_forgotten_after_it() -> None:
    levels, told = Levels(), []
    for quarter in range(4 * 20):
        minute = quarter / 4
        bad = min(max(0.0, minute - 10), 1.0) * 10  # all of the eleventh minute
        levels.add(at(15.0 * quarter, 10 * minute - bad, bad))
        told.append(errors(levels))
    assert max(found[0] for found in told if found is not None) <= 0.21
    assert told[4 * 17] == (0.0, round(10 / 170, 6))


def test_counters_that_begin_anew_and_no_traffic_are_no_errors() -> None:
    levels = Levels()
    levels.add(at(0, 1000, 500))
    levels.add(at(EVERY, 10, 0))  # all processes started again
    assert errors(levels) == (0.0, 0.0)
    quiet = Levels()
    quiet.add(at(0, 100, 5))
    quiet.add(at(400, 100, 5))
    assert quiet.measured() == {}


def test_readings_of_more_than_an_hour_are_forgotten() -> None:
    levels = Levels()
    for number in range(1000):
        levels.add(at(EVERY * number, number, 0))
    assert len(levels._readings) <= 3600 / EVERY + 2


async def test_what_was_measured_is_an_event(tmp_path: Path) -> None:
    import asyncio

    url = f"sqlite:///{tmp_path}/results.db"
    store = open_results(url)
    await store.upgrade()
    from eyeline.core.telemetry import IMAGES

    stop = asyncio.Event()
    service = asyncio.create_task(LevelService(open_results(url), every=0.05).run(stop))
    told: list[Event] = []
    while not told:  # other tests of this process may have left figures of other levels
        IMAGES.labels("completed").inc()
        await asyncio.sleep(0.02)
        told = [event for event in await store.tail(0, 500) if "error_rate" in event.body["levels"]]
    assert (told[0].kind, told[0].body["type"]) == ("system", "slo")
    assert "value" in told[0].body["levels"]["error_rate"]
    stop.set()
    await service
    await store.close()
