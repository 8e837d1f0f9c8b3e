"""Which results are shown to a person: for what reason, and at what price."""

from pathlib import Path
from typing import Any

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.core.settings import ReviewSettings
from eyeline.core.types import Classification, Detection, Result
from eyeline.stores.results import open_results
from eyeline.stores.results.review import doubts
from eyeline.worker.doubts import Doubts

KNOWN = {"dent", "intact", "damaged", "parcel"}


def result(**changes: Any) -> Result:
    now = utcnow()
    values: dict[str, Any] = {
        "id": uuid7(), "status": "completed", "site": "north", "pipeline": "parcels", "captured_at": now,
        "received_at": now, "completed_at": now,
    }  # fmt: skip
    return Result(**(values | changes))


def box(score: float, label: str = "dent", *named: tuple[str, float, str]) -> Detection:
    attributes = {"classifications": [{"label": name, "score": sure, "step": step} for name, sure, step in named]}
    return Detection(label, score, (0.0, 0.0, 9.0, 9.0), "find", attributes if named else {})


def reason(result: Result, *, sample: float = 0.0) -> str | None:
    doubt = doubts(result, KNOWN, below=0.5, sample=sample)
    return None if doubt is None else doubt.reason


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"detections": [box(0.9)]}, None),
        ({"detections": [box(0.9), box(0.49)]}, "low score"),
        ({"detections": [box(0.9, "crack")]}, "new label"),
        ({"detections": [box(0.9, "parcel", ("damaged", 0.3, "damage"))]}, "low score"),
        ({"classifications": [Classification("intact", 0.9, "a"), Classification("damaged", 0.1, "a")]}, None),
        ({"classifications": [Classification("intact", 0.4, "a"), Classification("damaged", 0.3, "a")]}, "low score"),
        (
            {"classifications": [Classification("intact", 0.9, "a"), Classification("damaged", 0.8, "b"),
                                 Classification("intact", 0.6, "b")]},
            "steps disagree",
        ),
        ({"detections": [box(0.9, "parcel", ("damaged", 0.9, "a"), ("intact", 0.8, "a"), ("intact", 0.9, "b"))]},
         "steps disagree"),
        # two steps that speak of different things
        ({"detections": [box(0.9, "parcel", ("damaged", 0.9, "a"), ("dent", 0.9, "b"))]}, None),
        ({"detections": [box(0.1)], "status": "failed"}, None),
        ({"detections": [box(0.1)], "duplicate_of": "x"}, None),
        ({"detections": [box(0.1)], "replay_of": "x"}, None),
    ],
)  # fmt: skip
def test_the_most_valuable_reason_is_told(said: dict[str, Any], why: str | None) -> None:
    assert reason(result(**said)) == why


def test_what_is_nearly_sure_is_worth_more_than_what_is_nothing() -> None:
    near, far = (doubts(result(detections=[box(score)]), KNOWN, below=0.5, sample=0.0) for score in (0.48, 0.05))
    assert near is not None
    assert far is not None
    assert 0.8 > near.value > far.value > 0.1


def test_the_sample_is_drawn_by_the_id() -> None:
    some = [result(id=f"{number}") for number in range(3000)]
    drawn = [each.id for each in some if reason(each, sample=0.01)]
    assert 10 < len(drawn) < 60
    assert drawn == [each.id for each in some if reason(each, sample=0.01)]
    assert {reason(each, sample=0.01) for each in some} == {None, "sample"}


async def test_a_label_is_new_until_twenty_results_bear_it(tmp_path: Path) -> None:
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    chosen = Doubts(store, ReviewSettings(sample=0.0))
    for _ in range(20):
        one = result(detections=[box(0.9)])
        assert {doubt.reason for doubt in (await chosen.of([one])).values()} == {"new label"}
        await store.save_many([one])
    assert await chosen.of([result(detections=[box(0.9)])]) == {}
    await store.close()
    assert await chosen.of([result(detections=[box(0.9)])]) == {}  # without asking again
