"""Regions of interest: boxes by where their middle lies."""

from eyeline.core.types import Detection
from eyeline.pipeline.region import RegionStep, contains, kept

HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
HOOK = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 1.0), (0.6, 0.4), (0.0, 0.4))


def found(x: float, y: float, step: str = "find") -> Detection:
    """A box round a point, in pixels of a 200 × 100 picture."""
    return Detection("thing", 0.5, (x - 5, y - 5, x + 5, y + 5), step)


LEFT, RIGHT = found(40, 50), found(160, 50)


def test_boxes_whose_middle_lies_outside_are_dropped() -> None:
    assert kept([LEFT, RIGHT], RegionStep("belt", inside=(HALF,)), 200, 100) == [LEFT]
    assert kept([LEFT, RIGHT], RegionStep("belt", outside=(HALF,)), 200, 100) == [RIGHT]
    assert kept([LEFT, RIGHT], RegionStep("belt", inside=(HALF,), outside=(HALF,)), 200, 100) == []


def test_other_steps_boxes_stay_where_one_is_named() -> None:
    other = found(160, 50, "defects")
    assert kept([LEFT, RIGHT, other], RegionStep("belt", "find", (HALF,)), 200, 100) == [LEFT, other]


def test_a_polygon_may_be_bent() -> None:
    inside = [contains(HOOK, x, y) for x, y in ((0.2, 0.2), (0.8, 0.8), (0.3, 0.7), (0.59, 0.41))]
    assert inside == [True, True, False, False]
