"""What is remembered of a camera's pictures, and when its answers are not reused any more."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from eyeline.core.settings import CameraSettings
from eyeline.core.types import BlobRef, Classification, Code, Detection, Job, Result
from eyeline.pipeline.near import Signature
from eyeline.worker.near import FRESH, LEAST, WINDOW, NearDuplicates, agree, is_sample

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
PLAIN, SAMPLE = f"{1:036x}", f"{50:036x}"


def job(camera: str = "belt", ident: str = PLAIN, **words: Any) -> Job:
    values: dict[str, Any] = {
        "site": "north",
        "pipeline": "p",
        "lane": "live",
        "blob": BlobRef("north/x", 1, "x"),
    } | words
    return Job(id=ident, camera=camera, received_at=NOON, captured_at=NOON, **values)


def answer(camera: str = "belt", **words: Any) -> Result:
    values: dict[str, Any] = {
        "id": "r",
        "status": "completed",
        "site": "north",
        "pipeline": "p",
        "camera": camera,
    } | words
    return Result(captured_at=NOON, received_at=NOON, completed_at=NOON, **values)


def grey(level: int) -> Signature:
    return np.full((48, 64, 3), level, np.uint8)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Events:
    """A result store that only takes events."""

    told: list[tuple[str, str]] = field(default_factory=list)

    async def add_event(self, kind: str, site: str, body: dict[str, Any]) -> None:
        self.told.append((body["health"], body["state"]))


@pytest.fixture
def near() -> NearDuplicates:
    cameras = [CameraSettings(name=name, url="synthetic://", near_duplicates=48) for name in ("belt", "dock")]
    return NearDuplicates([*cameras, CameraSettings(name="other", url="synthetic://")], Clock())


def test_only_cameras_that_ask_for_it_and_no_replay(near: NearDuplicates) -> None:
    assert [near.wanted(job(name)) for name in ("belt", "dock", "other")] == [True, True, False]
    assert not near.wanted(job(replay_of="x"))


def test_compared_is_with_what_the_models_saw_under_the_same_plan_not_long_ago(near: NearDuplicates) -> None:
    near.learn(job(), "plan", grey(100), answer())
    match = near.look(job(), "plan", grey(104))
    assert match is not None
    assert (match.distance, match.limit, match.reuse) == (4, 5, True)
    assert near.look(job(), "plan", grey(105)) is None
    assert near.look(job(), "other plan", grey(100)) is None
    assert near.look(job("dock"), "plan", grey(100)) is None
    assert near.look(job(site="south"), "plan", grey(100)) is None
    assert near.look(job(pipeline="q"), "plan", grey(100)) is None
    assert near.look(job(), "plan", grey(100)[:20]) is None
    cast("Clock", near._clock).now = FRESH + 1
    assert near.look(job(), "plan", grey(100)) is None


def test_what_is_remembered_is_bounded_and_is_a_copy(near: NearDuplicates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.worker.near.ROOM", 100_000)
    large = np.full((34, 1000, 3), 7, np.uint8)
    near.learn(job(), "plan", large, answer())
    large[:] = 0
    near.learn(job("dock"), "plan", grey(1), answer())
    assert near.look(job(), "plan", large) is None
    assert near.look(job("dock"), "plan", grey(1)) is not None
    near.learn(job(), "plan", seen := grey(9), answer())
    seen[:] = 200
    assert near.look(job(), "plan", grey(9)) is not None


def test_one_of_fifty_is_checked_the_same_for_the_same_id(near: NearDuplicates) -> None:
    near.learn(job(), "plan", grey(100), answer())
    match = near.look(job(ident=SAMPLE), "plan", grey(100))
    assert match is not None
    assert not match.reuse
    assert sum(is_sample(f"{number:036x}") for number in range(5000)) == 100


async def test_where_the_models_disagree_too_often_nothing_is_reused_until_they_agree_again(
    near: NearDuplicates,
) -> None:
    store, good, bad = Events(), answer(), answer(classifications=[Classification("damaged", 0.9, "look")])
    near.learn(job(), "plan", grey(100), good)
    match = near.look(job(), "plan", grey(100))
    assert match is not None
    for _ in range(LEAST - 1):
        await near.check(cast("Any", store), match, bad)
    assert store.told == []
    await near.check(cast("Any", store), match, bad)
    assert store.told == [("reuse", "began")]
    shown = near.look(job(), "plan", grey(100))
    assert shown is not None
    assert not shown.reuse
    for _ in range(WINDOW):
        await near.check(cast("Any", store), match, good)
    assert store.told == [("reuse", "began"), ("reuse", "ended")]
    reused = near.look(job(), "plan", grey(100))
    assert reused is not None
    assert reused.reuse


BOX = Detection(
    "carton",
    0.9,
    (10.0, 10.0, 50.0, 50.0),
    "find",
    {"classifications": [{"label": "whole", "score": 0.8, "step": "d"}]},
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        (
            {"detections": [BOX]},
            {"detections": [msgspec.structs.replace(BOX, score=0.7, box=(11.0, 10.0, 51.0, 50.0))]},
            True,
        ),
        ({"detections": [BOX]}, {"detections": []}, False),
        ({"detections": []}, {"detections": [BOX]}, False),
        ({"detections": [msgspec.structs.replace(BOX, score=0.4)]}, {"detections": []}, True),
        ({"detections": [BOX]}, {"detections": [msgspec.structs.replace(BOX, label="bag")]}, False),
        ({"detections": [BOX]}, {"detections": [msgspec.structs.replace(BOX, box=(60.0, 10.0, 90.0, 50.0))]}, False),
        (
            {"detections": [BOX]},
            {
                "detections": [
                    msgspec.structs.replace(
                        BOX, attributes={"classifications": [{"label": "damaged", "score": 0.6, "step": "d"}]}
                    )
                ]
            },
            False,
        ),
        ({"codes": [Code("1", "QRCode", (0.0, 0.0, 1.0, 1.0))]}, {"codes": []}, False),
    ],
)
def test_answers_agree_where_they_say_the_same(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert agree(answer(**one), answer(**other)) is same
