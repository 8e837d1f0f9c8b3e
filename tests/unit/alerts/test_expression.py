"""The language of rules says what it means, and what is wrong, where."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.alerts.expression import DEEPEST, LONGEST, MOST_PARTS, NAMES, Hit, Mistake, compile_condition
from eyeline.core.errors import ConfigError
from eyeline.core.types import Code, Result

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def a_hit(label: str | None = "damaged", score: float | None = 0.9, **fields: Any) -> Hit:
    known: dict[str, Any] = {
        "id": "one",
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "captured_at": NOON,
        "received_at": NOON,
        "completed_at": NOON,
        "meta": {"shift": "late"},
        "codes": [Code("4006", "EAN13", (0, 0, 1, 1))],
    }
    area = 200.0 if label is not None else None
    return Hit(Result(**{**known, **fields}), label, score, area, "find" if label is not None else None)


TRUE = [
    "label == 'damaged'",
    "label == 'damaged' and score >= 0.8",
    "score > 0.8999 or label == 'x'",
    "not label == 'ok'",
    "label != 'ok'",
    "label in ('dent', 'damaged')",
    "label in ['damaged']",
    "label not in ('dent',)",
    "0.8 < score <= 0.9",
    "area >= 200",
    "score > -1",
    "step == 'find' and site == 'north' and camera == 'belt-1' and pipeline == 'parcels'",
    "status == 'completed'",
    "reason is None and ref == None",
    "not duplicate",
    "duplicate == False",
    "'4006' in codes",
    "'4007' not in codes",
    "meta['shift'] == 'late'",
    "meta['line'] is None",
    "(label == 'x' or score > 0.5) and not (duplicate or status == 'failed')",
    "\n  label == 'damaged'\n  and score > 0.5\n",
]


@pytest.mark.parametrize("text", TRUE)
def test_it_holds(text: str) -> None:
    assert compile_condition(text)(a_hit())
    assert not compile_condition(f"not ({text.strip()})")(a_hit())


def test_what_a_hit_does_not_have_is_neither_greater_nor_smaller() -> None:
    bare = a_hit(label=None, score=None, status="failed", reason="bad_image: cut off")
    assert not compile_condition("score >= 0")(bare)
    assert not compile_condition("score < 1")(bare)
    assert not compile_condition("label == 'damaged'")(bare)
    assert compile_condition("status == 'failed' and label is None")(bare)


def test_a_duplicate_is_known_by_its_original() -> None:
    assert compile_condition("duplicate")(a_hit(duplicate_of="zero"))


WRONG = [
    ("scor > 0.5", "column 1: .*'scor'; did you mean 'score'"),
    ("label == 'a' and lable == 'b'", "column 18: .*did you mean 'label'"),
    ("label == damaged", "column 10: .*texts stand in quotes"),
    ("label = 'damaged'", "column 7: .*equality is written =="),
    ("score >= 0.8 and", "column"),
    ("label", "'label' is text, no condition; .*label == 'damaged'"),
    ("not score", "'score' is number, no condition; .*score >= 0.8"),
    ("codes", "'12345' in codes"),
    ("label > 3", "'label' is text and '3' is number"),
    ("label < 'x'", "orders numbers"),
    ("score == '0.8'", "never equal"),
    ("label in (1, 2)", "never equal"),
    ("label in 'damaged'", "wants a list"),
    ("duplicate == true", "write True instead of true"),
    ("score + 1 > 2", "not part of the language"),
    ("__import__('os').system('id')", "not part of the language"),
    ("(lambda: True)()", "not part of the language"),
    ("label.upper() == 'X'", "not part of the language"),
    ("meta[0] == 'x'", r"meta\['shift'\]"),
    ("label == b'x'", "neither text nor number"),
    ("", "column 1"),
    ("(" * 300, "nested"),
    ("x" * 3000, "3000 characters"),
    ("label == '\0'", "null"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compile_condition(text)


@given(st.text(alphabet="label score()'\"[]{}<>=!andornotin_0.9,:;\\\n", max_size=40))
def test_any_text_is_a_condition_or_a_config_error(text: str) -> None:
    try:
        condition = compile_condition(text)
    except ConfigError:
        return
    assert condition(a_hit()) in (True, False)


POINTED = [
    ("lable == 'x'", 1, 5, "label"),
    ("  lable == 'x'", 3, 5, "label"),
    ("label == 'ä' and\n  scor > 1", 20, 4, "score"),
    ("label in ('a', 3)", 16, 1, None),
    ("score >= 0.8 and label > 'x'", 18, 5, None),
    ("not score", 5, 5, None),
    ("duplicate == true", 14, 4, "True"),
]


@pytest.mark.parametrize(("text", "column", "length", "nearest"), POINTED)
def test_a_mistake_points_at_its_place(text: str, column: int, length: int, nearest: str | None) -> None:
    with pytest.raises(Mistake) as error:
        compile_condition(text)
    mistake = error.value
    assert (mistake.column, mistake.length, mistake.nearest) == (column, length, nearest)
    shown, carets = mistake.pointer.splitlines()
    start = carets.index("^")
    assert shown[start : start + length] == text.replace("\n", " ")[column - 1 : column - 1 + length]


def test_a_mistake_says_what_may_stand_there() -> None:
    with pytest.raises(Mistake) as error:
        compile_condition("speed > 3")
    assert set(NAMES) <= set(error.value.allowed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not " * (DEEPEST + 5) + "duplicate", "nested 20 levels"),
        ("not " * 450 + "duplicate", "nested"),
        ("0" + "<0" * MOST_PARTS, "400 parts"),
        ("health == 'dark' and value > 3", "about 'health' or about 'value'"),
    ],
)
def test_a_condition_has_its_limits(text: str, said: str) -> None:
    with pytest.raises(Mistake, match=said):
        compile_condition(text)


ATOMS = st.sampled_from(
    [*NAMES, "'x'", "0.5", "3", "None", "True", "meta['a']", "('a', 'b')", "[0.5]", "lable", "f'{1}'", "-2"]
)
SIGNS = st.sampled_from(["==", "!=", "<", ">=", "in", "not in", "is", "+", "=", "or", "and"])


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, SIGNS, inner).map(" ".join),
        inner.map("not {}".format),
        inner.map("({})".format),
        st.tuples(inner, inner).map("{0[0]} if {0[1]} else 1".format),
    )


def said_of(text: str) -> Mistake | None:
    """What is wrong with it; None where it is a condition, and one that works."""
    try:
        condition = compile_condition(text)
    except Mistake as mistake:
        return mistake
    assert {condition(a_hit()), condition(a_hit(label=None, score=None))} <= {True, False}
    return None


@given(st.recursive(ATOMS, nested, max_leaves=40))
def test_anything_that_looks_like_a_condition_is_one_or_is_pointed_at(text: str) -> None:
    mistake = said_of(text)
    assert mistake is None or (1 <= mistake.column <= len(text) + 1 and "^" in mistake.pointer)


@given(st.text("aä€\U0001f600'\"\\()[]{}=<>!.,:;#@\t\n\r\x0c\x00 019eE_+-*/%&|^~", max_size=60))
def test_any_text_at_all_is_a_condition_or_a_mistake(text: str) -> None:
    mistake = said_of(text)
    assert mistake is None or "^" in mistake.pointer


@pytest.mark.parametrize("piece", ["(", "not ", "-", "[", "a.", "'", "label in (", "0.5 < ", "\\", "\N{SNOWMAN}", "9"])
def test_nothing_takes_long(piece: str) -> None:
    """Whatever is repeated up to the limit is answered; a compiler that doubles with each would not end."""
    with pytest.raises(Mistake):
        compile_condition((piece * LONGEST)[:LONGEST])


def test_the_least_score_that_a_condition_wants_is_known() -> None:
    assert compile_condition("label == 'x' and score >= 0.86").least == 0.86
    assert compile_condition("0.3 < score <= 0.9").least == 0.3
    assert compile_condition("score < 0.5").least is None
