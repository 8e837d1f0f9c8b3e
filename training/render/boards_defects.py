"""The six defects, painted on a binary board: each is a brush stroke that changes the copper's topology as its name says.

A stroke is tried where the board's geometry allows one (across a conductor, over a gap, at an edge, in the open) and kept
only if counting connected pieces before and after proves what it did, so the truth is exact. The proof is of the stroke as
a good brush would have covered it: people call an open that leaves a speck of copper an open, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import boards_brush as brush
from training.render.boards_brush import Stroke

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Rng = np.random.Generator

LABELS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
#: How far the people who label such boards draw their boxes from what they see: left, top, right, bottom, in pixels.
MARGINS = (11, 11, 8, 8)
REACH = 110.0  # the widest conductor or gap that a stroke crosses
EDGE, RIM = 8, 7  # how far strokes stay from the picture's edge; what is looked at around one
SPECK = 8  # pieces smaller than this many pixels count for nothing


@dataclass(frozen=True)
class Planted:
    """A defect: its label, its box as a person would draw it, and the box of the stroke itself (xyxy)."""

    label: str
    box: tuple[int, int, int, int]
    stroke: tuple[int, int, int, int]


class Ground:
    """A binary board with what the painters need to know of it: distances and outward directions."""

    def __init__(self, copper: Mask) -> None:
        self.copper = copper.copy()
        solid = copper.astype(np.uint8)
        self.depth = np.asarray(cv2.distanceTransform(solid, cv2.DIST_L2, 3), np.float32)
        self.room = np.asarray(cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3), np.float32)
        soft = cv2.GaussianBlur(solid * np.float32(255), (0, 0), 2.5)
        self.slope = np.stack([-cv2.Sobel(soft, cv2.CV_32F, 1, 0), -cv2.Sobel(soft, cv2.CV_32F, 0, 1)], axis=2)
        rim = (self.depth > 0) & (self.depth < 1.5)
        rim[:14], rim[-14:], rim[:, :14], rim[:, -14:] = False, False, False, False
        self.rim = np.argwhere(rim)[:, ::-1]
        self.holes = _holes(copper)

    def edge(self, rng: Rng) -> tuple[Points, Points] | None:
        """A random point on the copper's edge and the unit vector that leads out of the copper."""
        if not len(self.rim):
            return None
        x, y = self.rim[rng.integers(len(self.rim))]
        out = self.slope[y, x].astype(np.float64)
        length = float(np.linalg.norm(out))
        return (np.array([x, y], np.float64), out / length) if length > 20 else None

    def run(self, start: Points, ahead: Points, *, copper: bool) -> float | None:
        """How far from `start` the board stays copper (or bare); None beyond the reach or the picture."""
        steps = np.arange(1.5, REACH, 0.75)
        spots = np.round(start + steps[:, None] * ahead).astype(int)
        if (spots[0] < 0).any() or (spots[0] >= len(self.copper)).any():
            return None
        inside = np.asarray(((spots >= 0) & (spots < len(self.copper))).all(axis=1))
        clipped = np.clip(spots, 0, len(self.copper) - 1)
        other = np.asarray(self.copper[clipped[:, 1], clipped[:, 0]] != copper) & (steps > 3)
        first = int(other.argmax())
        return float(steps[first]) if other.any() and inside[first] else None


def _holes(copper: Mask) -> Mask:
    """Drilled holes: small bare areas that copper encloses. Copper seldom grows in them."""
    _, names, stats, _ = cv2.connectedComponentsWithStats((~copper).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < 7000
    small[0] = False  # the copper itself
    return np.asarray(small[names])


def _bare_copper(rng: Rng, ground: Ground) -> Stroke | None:
    return _alone(rng, ground.room, 4, 0.15)


def _pin_hole(rng: Rng, ground: Ground) -> Stroke | None:
    return _alone(rng, ground.depth, 2, 0.38)


def _alone(rng: Rng, distance: NDArray[np.float32], clear: float, rough: float) -> Stroke | None:
    """A spot in the open, as large as people paint them or as the room allows."""
    x, y = rng.integers(12, len(distance) - 12, 2)
    for _ in range(6):
        if distance[y, x] > 0:
            break
        x, y = rng.integers(12, len(distance) - 12, 2)
    free = float(distance[y, x]) - clear
    if free < 2.5:
        return None
    half = min(_half(rng), free)
    centre = np.array([x, y], np.float64)
    if rng.random() < 0.16:  # a clean disc, or nearly
        points = centre + rng.normal(0, 0.12, (2, 2)) * half
        return brush.draw(rng, points, min(half * 0.8, 13), rough=rough / 2)
    radius = min(rng.uniform(1.8, 6.5) * rng.choice([1.0, 1.0, 1.5]), half * rng.uniform(0.3, 0.9))
    path = brush.wander(rng, centre, max(2 * (half - radius), 0.5))
    tail = radius * rng.choice([1.0, 0.3, 0.6, 1.4], p=[0.6, 0.13, 0.17, 0.1])
    return brush.draw(rng, path, radius, tail, rough=rough)


def _half(rng: Rng) -> float:
    """Half the length of a stroke in the open: mostly 5 to 19 pixels."""
    return float(np.clip(rng.lognormal(2.2, 0.42), 3.5, 32))


def _at_edge(rng: Rng, ground: Ground, inward: bool) -> Stroke | None:
    """A stroke that starts beyond an edge and ends on its other side."""
    found = ground.edge(rng)
    if found is None:
        return None
    point, out = found
    ahead = -out if inward else out
    far = ground.run(point if inward else point + out, ahead, copper=inward) or REACH
    depth = min(_deep(rng), far - 1.5 if inward else far - 3.5)
    if depth < 3:
        return None
    aim, rough = _turned(ahead, rng.normal(0, 0.6)), 0.38 if inward else 0.14
    if rng.random() < 0.3:  # a bulge or a dent along the edge
        radius = min(rng.uniform(3, 13), max(depth * 0.75, 2.0))
        along = np.array([-out[1], out[0]]) * rng.uniform(0, 10)
        centre = point + aim * (depth - radius)
        return brush.draw(rng, np.array([centre - along, centre + along]), radius, rough=rough / 2)
    if rng.random() < 0.3:  # along the picture's axes, as a mouse is moved
        aim = np.sign(aim) * (np.abs(aim) == np.abs(aim).max())
    radius = min(rng.uniform(1.6, 5.5), max(depth * 0.6, 1.3))
    tail = radius * rng.uniform(0.3, 1.4)
    path = brush.wavy(
        rng, point - aim * rng.uniform(0, 5), point + aim * max(depth - tail, 1.5), rng.choice([0.05, 0.45])
    )
    return brush.draw(rng, path, radius, tail, rough=rough)


def _deep(rng: Rng) -> float:
    return float(np.clip(rng.lognormal(2.45, 0.5), 4, 44))


def _turned(v: Points, angle: float) -> Points:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([v[0] * c - v[1] * s, v[0] * s + v[1] * c])


def _across(rng: Rng, ground: Ground, copper: bool) -> Stroke | None:
    """A stroke across a conductor (`copper`) or over the gap between two."""
    found = ground.edge(rng)
    if found is None:
        return None
    point, out = found
    slant = rng.normal(0, 0.12) if rng.random() < 0.55 else rng.normal(0, 0.6)
    ahead = _turned(-out if copper else out, slant)
    far = ground.run(point if copper else point + out, ahead, copper=copper)
    if far is None or far < 3.5 or rng.random() > 1.25 - far / 90:  # far crossings are rarer
        return None
    beyond = rng.uniform(0.5, 3.5, 2)
    start, end = point - ahead * beyond[0], point + ahead * (far + beyond[1] + (0 if copper else 1))
    return _cut(rng, start, end, far) if copper else _bridge(rng, start, end, far)


def _cut(rng: Rng, start: Points, end: Points, far: float) -> Stroke:
    if rng.random() < 0.2:  # a gap with square edges
        return brush.box(rng, start, end, rng.uniform(3, 14))
    if far < 24 and rng.random() < 0.3:  # one dab, which leaves round ends
        return brush.draw(rng, np.array([start, end]), rng.uniform(3, 9), rough=0.15)
    slim = rng.uniform(1.2, 4.2) if far > 14 else rng.uniform(1.5, 6.5)
    bend = 0.0 if rng.random() < 0.35 else rng.uniform(0.03, 0.3)
    path = brush.wavy(rng, start, end, bend)
    if rng.random() < 0.06:  # crossed out
        return brush.draw(rng, np.concatenate([path, path[::-1] + rng.normal(0, far / 5, 2)]), rng.uniform(0.7, 1.6))
    return brush.draw(rng, path, slim, slim * rng.uniform(0.6, 1.5), rough=0.38)


def _bridge(rng: Rng, start: Points, end: Points, far: float) -> Stroke:
    if far < 22 and rng.random() < 0.18:  # a channel filled over some length
        return brush.box(rng, start, end, rng.uniform(8, 40))
    if rng.random() < 0.3:
        return brush.box(rng, start, end, rng.uniform(3, 11))
    slim = rng.uniform(1.6, 5.5)
    path = brush.wavy(rng, start, end, 0.0 if rng.random() < 0.4 else rng.uniform(0.03, 0.35))
    return brush.draw(rng, path, slim, slim * rng.uniform(0.6, 1.6), rough=0.13)


#: How each defect is tried, whether it adds copper, and what it must do to the pieces of (copper, bare board).
PAINTERS: dict[str, tuple[Callable[[Rng, Ground], Stroke | None], bool]] = {
    "open": (lambda rng, ground: _across(rng, ground, copper=True), False),
    "short": (lambda rng, ground: _across(rng, ground, copper=False), True),
    "mousebite": (lambda rng, ground: _at_edge(rng, ground, inward=True), False),
    "spur": (lambda rng, ground: _at_edge(rng, ground, inward=False), True),
    "copper": (_bare_copper, True),
    "pin-hole": (_pin_hole, False),
}
LEAST = {"open": 20, "short": 20, "mousebite": 20, "spur": 28, "copper": 22, "pin-hole": 14}  # changed pixels


def plant(rng: Rng, copper: Mask, wanted: list[str], apart: float = 34.0) -> tuple[Mask, list[Planted]]:
    """Paint the `wanted` defects where there is a place for them; return the changed board and what was planted."""
    ground, planted = Ground(copper), list[Planted]()
    taken = np.zeros((0, 2))
    for label in wanted:
        for _ in range(30):
            stroke = PAINTERS[label][0](rng, ground)
            done = _apply(ground, stroke, label, taken, apart) if stroke is not None else None
            if done is not None:
                planted.append(done)
                x1, y1, x2, y2 = done.stroke
                along = np.linspace(0, 1, 3)[:, None]
                taken = np.vstack([taken, np.array([x1, y1]) + along * np.array([x2 - x1, y2 - y1])])
                break
    return ground.copper, planted


def _apply(ground: Ground, stroke: Stroke, label: str, taken: Points, apart: float) -> Planted | None:
    size, (h, w) = len(ground.copper), stroke.mask.shape
    if min(stroke.x, stroke.y) < EDGE or max(stroke.x + w, stroke.y + h) > size - EDGE:
        return None
    window = np.s_[stroke.y - RIM : stroke.y + h + RIM, stroke.x - RIM : stroke.x + w + RIM]
    before = ground.copper[window]
    full, meant = np.pad(stroke.mask, RIM), np.pad(brush.solid(stroke.mask), RIM)
    adds = PAINTERS[label][1]
    after, proof = (before | full, before | meant) if adds else (before & ~full, before & ~meant)
    if (after != before).sum() < LEAST[label] or not _proven(label, before, proof, meant):
        return None
    if adds and ground.holes[window][full].any() and stroke.x % 6:
        return None  # five of six: see _holes
    box = _seen(after != before, full, (stroke.x - RIM, stroke.y - RIM))
    nearest = np.clip(taken, box[:2], box[2:])
    if len(taken) and np.linalg.norm(taken - nearest, axis=1).min() < apart:
        return None
    ground.copper[window] = after
    left, top, right, bottom = MARGINS
    drawn = (max(box[0] - left, 0), max(box[1] - top, 0), min(box[2] + right, size), min(box[3] + bottom, size))
    return Planted(label, drawn, box)


def _seen(changed: Mask, stroke: Mask, corner: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of what can be seen of a stroke: what it changed, and what it covered within two pixels of that."""
    ys, xs = np.nonzero(stroke & _wider(changed, 2))
    x, y = corner
    return int(xs.min()) + x, int(ys.min()) + y, int(xs.max()) + 1 + x, int(ys.max()) + 1 + y


def _proven(label: str, before: Mask, after: Mask, stroke: Mask) -> bool:
    copper = _pieces(after) - _pieces(before)
    bare = _pieces(~after) - _pieces(~before)
    if label == "open":
        return copper > 0 or bare < 0
    if label == "short":
        return copper < 0 or bare > 0
    if label == "copper":
        return copper > 0 and bare >= 0 and not before[_wider(stroke, 2)].any()
    if label == "pin-hole":
        return bare > 0 and copper >= 0 and bool(before[_wider(stroke, 1)].all())
    if label == "spur":
        wide = before | _wider(stroke, 1)
        return copper == 0 and bare == 0 and _pieces(wide) == _pieces(before)
    return copper == 0 and bare == 0


def _wider(mask: Mask, by: int) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)), bool)


def _pieces(mask: Mask) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return int((stats[1:, cv2.CC_STAT_AREA] >= SPECK).sum())
