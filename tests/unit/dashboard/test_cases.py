"""Alerts as pages show them: every line of a timeline has its words."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast, get_args

from eyeline.core.cases import Recorded
from eyeline.dashboard.cases import Line, timeline
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
