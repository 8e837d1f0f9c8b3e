"""What a demo clip holds, against what was found in it: planted, found, missed and false, counted as a person would.

A defect is found once it is raised in enough frames, missed once it has left the picture and was not; an unblemished
thing raised in enough frames is false, once, however many frames show it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.pipeline.boxes import iou

IOU = 0.33
Box = Sequence[float]


@dataclass(frozen=True)
class Thing:
    """Something in one frame of the clip: a parcel, or a defect on a board. `planted` is the defect's label, or None."""

    id: str
    box: Box
    planted: str | None


@dataclass
class Score:
    """Counts of one camera. `false` holds one entry for each wrongly raised thing; `things` all that were wholly in a picture,
    `read` and `misread` the codes of things that are there, and of none that is.
    """

    seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    planted: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    false: set[str] = field(default_factory=set)
    things: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    misread: set[str] = field(default_factory=set)


class Clip:
    """The ground truth of one clip, by frame."""

    def __init__(self, truth: Path) -> None:
        lines = [json.loads(line) for line in truth.read_text(encoding="utf-8").splitlines() if line]
        self.times = np.array([line["time"] for line in lines])
        self.frames = [_things(line) for line in lines]
        self.ids = {parcel["id"] for line in lines for parcel in line.get("parcels", ())}

    def at(self, seconds: float) -> tuple[int, list[Thing]]:
        """Number and things of the frame that shows `seconds` into the clip."""
        number = int(np.abs(self.times - seconds).argmin())
        return number, self.frames[number]


def _things(line: Mapping[str, Any]) -> list[Thing]:
    if "parcels" in line:
        return [
            Thing(parcel["id"], parcel["box"], "damaged" if parcel["damaged"] else None)
            for parcel in line["parcels"]
            if parcel["whole"]
        ]
    return [Thing(box["id"], box["box"], box["label"]) for box in line["boxes"]]


def raised_boxes(result: Mapping[str, Any], threshold: float, defects_are_boxes: bool) -> list[tuple[str, Box]]:
    """The (label, box) pairs of a result that claim a defect: boxes themselves, or crops that were classified as damaged."""
    detections = result["detections"]
    if defects_are_boxes:
        return [(one["label"], one["box"]) for one in detections if one["score"] >= threshold]
    return [
        ("damaged", one["box"])
        for one in detections
        for inner in one.get("attributes", {}).get("classifications", [])
        if inner["label"] == "damaged" and inner["score"] >= threshold
    ]


class Judge:
    """Scores the results of one camera as they come. `needed` frames must raise a thing before it counts as raised."""

    def __init__(self, clip: Clip, *, threshold: float, needed: int, defects_are_boxes: bool) -> None:
        self._clip = clip
        self._threshold = threshold
        self._needed = needed
        self._boxes = defects_are_boxes
        self._hits: dict[str, int] = defaultdict(int)
        self._last: dict[str, float] = {}
        self.score = Score()

    def take(self, result: Mapping[str, Any], position: float, lap: int) -> None:
        """Judge one completed result of the frame `position` seconds into lap `lap` of the clip."""
        _, things = self._clip.at(position)
        claims = raised_boxes(result, self._threshold, self._boxes)
        matched = _match([box for _, box in claims], [thing.box for thing in things])
        for code in result.get("codes", ()):
            (self.score.read if code["text"] in self._clip.ids else self.score.misread).add(f"{lap}/{code['text']}")
        for thing in things:
            self.score.things.add(f"{lap}/{thing.id}")
            if thing.planted:
                self.score.planted.add(f"{lap}/{thing.id}")
        raised: set[str] = set()
        for number, (label, box) in enumerate(claims):
            index = matched.get(number)
            hit = None if index is None else things[index]
            right = hit is not None and hit.planted is not None and (not self._boxes or hit.planted == label)
            name = _place(label, box, position, self._boxes) if hit is None else hit.id
            raised.add(f"{lap}/{name}" if right else f"{lap}/{name}/false")
        self._count(raised)
        now = lap * 1e6 + position
        for thing in things:
            self._last[f"{lap}/{thing.id}"] = now
        self._close(now)

    def _count(self, raised: set[str]) -> None:
        for name in raised:
            self._hits[name] += 1
            if self._hits[name] >= self._needed:
                (self.score.false if name.endswith("/false") else self.score.found).add(name)

    def _close(self, now: float) -> None:
        """What was last seen over two seconds ago has left the picture."""
        for name in self.score.planted - self.score.found - self.score.missed:
            if now - self._last.get(name, now) > 2.0:
                self.score.missed.add(name)
        self.score.missed -= self.score.found


def _match(claims: Sequence[Box], truths: Sequence[Box]) -> dict[int, int]:
    """Claim number → truth number, best overlap first, each used once."""
    if not claims or not truths:
        return {}
    overlaps = iou(np.asarray(claims, np.float32), np.asarray(truths, np.float32))
    pairs: dict[int, int] = {}
    for flat in np.argsort(-overlaps, axis=None):
        claim, truth = divmod(int(flat), len(truths))
        if overlaps[claim, truth] < IOU:
            break
        if claim not in pairs and truth not in pairs.values():
            pairs[claim] = truth
    return pairs


def _place(label: str, box: Box, position: float, standing: bool) -> str:
    """A name for a claim that matches nothing: its place on a standing board, or its second on a moving belt."""
    if standing:
        return f"{label}@{int(box[0]) // 16},{int(box[1]) // 16}@{position:.0f}"
    return f"belt@{position:.0f}"
