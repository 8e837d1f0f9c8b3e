"""Which box of this frame is which thing of the frames before: overlap with where each thing should be by now.

The well-known way of SORT and ByteTrack, without their filter: things move on at constant speed; sure boxes choose first,
weak ones may only go on with what is there. Two additions for belts: a new thing is expected to move as the ones before it
did, and a barcode, where one was read, decides.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from eyeline.pipeline.boxes import iou

#: Overlap from which a box continues a thing by overlap alone.
ENOUGH = 0.1
#: Below that, how far its middle may be from where it should be, in diagonals of the larger box.
NEAR = 0.35
#: How much of the newest step goes into a thing's speed, and into that of the camera's flow.
FRESH, FLOW = 0.5, 0.1
#: Overlap from which two boxes of one frame are one thing, whatever a detector calls them.
SAME = 0.45
_SAME_CODE, _SAME_LABEL = 10.0, 0.1

Box = tuple[float, float, float, float]
Speed = tuple[float, float]


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """One box of one frame: its index among the result's detections, label, score, the texts of the codes in it, and what
    classifiers said of it: (step, label, score).
    """

    index: int
    box: Box
    label: str
    score: float
    codes: tuple[str, ...] = ()
    said: tuple[tuple[str, str, float], ...] = ()


class Track(msgspec.Struct):
    """A thing: where it was last, when (Unix seconds), how fast it moves (pixels a second), what it was called with what
    scores in all: a detector that sees a corner of a thing may call it something else.
    """

    box: Box
    last: float
    speed: Speed
    labels: dict[str, float] = msgspec.field(default_factory=dict)
    codes: list[str] = msgspec.field(default_factory=list)
    hits: int = 1

    @property
    def label(self) -> str:
        """What it was called most surely and most often."""
        return max(self.labels, key=lambda label: self.labels[label])

    def expected(self, at: float) -> Box:
        """Where it should be then."""
        x, y = self.speed[0] * (at - self.last), self.speed[1] * (at - self.last)
        return (self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y)

    def move(self, seen: Seen, at: float) -> Speed:
        """It is there now. Returns how fast it moved since it was seen before."""
        past = max(at - self.last, 1e-3)
        old, new = _middle(self.box), _middle(seen.box)
        moved = ((new[0] - old[0]) / past, (new[1] - old[1]) / past)
        self.speed = _blend(self.speed, moved, FRESH if self.hits > 1 else 1.0)
        self.box, self.last, self.hits = seen.box, at, self.hits + 1
        self.labels[seen.label] = round(self.labels.get(seen.label, 0.0) + seen.score, 4)
        self.codes += [code for code in seen.codes if code not in self.codes]
        return moved


def begin(seen: Seen, at: float, flow: Speed) -> Track:
    """A new thing, taken to move with the flow."""
    return Track(seen.box, at, flow, {seen.label: seen.score}, list(seen.codes))


def flow_after(flow: Speed, moved: Speed) -> Speed:
    """The speed at which things usually move here, once one moved so."""
    return _blend(flow, moved, FLOW if flow != (0.0, 0.0) else 1.0)


def distinct(seen: Sequence[Seen]) -> list[Seen]:
    """One box for each thing, the surest: a detector may give one thing two boxes under two labels."""
    ranked = sorted(seen, key=lambda one: -one.score)
    boxes = np.array([one.box for one in ranked], np.float32).reshape(-1, 4)
    overlaps = iou(boxes, boxes)
    kept: list[int] = []
    for index in range(len(ranked)):
        if not any(overlaps[index, other] > SAME for other in kept):
            kept.append(index)
    return [ranked[index] for index in kept]


def match(tracks: Sequence[Track], seen: Sequence[Seen], at: float, sure: float) -> list[tuple[int, int]]:
    """(track, box) pairs, each at most once: boxes of a score from `sure` on choose first, and among them the best fit."""
    if not tracks or not seen:
        return []
    expected = np.array([track.expected(at) for track in tracks], np.float32)
    overlaps = iou(expected, np.array([one.box for one in seen], np.float32))
    pairs = [
        (one.score >= sure, fit, row, column)
        for row, track in enumerate(tracks)
        for column, one in enumerate(seen)
        if (fit := _fit(track, one, float(overlaps[row, column]), tuple(expected[row]))) > 0
    ]
    chosen: dict[int, int] = {}
    for _, _, row, column in sorted(pairs, key=lambda pair: (pair[0], pair[1]), reverse=True):
        if row not in chosen and column not in chosen.values():
            chosen[row] = column
    return list(chosen.items())


def _fit(track: Track, seen: Seen, overlap: float, expected: Box) -> float:
    """How well a box continues a thing; 0: not at all."""
    if track.codes and seen.codes:
        return _SAME_CODE + overlap if set(track.codes) & set(seen.codes) else 0.0
    if overlap >= ENOUGH:
        return overlap + (_SAME_LABEL if seen.label in track.labels else 0.0)
    here, there = _middle(seen.box), _middle(expected)
    reach = NEAR * max(_diagonal(seen.box), _diagonal(expected))
    away = float(np.hypot(here[0] - there[0], here[1] - there[1]))
    return ENOUGH * (1 - away / reach) if away < reach else 0.0


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _diagonal(box: Box) -> float:
    return max(1.0, float(np.hypot(box[2] - box[0], box[3] - box[1])))


def _blend(old: Speed, new: Speed, share: float) -> Speed:
    return (old[0] + share * (new[0] - old[0]), old[1] + share * (new[1] - old[1]))
