"""Every kind of rule over events given by hand: when a case is opened, goes on, and ends."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from eyeline.alerts.agents import SILENT, AgentWatch
from eyeline.alerts.causes import LATEST, MOST_CAUSES, Memory
from eyeline.alerts.evaluator import Change, Evaluator
from eyeline.alerts.rules import compile_rule
from eyeline.core.errors import ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.settings import RuleSettings, rule_of
from eyeline.core.types import Classification, Detection, Event, Result

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Line:
    """One rule, fresh, and the events that it is given; `said` is what came of them: `opened belt-1`."""

    def __init__(self, **rule: Any) -> None:
        self.rule = compile_rule(rule_of({"name": "r", "when": "label == 'damaged'", **rule}))
        self.evaluator = Evaluator()
        self.evaluator.take([self.rule], {self.rule.digest: Memory()})
        self.seq = 0
        self.changes: list[Change] = []

    @property
    def memory(self) -> Memory:
        return self.evaluator.memories[self.rule.digest]

    def restart(self) -> None:
        """Forget everything but what is kept."""
        kept = msgspec.json.decode(msgspec.json.encode(self.memory), type=Memory)
        self.evaluator = Evaluator()
        self.evaluator.take([self.rule], {self.rule.digest: kept})

    def event(self, body: dict[str, Any], moment: datetime, kind: Any = "system", site: str = "north") -> list[str]:
        self.seq += 1
        event = Event(seq=self.seq, kind=kind, site=site, at=moment, body=body)
        return self.note(self.evaluator.observe(event))

    def note(self, changes: Iterable[Change]) -> list[str]:
        new = list(changes)
        self.changes += new
        return [f"{change.outcome} {change.alert.body.get('camera')}" for change in new]

    def see(self, seconds: float, *labels: str, camera: str = "belt-1", score: float = 0.9, **more: Any) -> list[str]:
        """A result of that moment with these labels."""
        values: dict[str, Any] = {
            "id": uuid7(),
            "status": "completed",
            "site": "north",
            "pipeline": "parcels",
            "camera": camera,
            "captured_at": at(seconds),
            "received_at": at(seconds),
            "completed_at": at(seconds),
            "classifications": [Classification(label, score, "find") for label in labels],
        }
        result = Result(**{**values, **more})
        return self.event(msgspec.to_builtins(result), result.received_at, "result")

    def tick(self, seconds: float, why: str | None = None) -> list[str]:
        return self.note(self.evaluator.tick(at(seconds), lambda _: why))


# so many of so many frames
def test_two_of_five_frames_open_a_case_and_two_of_six_do_not() -> None:
    line = Line(count=2, of=5)
    assert [line.see(second, *labels) for second, labels in enumerate([["damaged"], [], [], [], ["damaged"]])][-1] == [
        "opened belt-1"
    ]
    line = Line(count=2, of=5)
    for second in range(30):
        assert line.see(second, *(["damaged"] if second % 5 == 0 else [])) == []


def test_frames_are_those_of_the_same_camera_in_the_order_of_their_capture() -> None:
    line = Line(count=2, of=3)
    line.see(0, "damaged")
    for second in (1, 2, 3, 4):
        assert line.see(second, camera="belt-2") == []
    for second in (5, 6, 10):
        line.see(second)
    assert line.see(7, "damaged") == []  # late; the first one is not among any three with it
    line = Line(count=2, of=3)
    line.see(0, "damaged")
    line.see(10)
    assert line.see(5, "damaged") == ["opened belt-1"]


# hysteresis
def test_a_case_is_raised_high_held_low_and_cleared_below_that() -> None:
    line = Line(when="score >= 0.8", holds="score >= 0.5", clear_after="10s", cooldown="0s")
    assert line.see(0, "x", score=0.7) == []
    assert line.see(1, "x", score=0.85) == ["opened belt-1"]
    for second in range(2, 60):
        assert line.see(second, "x", score=0.6) == []
    assert line.see(62, "x", score=0.4) == []
    assert line.see(69, "x", score=0.4) == ["cleared belt-1"]
    assert line.changes[-1].alert.body["cleared_at"] == "2026-01-31T12:01:09.000000Z"
    assert line.see(75, "x", score=0.7) == []
    assert line.see(80, "x", score=0.9) == ["opened belt-1"]
    assert len({change.alert.id for change in line.changes}) == 2


def test_what_comes_again_before_the_cool_down_is_over_is_the_same_case() -> None:
    line = Line(clear_after="5s", cooldown="1m")
    line.see(0, "damaged")
    line.see(3)
    assert line.see(6) == ["cleared belt-1"]
    assert line.see(20, "damaged") == ["updated belt-1"]
    assert "cleared_at" not in line.changes[-1].alert.body
    assert line.see(30) == ["cleared belt-1"]
    assert line.see(95, "damaged") == ["opened belt-1"]


def test_no_frames_clear_nothing() -> None:
    line = Line(clear_after="5s")
    line.see(0, "damaged")
    assert line.see(1000, camera="belt-2") == []
    assert "cleared_at" not in line.memory.causes[next(iter(line.memory.causes))].alert.body  # type: ignore[union-attr]


# shares
def test_more_than_two_percent_of_the_last_500_open_a_case_and_two_percent_do_not() -> None:
    line = Line(share=0.02, of=500)
    said = [line.see(number, *(["damaged"] if number % 50 == 0 else [])) for number in range(2000)]
    assert not any(said)
    assert line.see(2001, "damaged") == []  # the tenth
    assert line.see(2002, "damaged") == ["opened belt-1"]
    hit: Any = line.changes[-1].alert.body["hit"]
    assert (hit["share"], hit["of"]) == (0.022, 500)


def test_a_share_clears_below_its_own_mark() -> None:
    line = Line(share=0.5, of=10, clear_share=0.2)
    said = [line.see(number, "damaged") for number in range(6)]
    assert said[-1] == ["opened belt-1"]
    ends = [line.see(number) for number in range(6, 20)]
    assert [number for number, told in enumerate(ends, 6) if told] == [14]  # one of the last ten is left
    assert ends[8] == ["cleared belt-1"]


def test_a_share_of_a_time_needs_enough_frames_and_forgets_the_old_ones() -> None:
    line = Line(share=0.1, within="15m")
    assert line.see(0, "damaged") == []  # all of one frame is nothing
    assert [line.see(second, "damaged") for second in range(1, 9)] == [[]] * 8
    assert line.see(9, "damaged") == ["opened belt-1"]
    frames = line.memory.frames[next(iter(line.memory.frames))]
    for minute in range(1, 120):
        line.see(minute * 60)
    assert frames.counts == {}
    assert frames.total <= 15
    assert len(frames.parts) <= 60


def test_a_share_is_among_those_that_show_what_is_asked_for() -> None:
    line = Line(when="label == 'damaged'", share=0.3, of=10, among="label in ('parcel', 'damaged')")
    for second in range(100):
        line.see(second)  # an empty belt
    for second in range(100, 103):
        assert line.see(second, "parcel", "damaged") == []
    assert line.see(103, "parcel", "damaged") == ["opened belt-1"]


# absence
def test_what_is_missed_is_said_once_by_the_clock_and_cleared_when_it_is_there() -> None:
    line = Line(when="label == 'parcel'", absent="10m", notify=["log"])
    assert line.tick(10_000) == []  # a camera that never was is missed by nobody
    line.see(0, "parcel")
    line.see(595)
    assert line.tick(599) == []
    assert line.tick(600) == ["opened belt-1"]
    alert = line.changes[-1].alert
    assert (alert.opened_at, alert.body["hit"]["offline"]) == (at(600), False)
    assert line.tick(700) == []
    assert line.see(710) == []
    assert line.see(720, "parcel") == ["cleared belt-1"]
    assert line.tick(1319) == []
    assert line.tick(1320) == ["opened belt-1"]


def test_the_clock_of_what_is_missed_survives_a_restart() -> None:
    line = Line(when="label == 'parcel'", absent="10m")
    line.see(0, "parcel")
    line.restart()
    assert line.tick(599) == []
    [opened] = [line.tick(600)]
    first = line.changes[-1].alert.id
    assert opened == ["opened belt-1"]
    line.restart()
    assert line.tick(601) == []  # it was kept
    again = Line(when="label == 'parcel'", absent="10m")  # it was not: the same id comes again
    again.evaluator.take([again.rule], {again.rule.digest: line.memory})
    line.memory.silences[next(iter(line.memory.silences))].said = False
    again.tick(602)
    assert again.changes[-1].alert.id == first


def test_a_camera_that_is_offline_is_told_from_a_line_that_is_empty() -> None:
    line = Line(when="label == 'parcel'", absent="10m")
    line.see(0, "parcel")
    line.tick(600)
    assert line.changes[-1].alert.body["hit"]["detail"] == ("nothing matched for 10 min; no frame came for 10 min")
    line = Line(when="label == 'parcel'", absent="10m")
    line.see(0, "parcel")
    line.see(599)
    line.tick(600, why="stalled: no frame for 12 s")
    hit: Any = line.changes[-1].alert.body["hit"]
    assert hit["offline"] is True
    assert hit["detail"].endswith("the camera is offline: stalled: no frame for 12 s")


def test_nothing_is_missed_where_the_rule_does_not_look() -> None:
    line = Line(when="label == 'parcel' and camera == 'belt-1'", absent="1m")
    line.see(0, "parcel", camera="belt-1")
    line.see(0, "parcel", camera="belt-2")
    assert line.tick(100) == ["opened belt-1"]


def test_late_frames_call_nobody_but_show_that_nothing_is_missing() -> None:
    assert Line().see(0, "damaged", received_at=at(LATEST + 1)) == []
    line = Line(when="label == 'parcel'", absent="10m")
    line.see(0, "parcel")
    line.see(500, "parcel", received_at=at(590))
    assert line.tick(610) == []


# health
def health(condition: str, state: str = "began", camera: str = "belt-1") -> dict[str, Any]:
    return {
        "type": "camera.health",
        "id": uuid7(),
        "camera": camera,
        "pipeline": "p",
        "health": condition,
        "state": state,
        "detail": "why",
    }


def test_a_condition_of_a_camera_is_cleared_when_it_ends() -> None:
    line = Line(when="health in ('frozen', 'dark')")
    assert line.event(health("frozen"), at(0)) == ["opened belt-1"]
    assert line.event(health("dark"), at(1)) == ["opened belt-1"]  # a new cause is not swallowed
    assert line.event(health("moved", "ended"), at(2)) == []
    assert line.event(health("frozen", "ended"), at(90_000)) == ["cleared belt-1"]
    assert line.event(health("frozen"), at(100_000)) == ["opened belt-1"]


def test_an_agent_that_stops_reporting_is_missed_and_one_that_never_did_is_not() -> None:
    watch = AgentWatch({"belt-1", "belt-2"})
    report = {"site": "north", "reported_at": "2026-01-31T12:00:00.000000Z", "state": "live"}
    gone = {"belt-1": report, "removed": report}
    assert list(watch.look(gone, 0.0)) == []
    assert list(watch.look(gone, SILENT - 1)) == []
    [(site, body)] = watch.look(gone, SILENT)
    assert (site, body["camera"], body["health"], body["state"]) == ("north", "belt-1", "silent", "began")
    assert watch.offline("belt-1") == "its agent does not report any more"
    assert list(watch.look(gone, SILENT + 100)) == []
    restarted = AgentWatch({"belt-1"}, watch.kept())
    assert list(restarted.look(gone, 0.0)) == []
    back = {"belt-1": {**report, "reported_at": "2026-01-31T12:10:00.000000Z"}}
    [(_, body)] = restarted.look(back, 5.0)
    assert body["state"] == "ended"
    line = Line(when="health == 'silent'")
    assert line.event(body | {"state": "began"}, at(0)) == ["opened belt-1"]


def test_an_agent_says_why_a_camera_gives_no_frames() -> None:
    watch = AgentWatch(None)
    conditions = {"conditions": {"stalled": "no frame for 12 s"}}
    list(watch.look({"belt-1": {"site": "n", "reported_at": "x", "health": conditions}}, 0.0))
    assert watch.offline("belt-1") == "no frame for 12 s"
    assert watch.offline("belt-2") is None


# service levels
def levels(**values: float) -> dict[str, Any]:
    told = {name: {"value": value, "hour": value / 2} for name, value in values.items()}
    return {"type": "slo", "id": uuid7(), "seconds": 300, "levels": told}


def test_a_service_level_opens_a_case_for_each_level_and_clears_it() -> None:
    line = Line(when="slo in ('queue_wait', 'error_rate') and value > 0.5 and hour > 0.25")
    assert line.event(levels(queue_wait=0.5, api_response=9.0), at(0)) == []
    assert line.event(levels(queue_wait=0.8), at(15)) == ["opened None"]
    assert line.event(levels(queue_wait=0.9, error_rate=0.6), at(30)) == ["updated None", "opened None"]
    assert line.event(levels(queue_wait=0.2), at(45)) == ["cleared None"]  # nothing is known of errors now
    hit: Any = line.changes[0].alert.body["hit"]
    assert (hit["slo"], hit["value"]) == ("queue_wait", 0.8)


def test_one_bad_measurement_is_none_of_three() -> None:
    line = Line(when="slo == 'queue_wait' and value > 1", count=3, of=4)
    for second, value in enumerate((2.0, 0.1, 0.1, 2.0, 0.1, 2.0)):
        assert line.event(levels(queue_wait=value), at(15 * second)) == []
    assert line.event(levels(queue_wait=2.0), at(100)) == ["opened None"]


def test_rules_are_asked_of_what_they_are_about() -> None:
    assert Line(when="label != 'intact'").event(levels(queue_wait=9.0), at(0)) == []
    assert Line(when="value > 0 or slo is None").see(0, "damaged") == []


# what people decide
def decided(line: Line, state: str, seconds: float) -> None:
    alert = line.changes[0].alert
    body = {"id": alert.id, "rule": alert.rule, "state": state, "cause": alert.body["group"]}
    line.event(body, at(seconds), "alert")


def test_after_a_case_was_resolved_the_next_hit_is_a_new_one() -> None:
    line = Line(cooldown="1h")
    assert line.see(0, "damaged") == ["opened belt-1"]
    decided(line, "resolved", 10)
    decided(line, "resolved", 50)  # our own update of it says so again, which is no news
    assert line.see(60, "damaged") == ["updated belt-1"]  # it is still leaving the picture
    assert line.see(71, "damaged") == ["opened belt-1"]


def test_a_case_that_was_opened_again_goes_on() -> None:
    line = Line(cooldown="5m")
    line.see(0, "damaged")
    decided(line, "resolved", 10)
    decided(line, "open", 20)
    assert line.see(100, "damaged") == ["updated belt-1"]


def test_a_cool_down_swallows_no_new_cause() -> None:
    line = Line(when="score > 0.5", cooldown="1h")
    box = (0.0, 0.0, 1.0, 1.0)
    zones = [Detection("dent", 0.9, box, "find", {"zone": zone}) for zone in ("left", "right")]
    assert line.see(0, "dent") == ["opened belt-1"]
    assert line.see(1, "tear") == ["opened belt-1"]
    assert line.see(2, "dent", camera="belt-2") == ["opened belt-2"]
    assert line.see(3, "dent", site="south") == ["opened belt-1"]
    assert line.see(4, detections=zones) == ["opened belt-1", "opened belt-1"]
    assert line.see(5, "dent") == ["updated belt-1"]


def test_a_case_that_goes_on_is_one_case_however_long() -> None:
    line = Line(cooldown="5m")
    said = [line.see(minute * 60, "damaged") for minute in range(120)]
    assert said == [["opened belt-1"], *[["updated belt-1"]] * 119]
    assert line.see(120 * 60 + 300, "damaged") == ["opened belt-1"]


# bounds
@pytest.mark.parametrize(
    "rule", [{"by": ["ref"]}, {"by": ["ref"], "count": 2, "of": 5}, {"by": ["ref"], "share": 0.5, "within": "15m"}]
)
def test_what_is_remembered_is_bounded(rule: dict[str, Any]) -> None:
    line = Line(**rule)
    for number in range(300):
        line.see(number / 1000, "damaged", ref=str(number))
    memory = line.memory
    before = len(memory.causes)
    assert before == 300
    line.evaluator.tidy(at(0).timestamp() + 8 * 86_400)
    assert (memory.causes, memory.frames) == ({}, {})
    assert MOST_CAUSES == 10_000


def test_an_event_that_is_not_what_it_says_stops_nothing() -> None:
    line = Line(when="slo == 'queue_wait'")
    for body in ({"type": "slo"}, {"type": "slo", "levels": 3}, {"type": "slo", "levels": {"x": {}}}):
        assert line.event(body, at(0)) == []
    assert Line().event({"id": 7}, at(0), "result") == []


# settings
WRONG = [
    ({"absent": "10m", "count": 2}, "'count' says nothing beside 'absent'"),
    ({"absent": "10m", "by": ["label"]}, "what is absent has no label"),
    ({"of": 5, "within": "5m"}, "'within' says nothing beside 'of'"),
    ({"clear_share": 0.1}, "'clear_share' says nothing without 'share'"),
    ({"share": 0.1, "clear_share": 0.2}, "it would clear at once"),
    ({"share": 0.1, "clear_after": "5s"}, "'clear_after' says nothing beside 'share'"),
    ({"holds": "score > 0.1"}, "'holds' says nothing without 'clear_after'"),
    ({"count": 6, "of": 5}, "6 of 5 images can never match"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_words_that_say_nothing_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RuleSettings(name="r", when="score > 0.5", **words)


def test_what_is_about_health_is_not_counted_as_a_share() -> None:
    with pytest.raises(ConfigError, match="rule 'r': share: what is counted are results"):
        Line(when="health == 'dark'", share=0.5, of=10)
    with pytest.raises(ConfigError, match="absent: '0s' is too short"):
        Line(absent="0s")
