"""One camera's frames to items, with every way in which frames may come."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from eyeline.core.settings import StepSettings
from eyeline.core.types import Detection, Result
from eyeline.items.camera import CameraItems, Frame, Item, borne, frame_of, written
from eyeline.pipeline.tracking import Seen

STEP = StepSettings(name="follow", kind="track", on="find", min_frames=3)
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
START = NOON.timestamp()


def belt(parcels: int = 3, fps: float = 5.0) -> list[Frame]:
    """Parcels of 100 pixels, 200 apart, that pass a picture of 600 pixels at 200 a second; each code is read twice."""
    frames = []
    for number in range(int(fps * (3 + parcels))):
        at = number / fps
        boxes: list[Seen] = []
        for parcel in range(parcels):
            left = at * 200 - parcel * 200
            if -50 < left < 550:
                codes = (f"P{parcel}",) if 200 < left < 300 else ()
                said = (("damage", "damaged" if parcel == 1 else "intact", 0.9),)
                boxes.append(
                    Seen(len(boxes), (max(0, left), 50, min(600, left + 100), 150), "parcel", 0.9, codes, said)
                )
        frames.append(Frame(START + at, START + at, f"r{number:03d}", tuple(boxes)))
    return frames


def follow(frames: Sequence[Frame], window: float = 2.0) -> tuple[dict[str, Item], CameraItems, int]:
    """Items by id, as the engine would see them; frames come in the order of `frames`."""
    camera, late = CameraItems("site", "belt", "p"), 0
    items: dict[str, Item] = {}
    for frame in frames:
        late += not camera.take(frame)
        items |= {item.id: item for item in camera.release(frame.recorded - window, STEP)}
    items |= {item.id: item for item in camera.release(START + 1e6, STEP)}
    return {name: item for name, item in items.items() if item.track.hits >= STEP.min_frames}, camera, late


def story(items: dict[str, Item]) -> list[Any]:
    return sorted((item.first, item.track.hits, item.track.codes, item.id) for item in items.values())


def test_each_parcel_is_one_item_with_its_code_and_its_damage() -> None:
    items, camera, late = follow(belt())
    assert late == 0
    rows = sorted((camera.row(item) for item in items.values()), key=lambda row: row.first_at)
    assert [row.codes for row in rows] == [("P0",), ("P1",), ("P2",)]
    assert [set(row.labels) - {"parcel"} for row in rows] == [{"intact"}, {"damaged"}, {"intact"}]
    assert all(row.frames > 10 for row in rows)
    assert {row.label for row in rows} == {"parcel"}


def test_frames_out_of_order_give_the_same_items_within_the_window() -> None:
    expected = story(follow(belt())[0])
    rng = random.Random(3)
    mixed = [msgspec.structs.replace(frame, recorded=frame.recorded + rng.random() * 1.9) for frame in belt()]
    mixed.sort(key=lambda frame: frame.recorded)
    assert [frame.result_id for frame in mixed] != [frame.result_id for frame in belt()]
    items, _, late = follow(mixed)
    assert late == 0
    assert story(items) == expected


def test_dropped_frames_and_frames_too_late_break_no_item() -> None:
    rng = random.Random(5)
    thinned = [frame for frame in belt() if rng.random() > 0.4]
    assert len(follow(thinned)[0]) == 3
    frames = belt()
    frames.append(frames.pop(12))  # seen long after
    frames[-1] = msgspec.structs.replace(frames[-1], recorded=frames[-2].recorded + 1)
    items, _, late = follow(frames)
    assert late == 1
    assert len(items) == 3


def test_what_is_remembered_survives_a_restart_at_any_frame() -> None:
    expected = story(follow(belt())[0])
    for cut in range(0, len(belt()), 4):
        camera = CameraItems("site", "belt", "p")
        items: dict[str, Item] = {}
        for number, frame in enumerate(belt()):
            if number == cut:
                camera = msgspec.json.decode(msgspec.json.encode(camera), type=CameraItems)
            camera.take(frame)
            items |= {item.id: item for item in camera.release(frame.recorded - 2.0, STEP)}
        items |= {item.id: item for item in camera.release(START + 1e6, STEP)}
        assert story({name: item for name, item in items.items() if item.track.hits >= 3}) == expected


def test_a_thing_that_left_and_came_back_is_another_item() -> None:
    again = [msgspec.structs.replace(f, captured=f.captured + 60, recorded=f.recorded + 60, result_id="b" + f.result_id)
             for f in belt(1)]  # fmt: skip
    assert len(follow(belt(1) + again)[0]) == 2


def test_a_weak_box_begins_nothing_and_goes_on_with_what_is_there() -> None:
    weak = [msgspec.structs.replace(frame, seen=tuple(msgspec.structs.replace(s, score=0.3) for s in frame.seen))
            for frame in belt(1)]  # fmt: skip
    assert follow(weak)[0] == {}
    (item,) = follow(belt(1)[:3] + weak[3:])[0].values()
    assert item.track.hits == follow(belt(1))[0].popitem()[1].track.hits


def test_sightings_are_told_once() -> None:
    (item,) = follow(belt(1))[0].values()
    told = written(item)
    assert len(told) == item.track.hits
    assert written(item) == []


def test_two_frames_of_one_moment_count_once() -> None:
    frames = belt(1)
    doubled = [
        each for frame in frames for each in (frame, msgspec.structs.replace(frame, result_id=frame.result_id + "x"))
    ]
    (item,) = follow(doubled)[0].values()
    assert item.track.hits == follow(frames)[0].popitem()[1].track.hits


def test_a_label_of_few_frames_is_not_the_items_own() -> None:
    (item,) = follow(belt(1))[0].values()
    item.said = {"damage": {"damaged": 2.0, "intact": item.track.hits - 2.0}}
    assert set(borne(item)) == {"intact"}
    item.said = {"damage": {"damaged": 0.4 * item.track.hits}}
    assert borne(item) == {}


def test_only_boxes_of_the_followed_step_are_seen_and_a_clock_ahead_is_not_believed() -> None:
    attributes = {
        "codes": [{"text": "A", "format": "QRCode"}],
        "classifications": [{"label": "x", "score": 0.7, "step": "s"}],
    }
    result = Result(
        id="r", status="completed", site="s", pipeline="p", camera="c",
        captured_at=NOON + timedelta(hours=1), received_at=NOON, completed_at=NOON,
        detections=[Detection("other", 0.9, (0, 0, 1, 1), "defects"), Detection("box", 0.8, (1, 2, 3, 4), "find", attributes)],
    )  # fmt: skip
    frame = frame_of(result, NOON + timedelta(seconds=1), "find")
    assert (frame.captured, frame.recorded) == (START, START + 1)
    assert frame.seen == (Seen(1, (1, 2, 3, 4), "box", 0.8, ("A",), (("s", "x", 0.7),)),)
