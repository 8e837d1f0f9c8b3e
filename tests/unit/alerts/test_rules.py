"""Hits, causes, windows and cool-downs, without clock or store."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eyeline.alerts.causes import LATEST, Memory
from eyeline.alerts.rules import Rule, compile_rule, duration, hits_of
from eyeline.core.errors import ConfigError
from eyeline.core.settings import RuleSettings
from eyeline.core.types import Classification, Detection, Result
from eyeline.stores.results.base import AlertRow

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BOX = (0.0, 0.0, 10.0, 20.0)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def a_rule(**fields: Any) -> Rule:
    return compile_rule(RuleSettings(**{"name": "damaged", "when": "label == 'damaged'", **fields}))


def a_result(**fields: Any) -> Result:
    known: dict[str, Any] = {
        "id": "one",
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "captured_at": NOON,
        "received_at": NOON,
        "completed_at": NOON,
    }
    return Result(**{**known, **fields})


def observe(memory: Memory, rule: Rule, seconds: float, key: str = "k") -> str | None:
    """Count a hit at that time, opening the alert where one is due, as the engine does."""
    cause, outcome = memory.observe(rule, key, at(seconds), at(seconds).timestamp())
    if outcome == "opened":
        moment = at(seconds)
        alert = AlertRow(
            id=f"alert at {seconds}",
            rule=rule.name,
            cause=key,
            site="north",
            severity="warning",
            state="open",
            opened_at=moment,
            last_at=moment,
            count=1,
            result_id="one",
            body={},
        )
        memory.opened(rule, key, cause, alert)
    return outcome


def test_each_detection_classification_and_crop_is_a_hit() -> None:
    crop = {"classifications": [{"label": "dent", "score": 0.7, "step": "damage"}]}
    result = a_result(
        detections=[Detection("parcel", 0.9, BOX, "find", crop), Detection("parcel", 0.5, BOX, "find")],
        classifications=[Classification("busy", 0.8, "scene")],
    )
    found = [(hit.label, hit.score, hit.area, hit.step) for hit in hits_of(result)]
    assert found == [
        ("parcel", 0.9, 200.0, "find"),
        ("dent", 0.7, 200.0, "damage"),
        ("parcel", 0.5, 200.0, "find"),
        ("busy", 0.8, None, "scene"),
    ]


def test_a_result_with_nothing_found_is_one_bare_hit() -> None:
    [hit] = hits_of(a_result(status="failed", reason="bad_image: empty"))
    assert (hit.label, hit.score, hit.area) == (None, None, None)


def test_one_image_counts_once_for_each_cause_with_its_best_hit() -> None:
    result = a_result(
        detections=[Detection(label, score, BOX, "find") for label, score in [("damaged", 0.6), ("damaged", 0.9)]]
    )
    [(cause, hit)] = a_rule().causes(hits_of(result)).items()
    assert cause == '{"site":"north","camera":"belt-1","label":"damaged"}'
    assert hit.score == 0.9


def test_grouping_by_label_makes_a_cause_of_each_label() -> None:
    result = a_result(detections=[Detection(label, 0.9, BOX, "find") for label in ("dent", "tear", "dent")])
    causes = a_rule(when="score > 0.5", by=["camera", "label"]).causes(hits_of(result))
    assert set(causes) == {'{"camera":"belt-1","label":"dent"}', '{"camera":"belt-1","label":"tear"}'}


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("5m", 300.0), ("2h", 7200.0), ("500ms", 0.5), ("1.5 h", 5400.0), ("0s", 0)]
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-5s", "s", "60d", "1e3s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="60s, 5m or 2h"):
        duration(text)


def test_a_wrong_rule_is_named() -> None:
    with pytest.raises(ConfigError, match="rule 'damaged': column 1"):
        a_rule(when="lable == 'x'")
    with pytest.raises(ConfigError, match="rule 'damaged': cooldown: '5 minutes'"):
        a_rule(cooldown="5 minutes")


def test_the_first_hit_opens_where_one_is_enough() -> None:
    assert observe(Memory(), a_rule(), 0) == "opened"


def test_three_hits_within_the_window_open_and_two_do_not() -> None:
    memory, rule = Memory(), a_rule(count=3, within="60s")
    assert [observe(memory, rule, second) for second in (0, 30, 60)] == [None, None, "opened"]
    memory = Memory()
    assert [observe(memory, rule, second) for second in (0, 30, 60.1)] == [None, None, None]


def test_hits_that_arrive_out_of_order_count_by_their_capture() -> None:
    memory, rule = Memory(), a_rule(count=3, within="10s")
    assert [observe(memory, rule, second) for second in (20, 28, 22)] == [None, None, "opened"]
    memory = Memory()
    assert [observe(memory, rule, second) for second in (20, 40, 30.5, 9.5)] == [None, None, None, None]


def test_a_window_of_two_old_hits_and_a_late_one_is_found_between_newer_ones() -> None:
    memory, rule = Memory(), a_rule(count=3, within="10s")
    assert [observe(memory, rule, second) for second in (0, 9, 50, 5)] == [None, None, None, "opened"]


def test_in_the_cool_down_the_same_alert_is_updated() -> None:
    memory, rule = Memory(), a_rule(cooldown="5m")
    outcomes = [observe(memory, rule, second) for second in (0, 10, 299.9, 5)]
    assert outcomes == ["opened", "updated", "updated", "updated"]
    alert = memory.causes["k"].alert
    assert alert is not None
    assert (alert.count, alert.last_at, alert.opened_at) == (4, at(299.9), at(0))


def test_after_the_cool_down_another_alert_opens() -> None:
    memory, rule = Memory(), a_rule(cooldown="5m")
    assert [observe(memory, rule, second) for second in (0, 300)] == ["opened", "opened"]


def test_the_cool_down_of_one_cause_swallows_no_other() -> None:
    memory, rule = Memory(), a_rule()
    assert observe(memory, rule, 0, "a") == "opened"
    assert observe(memory, rule, 1, "b") == "opened"


def test_memory_of_a_busy_cause_stays_bounded_and_right() -> None:
    memory, rule = Memory(), a_rule(count=5, within="2h", cooldown="0s")
    for second in range(5000):
        observe(memory, rule, second)
    assert len(memory.causes["k"].hits) <= 4 * 5 + 64


def test_causes_that_fell_silent_are_forgotten_and_busy_ones_kept() -> None:
    memory, rule = Memory(), a_rule(within="60s", cooldown="5m")
    observe(memory, rule, 0, "old")
    observe(memory, rule, 400, "new")
    assert not memory.tidy(rule, at(60 + 300 + 2 * LATEST - 1).timestamp())
    assert memory.tidy(rule, at(60 + 300 + 2 * LATEST + 1).timestamp())
    assert set(memory.causes) == {"new"}


def test_a_rule_that_means_something_else_is_another_rule() -> None:
    assert a_rule().digest == a_rule(notify=["log"], cooldown="1h").digest
    assert a_rule().digest != a_rule(count=2).digest
