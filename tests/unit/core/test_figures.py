"""Figures that add up: whatever is added in whatever order gives the same percentiles, budgets and points."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.core import figures
from eyeline.core.clock import isoformat
from eyeline.core.figures import WINDOWS, Window

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def result(seconds: float, **changes: Any) -> dict[str, Any]:
    told = {
        "status": "completed",
        "received_at": isoformat(NOON),
        "completed_at": isoformat(NOON + timedelta(seconds=seconds)),
        "timings": {"queue": seconds / 2, "infer": seconds / 4},
    }
    return told | changes


def test_a_result_adds_its_image_its_time_and_its_stages() -> None:
    sums = figures.of_result(result(0.4, status="failed"))
    assert sums == {
        "images": 1,
        "failed": 1,
        "end_to_end|0.5": 1,
        "queue|0.2": 1,
        "stage.queue+": 0.2,
        "stage.queue#": 1,
        "stage.infer+": 0.1,
        "stage.infer#": 1,
    }
    assert figures.stages(figures.added([sums, sums])) == {"infer": 0.1, "queue": 0.2}


@given(st.lists(st.floats(0, 60), min_size=1, max_size=50), st.integers(0, 49))
def test_parts_add_up_to_the_whole(seconds: list[float], cut: int) -> None:
    whole = figures.added(figures.of_result(result(one)) for one in seconds)
    parts = [figures.added(figures.of_result(result(one)) for one in part) for part in (seconds[:cut], seconds[cut:])]
    both = figures.added(parts)
    assert figures.histogram(both, "end_to_end") == figures.histogram(whole, "end_to_end")
    assert figures.measures(both, 60) == figures.measures(whole, 60)
    assert whole["images"] == len(seconds)


def test_percentiles_are_within_the_bucket_of_the_true_ones() -> None:
    sums = figures.added(figures.of_result(result(number / 100)) for number in range(1, 101))
    found = figures.measures(sums, 60)
    assert found["end_to_end.p50"] == pytest.approx(0.5, abs=0.02)
    assert found["end_to_end.p95"] == pytest.approx(0.95, abs=0.06)
    assert found["throughput"] == pytest.approx(100 / 60, abs=1e-4)
    assert found["errors"] == 0


def test_nothing_seen_is_none_and_not_zero() -> None:
    assert set(figures.measures({}, 60).values()) == {None}
    assert figures.budget(figures.ERRORS, {})["left"] is None


def test_an_empty_line_and_an_idle_accelerator_are_measured_as_zero() -> None:
    found = figures.measures({"looks": 12.0, "busy#": 3.0}, 60)
    assert (found["depth"], found["utilisation"]) == (0.0, 0.0)


def test_a_budget_is_whole_when_nothing_failed_empty_at_the_limit_and_negative_beyond() -> None:
    for failed, left in ((0, 1.0), (5, 0.5), (10, 0.0), (20, -1.0)):
        assert figures.budget(figures.ERRORS, {"images": 1000, "failed": failed})["left"] == pytest.approx(left)
    slow = {"queue|0.5": 990, "queue|2": 10}
    assert figures.budget(figures.QUEUE, slow)["left"] == pytest.approx(0.0)
    assert figures.budget(figures.API, {"api|0.3": 995, "api|0.5": 5})["left"] == pytest.approx(0.5)


def test_buckets_are_joined_to_points_gaps_stay_gaps_and_the_last_one_counts_its_seconds_so_far() -> None:
    window = Window(3600, 60, 180)
    buckets = [(start, {"images": 1.0}) for start in (0, 60, 120, 540, 600)]
    assert figures.points(buckets, window, until=630) == [
        (0, {"images": 3.0}, 180.0),
        (540, {"images": 2.0}, 90.0),
    ]


@pytest.mark.parametrize("name", list(WINDOWS))
def test_no_range_has_more_than_six_hundred_points_and_steps_fit(name: Any) -> None:
    window = WINDOWS[name]
    assert window.seconds / window.point <= 600
    assert window.point % window.step == 0
