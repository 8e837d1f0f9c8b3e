"""Drift of scores and label rates: days of ordinary results say nothing, a change is said once, and its end once."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from eyeline.alerts.drift import DriftWatch
from eyeline.alerts.engine import AlertEngine
from eyeline.alerts.rules import compile_rule
from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.core.settings import RuleSettings
from eyeline.core.types import Classification, Detection, Result
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertQuery

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def result(moment: datetime, score: float, label: str = "intact", **fields: Any) -> Result:
    known: dict[str, Any] = {
        "id": uuid7(),
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "captured_at": moment,
        "received_at": moment,
        "completed_at": moment,
        "classifications": [Classification(label, score, "damage")],
    }
    return Result(**{**known, **fields})


def hours(
    watch: DriftWatch, start: int, count: int, *, score: float = 0.9, damaged: float = 0.05, seed: int = 1
) -> list[tuple[str, str]]:
    """So many hours of 60 results each; what was said: (state, detail)."""
    rng = random.Random(seed)
    said = []
    for hour in range(start, start + count):
        for minute in range(60):
            label = "damaged" if rng.random() < damaged else "intact"
            moment = MONDAY + timedelta(hours=hour, minutes=minute)
            found = list(watch.observe(result(moment, rng.gauss(score, 0.02), label)))
            said += [(body["state"], body["detail"]) for _, body in found]
    return said


def test_ten_ordinary_days_say_nothing() -> None:
    assert hours(DriftWatch(), 0, 240) == []


def test_a_fall_of_the_scores_is_said_once_and_its_end_once() -> None:
    watch = DriftWatch()
    assert hours(watch, 0, 96) == []
    [(state, detail)] = hours(watch, 96, 6, score=0.7)
    assert state == "began"
    assert "best score 0.70, usual 0.90" in detail or "best score 0.8" in detail
    assert [state for state, _ in hours(watch, 102, 6)] == ["ended"]


def test_a_label_that_comes_much_more_often_is_said_with_its_shares() -> None:
    watch = DriftWatch()
    assert hours(watch, 0, 96) == []
    [(_, detail), *_] = hours(watch, 96, 4, damaged=0.6)
    assert "'damaged' on" in detail


def test_a_label_that_never_came_before_is_said() -> None:
    watch = DriftWatch()
    assert hours(watch, 0, 72, damaged=0.0) == []
    [(_, detail), *_] = hours(watch, 72, 4, damaged=0.5)
    assert "'damaged' on" in detail


def test_less_than_a_day_is_too_little_to_say_anything() -> None:
    watch = DriftWatch()
    assert hours(watch, 0, 20) == []
    assert hours(watch, 20, 3, score=0.3) == []


def test_what_is_usual_is_known_after_a_restart_and_stays_small() -> None:
    watch = DriftWatch()
    hours(watch, 0, 24 * 20)
    assert len(watch.kept()) < 60_000
    assert hours(DriftWatch(watch.kept()), 24 * 20, 4, score=0.6)[0][0] == "began"


def test_labels_of_crops_count_too() -> None:
    watch = DriftWatch()
    entry = {"label": "damaged", "score": 0.8, "step": "damage"}
    box = Detection("parcel", 0.9, (0.0, 0.0, 1.0, 1.0), "find", {"classifications": [entry]})
    list(watch.observe(result(MONDAY, 0.9, detections=[box], classifications=[])))
    assert b"damaged" in watch.kept()


async def test_the_engine_tells_a_drift_and_rules_see_it(tmp_path: Path) -> None:
    """Results of days, then a fall: recorded now, since what is late calls nobody."""
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    rule = compile_rule(RuleSettings(name="drift", when="health == 'drift'"))
    watch = DriftWatch()
    now = utcnow()
    past = int((now - MONDAY).total_seconds() // 3600) - 98
    hours(watch, past, 96)
    hours(watch, past + 96, 1, score=0.6)
    await store.commit_alerts(state={"alerts/drift": watch.kept()}, alerts=[], deliveries=[])
    engine = AlertEngine([rule], store)
    await engine.load()
    await store.save_many([result(now, 0.6)])
    while (await engine.step())[0]:
        pass
    await engine.keep()
    [alert] = (await store.find_alerts(AlertQuery(limit=9)))[0]
    assert alert.rule == "drift"
    assert "best score" in alert.body["hit"]["detail"]
    await store.close()
