"""Alerts as pages show them: every line of a timeline has its words, and what was measured is told beside its limit."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast, get_args

import pytest

from eyeline.core.cases import Recorded
from eyeline.core.settings import RuleSettings
from eyeline.dashboard.cases import Line, alert_view, measured, timeline
from eyeline.dashboard.words import words
from eyeline.stores.results.base import HistoryRow
from tests.dashboards import made_alert, made_result

NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
ALERT = made_alert(made_result("belt-01", "north", at=NOW))


def an_entry(what: str, **body: Any) -> HistoryRow:
    return HistoryRow(id=what, alert_id=ALERT.id, at=NOW, by="", what=cast("Recorded", what), version=0, body=body)


def test_whatever_the_engine_and_people_write_has_its_words() -> None:
    """`Recorded` types what the history is written with, so that a new kind stands there first."""
    history = [an_entry(what) for what in get_args(Recorded)]
    told = {moment.what for moment in timeline(replace(ALERT, last_at=NOW.replace(hour=13)), history, [])}
    assert told >= {*get_args(Recorded), "opened", "seen"}
    assert {f"alerts.what.{what}" for what in get_args(Line)} == set(words().part("alerts.what."))


def test_what_a_newer_release_wrote_is_told_as_it_stands() -> None:
    [_, moment] = timeline(ALERT, [an_entry("merge", note="two of one")], [])
    assert (moment.what, moment.words) == ("other", "merge")


def test_that_its_cause_has_ended_is_told_with_the_time_and_the_reason() -> None:
    over = replace(ALERT, body={**ALERT.body, "cleared_at": "2026-01-31T13:00:00Z", "cleared": "the share is 0.80%"})
    view, moment = alert_view(over), timeline(over, [], [])[-1]
    assert (view.cleared_at, view.cleared) == (NOW.replace(hour=13, minute=0), "the share is 0.80%")
    assert (moment.at, moment.what, moment.words) == (view.cleared_at, "cleared", view.cleared)
    assert alert_view(ALERT).cleared_at is None


@pytest.mark.parametrize(
    ("rule", "hit", "told"),
    [
        ({"share": 0.02, "of": 500}, {"share": 0.024, "of": 500}, "2.4 % of the last 500 images, limit 2 %"),
        ({"share": 0.5, "within": "15m"}, {"share": 1.0, "of": 7}, "100 % of 7 images within 15m, limit 50 %"),
        (None, {"share": 0.024, "of": 500}, "2.4 % of 500 images"),
        ({"absent": "10m"}, {"detail": "nothing matched for 11 min"}, "nothing matched for 11 min, limit 10m"),
        ({}, {"value": 1.3, "detail": "queue_wait: 1.3 over the last 300 s"}, "queue_wait: 1.3 over the last 300 s"),
        ({"count": 2, "of": 5}, {"of": 5}, "2 of 5 images in a row"),
        ({"count": 3, "within": "60s"}, {}, "3 images within 60s"),
        ({}, {}, ""),
    ],
)
def test_what_was_measured_is_told_beside_its_limit(
    rule: dict[str, Any] | None, hit: dict[str, Any], told: str
) -> None:
    settings = None if rule is None else RuleSettings(**{"name": "any", "when": "score > 0", **rule})
    assert measured(replace(ALERT, body={"hit": hit}), settings, words()) == told
