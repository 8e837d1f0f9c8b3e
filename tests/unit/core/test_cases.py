"""The states of a case: every decision on every case has one answer."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.core.cases import DECISIONS, Case, Decision, Refused, decided

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
CASES = st.builds(
    Case,
    state=st.sampled_from(["open", "acknowledged"]),
    assignee=st.none() | st.just("ana"),
    snoozed_until=st.none() | st.just(NOON),
) | st.builds(Case, state=st.just("resolved"), disposition=st.sampled_from(["real", "false", "test"]))
DECIDED = st.builds(
    Decision,
    what=st.sampled_from(DECISIONS),
    by=st.just("ana"),
    at=st.just(NOON),
    until=st.just(NOON + timedelta(hours=1)),
    to=st.just("ben"),
    disposition=st.sampled_from(["real", "false", "test"]),
)


@given(CASES, DECIDED)
def test_a_decision_done_again_changes_nothing_more(case: Case, decision: Decision) -> None:
    try:
        once = decided(case, decision, before=Case())
    except Refused:
        assert case.state == "resolved"
        return
    assert decided(once, decision, before=Case()) == once


@given(CASES, DECIDED)
def test_a_case_has_a_disposition_exactly_where_it_is_resolved(case: Case, decision: Decision) -> None:
    try:
        after = decided(case, decision, before=Case())
    except Refused:
        return
    assert (after.disposition is not None) == (after.state == "resolved")
    assert after.state != "resolved" or after.snoozed_until is None


def test_a_resolved_case_says_what_to_do_first() -> None:
    with pytest.raises(Refused, match="resolved as false; reopen it first"):
        decided(Case(state="resolved", disposition="false"), Decision(what="acknowledge", by="", at=NOON))


def test_there_is_nothing_to_undo_before_the_first_decision() -> None:
    with pytest.raises(Refused, match="nothing to undo"):
        decided(Case(), Decision(what="undo", by="", at=NOON))
