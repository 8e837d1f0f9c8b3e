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


def test_what_lies_in_a_zone_has_its_name_and_nothing_is_dropped_for_lying_in_none() -> None:
    step = RegionStep(
        "lanes", "find", outside=(((0.9, 0), (1, 0), (1, 1), (0.9, 1)),), zones=(("left", HALF), ("all", HOOK))
    )
    tagged = Detection("thing", 0.5, LEFT.box, "find", {"codes": []})
    boxes = [tagged, found(160, 50), found(50, 80), found(110, 80), found(190, 50), found(40, 50, "defects")]
    stay = kept(boxes, step, 200, 100)
    assert [each.attributes.get("zone") for each in stay] == ["left", "all", "left", None, None]
    assert stay[0].attributes == {"codes": [], "zone": "left"}
    assert (tagged.attributes, stay[3:]) == ({"codes": []}, [boxes[3], boxes[5]])


def test_a_polygon_may_be_bent() -> None:
    inside = [contains(HOOK, x, y) for x, y in ((0.2, 0.2), (0.8, 0.8), (0.3, 0.7), (0.59, 0.41))]
    assert inside == [True, True, False, False]
