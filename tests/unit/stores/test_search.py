"""The words of a search: each is read into what it asks for, and a wrong one is pointed at."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.core.errors import InputError
from eyeline.stores.results.base import Prefix, ResultQuery
from eyeline.stores.results.search import NAMES, Token, from_fields, parse

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_every_token_asks_for_something() -> None:
    search = parse(
        'site:leeds camera:dock-* pipeline:parcels label:"torn label" score:<0.5 status:completed verdict:rejected by:ana '
        "model:1.4.2 ref:PAL-7 code:4006381333931 from:-2h until:2026-03-04T11:30:00Z",
        NOW,
    )
    assert search.query == ResultQuery(
        site="leeds", camera=Prefix("dock-"), pipeline="parcels", label="torn label", max_score=0.5, status="completed",
        verdict="rejected", by="ana", model="1.4.2", ref="PAL-7", code="4006381333931", since=NOW - timedelta(hours=2),
        until=NOW - timedelta(minutes=30),
    )  # fmt: skip
    assert isinstance(search.query.camera, Prefix)
    assert not isinstance(search.query.ref, Prefix)
    assert {token.name for token in search.tokens} == set(NAMES)
    assert parse(str(search), NOW) == search
    assert from_fields(search.fields, NOW) == search


@pytest.mark.parametrize(
    ("score", "asked"),
    [
        ("<.5", (None, 0.5)),
        (">=0.8", (0.8, None)),
        (">0.8", (0.8, None)),
        ("0.3..0.5", (0.3, 0.5)),
        ("0..1", (0.0, 1.0)),
    ],
)
def test_scores_are_ranges(score: str, asked: tuple[float | None, float | None]) -> None:
    query = parse(f"score:{score}", NOW).query
    assert (query.min_score, query.max_score) == asked


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("-90m", NOW - timedelta(minutes=90)),
        ("-7d", NOW - timedelta(days=7)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_times_are_ago_or_absolute(text: str, since: datetime) -> None:
    assert parse(f"from:{text}", NOW).query.since == since


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scroe:<0.5", "'scroe'.*did you mean 'score'"),
        ("label:dent scratch", "'scratch' is no token.*ref:scratch"),
        ("site:a site:b", "site: stands twice"),
        ("from:-2h label:", "label: has no value"),
        ("score:0.5", "write score:<0.5"),
        ("score:<1.5", "from 0 to 1"),
        ("score:<1.2.3", "write score:<0.5"),
        ("status:broken", "there are completed, failed"),
        ("verdict:reject", "confirmed, corrected, rejected, unsure, none"),
        ("camera:*", "behind at least one character"),
        ("camera:a*b*", "one \\* may stand at the end"),
        ("from:yesterday", "write -30m"),
        ("from:2026-01-31T12:00:00", "write -30m"),
        ("ref:a\x00b", "no control characters"),
        ("ref:" + "a" * 201, "200 characters"),
        ("a" * 1001, "1000 at most"),
    ],
)
def test_a_wrong_one_is_pointed_at(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse(text, NOW)


def test_without_a_token_the_others_stay() -> None:
    search = parse("site:a score:0.3..0.5 label:dent", NOW).without("score", NOW)
    assert search.query == ResultQuery(site="a", label="dent")


@given(st.text(max_size=60))
def test_nothing_that_is_typed_breaks_it(text: str) -> None:
    try:
        search = parse(text, NOW)
    except InputError:
        return
    assert parse(str(search), NOW) == search


@given(st.text(alphabet='ab"\\ *:', min_size=1, max_size=12).map(str.strip).filter(bool))
def test_whatever_a_value_holds_can_be_written(value: str) -> None:
    token = Token("label", value)
    assert parse(str(token), NOW).tokens == (token,)
