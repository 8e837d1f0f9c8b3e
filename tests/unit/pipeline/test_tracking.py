"""Which box goes on with which thing."""

from typing import Any

import pytest

from eyeline.pipeline.tracking import Seen, Track, begin, distinct, flow_after, match

STILL = (0.0, 0.0)


def seen(x: float, score: float = 0.9, label: str = "parcel", codes: tuple[str, ...] = (), index: int = 0) -> Seen:
    """A box of 100 × 100 whose left edge is at `x`."""
    return Seen(index, (x, 0.0, x + 100.0, 100.0), label, score, codes)


def moving(x: float, speed: float, **more: Any) -> Track:
    track = begin(seen(x, **more), 0.0, (speed, 0.0))
    track.hits = 5
    return track


def test_a_thing_is_looked_for_where_it_should_be_by_now() -> None:
    track = moving(0, 300)
    assert match([track], [seen(0, index=0), seen(150, index=1)], 0.5, 0.5) == [(0, 1)]
    track.move(seen(150), 0.5)
    assert track.speed == pytest.approx((300, 0))
    assert track.expected(1.0) == (300, 0, 400, 100)


def test_a_new_thing_is_taken_to_move_as_those_before_it_did() -> None:
    assert match([begin(seen(0), 0.0, STILL)], [seen(160)], 0.5, 0.5) == []
    assert match([begin(seen(0), 0.0, (320.0, 0.0))], [seen(160)], 0.5, 0.5) == [(0, 0)]
    assert flow_after(STILL, (300.0, 0.0)) == (300.0, 0.0)
    assert flow_after((300.0, 0.0), (200.0, 0.0)) == (290.0, 0.0)


def test_weak_boxes_choose_last_and_each_box_goes_to_one_thing() -> None:
    tracks = [moving(0, 0), moving(60, 0)]
    assert sorted(match(tracks, [seen(5, 0.2), seen(20, 0.9)], 0.1, 0.5)) == [(0, 1), (1, 0)]
    assert match(tracks, [], 0.1, 0.5) == match([], [seen(0)], 0.1, 0.5) == []


def test_a_barcode_decides_against_overlap() -> None:
    tracks = [moving(0, 0, codes=("A",)), moving(40, 0, codes=("B",))]
    assert sorted(match(tracks, [seen(0, codes=("B",)), seen(40, codes=("A",))], 0.1, 0.5)) == [(0, 1), (1, 0)]
    assert match([tracks[0]], [seen(0, codes=("C",))], 0.1, 0.5) == []


def test_what_is_far_from_where_it_should_be_is_another_thing() -> None:
    assert match([moving(0, 0)], [seen(140)], 0.1, 0.5) == []
    assert match([moving(0, 0)], [seen(102)], 0.1, 0.5) == []  # the next one on the belt
    small = Seen(0, (40.0, 40.0, 60.0, 60.0), "parcel", 0.9)
    assert match([moving(0, 0)], [small], 0.1, 0.5) == [(0, 0)]  # little overlap, the same middle


def test_two_boxes_on_one_thing_are_one_whatever_they_are_called() -> None:
    twice = [seen(0, 0.6, "tote", index=0), seen(4, 0.9, "carton", index=1), seen(80, 0.5, index=2)]
    assert [one.index for one in distinct(twice)] == [1, 2]
    assert distinct([]) == []


def test_a_things_label_is_what_it_was_called_most_surely_and_most_often() -> None:
    track = begin(seen(0, 0.4, "tube"), 0.0, STILL)
    track.move(seen(0, 0.3, "carton"), 0.1)
    assert track.label == "tube"
    track.move(seen(0, 0.9, "carton"), 0.2)
    assert track.label == "carton"
