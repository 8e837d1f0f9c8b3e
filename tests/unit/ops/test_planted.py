"""Planted, found, missed, false: counted once for each thing, however many frames show it."""

import json
from pathlib import Path
from typing import Any

from eyeline.ops.planted import Clip, Judge


def _clip(folder: Path, frames: list[list[dict[str, Any]]], kind: str) -> Clip:
    path = folder / "truth.jsonl"
    lines = [json.dumps({"frame": n, "time": n * 1.0, kind: things}) for n, things in enumerate(frames)]
    path.write_text("\n".join(lines))
    return Clip(path)


def _parcel(name: str, damaged: bool, x: int = 0) -> dict[str, Any]:
    return {"id": name, "kind": "carton", "box": [x, 0, x + 100, 100], "damaged": damaged, "whole": True}


def _result(x: int, score: float) -> dict[str, Any]:
    inner = [{"label": "damaged", "score": score, "step": "damage"}]
    box = [x + 5, 5, x + 105, 105]
    return {"detections": [{"label": "carton", "score": 0.9, "box": box, "attributes": {"classifications": inner}}]}


def test_a_damaged_parcel_raised_in_enough_frames_is_found_once(tmp_path: Path) -> None:
    judge = Judge(
        _clip(tmp_path, [[_parcel("A", damaged=True)]] * 4, "parcels"), threshold=0.8, needed=2, defects_are_boxes=False
    )
    for second in range(4):
        judge.take(_result(0, 0.9), second, 0)
    assert judge.score.found == {"0/A"}
    assert (judge.score.missed, judge.score.false) == (set(), set())


def test_an_intact_parcel_raised_is_false_once(tmp_path: Path) -> None:
    judge = Judge(
        _clip(tmp_path, [[_parcel("A", damaged=False)]] * 4, "parcels"),
        threshold=0.8,
        needed=1,
        defects_are_boxes=False,
    )
    for second in range(4):
        judge.take(_result(0, 0.9), second, 0)
    assert len(judge.score.false) == 1
    assert judge.score.planted == set()


def test_a_damaged_parcel_that_has_left_unraised_is_missed(tmp_path: Path) -> None:
    frames = [[_parcel("A", damaged=True)], [], [], []]
    judge = Judge(_clip(tmp_path, frames, "parcels"), threshold=0.8, needed=1, defects_are_boxes=False)
    for second in range(4):
        judge.take({"detections": []}, second, 0)
    assert judge.score.missed == {"0/A"}


def test_the_next_lap_plants_anew(tmp_path: Path) -> None:
    judge = Judge(
        _clip(tmp_path, [[_parcel("A", damaged=True)]], "parcels"), threshold=0.8, needed=1, defects_are_boxes=False
    )
    judge.take(_result(0, 0.9), 0, 0)
    judge.take({"detections": []}, 0, 1)
    assert judge.score.planted == {"0/A", "1/A"}
    assert judge.score.found == {"0/A"}


def test_a_board_defect_needs_the_right_label_in_the_right_place(tmp_path: Path) -> None:
    frames = [[{"id": "b1", "label": "short", "box": [0, 0, 20, 20]}]]
    judge = Judge(_clip(tmp_path, frames, "boxes"), threshold=0.5, needed=1, defects_are_boxes=True)
    judge.take({"detections": [{"label": "open", "score": 0.9, "box": [0, 0, 20, 20]}]}, 0, 0)
    assert (judge.score.found, len(judge.score.false)) == (set(), 1)
    judge.take({"detections": [{"label": "short", "score": 0.9, "box": [1, 1, 21, 21]}]}, 0, 0)
    assert judge.score.found == {"0/b1"}


def test_a_code_is_read_once_a_lap_and_one_of_nothing_is_misread(tmp_path: Path) -> None:
    frames = [[_parcel("A", damaged=False), _parcel("B", damaged=False, x=200) | {"whole": False}]] * 3
    judge = Judge(_clip(tmp_path, frames, "parcels"), threshold=0.8, needed=1, defects_are_boxes=False)
    for second, text in enumerate(("A", "A", "B")):
        judge.take({"detections": [], "codes": [{"text": text}]}, second, 0)
    judge.take({"detections": [], "codes": [{"text": "C"}]}, 0, 1)
    assert (judge.score.read, judge.score.misread) == ({"0/A", "0/B"}, {"1/C"})
    assert judge.score.things == {"0/A", "1/A"}  # what is cut off by the border is none yet
