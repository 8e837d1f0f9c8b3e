"""The brush that paints defects: a path, how wide it is along the way, and how well it covers.

Most strokes of real defective boards are solid; others are sketched with several thin lines, hollow, dotted or half dry.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Stroke:
    """What a brush covered: a window's corner and the mask inside it."""

    x: int
    y: int
    mask: Mask


def paint(rng: Rng, points: Points, start: float, end: float | None = None, uneven: float = 0.1) -> Stroke:
    """A brush along a polyline; its radius goes from `start` to `end` and wavers."""
    dense = _dense(points, max(0.7, 0.4 * min(start, start if end is None else end)))
    radii = np.linspace(start, start if end is None else end, len(dense)) * rng.uniform(
        1 - uneven, 1 + uneven, len(dense)
    )
    low = np.floor(dense.min(axis=0) - max(start, end or 0) - 3).astype(int)
    high = np.ceil(dense.max(axis=0) + max(start, end or 0) + 4).astype(int)
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    for (x, y), radius in zip(dense - low, radii, strict=True):
        cv2.circle(mask, (round(x * 16), round(y * 16)), round(max(radius, 0.5) * 16), 1, -1, cv2.LINE_8, 4)
    return Stroke(int(low[0]), int(low[1]), mask.astype(bool))


def _dense(points: Points, step: float) -> Points:
    pieces = [points[:1]]
    for a, b in itertools.pairwise(points):
        count = max(1, math.ceil(float(np.linalg.norm(b - a)) / step))
        pieces.append(a + (b - a) * np.linspace(0, 1, count + 1)[1:, None])
    return np.concatenate(pieces)


def wavy(rng: Rng, start: Points, end: Points, bend: float) -> Points:
    """A hand-drawn line: bent as a whole, and a little unsteady."""
    along = np.linspace(0, 1, max(3, int(np.linalg.norm(end - start) / 7)))
    side = np.array([-(end - start)[1], (end - start)[0]])
    bow = bend * rng.uniform(-1, 1) * np.sin(np.pi * along) + bend * 0.4 * rng.uniform(-1, 1) * np.sin(
        2 * np.pi * along
    )
    shake = rng.normal(0, 0.5, (len(along), 2)) * np.sin(np.pi * along)[:, None]
    return np.asarray(start + along[:, None] * (end - start) + bow[:, None] * side + shake)


def wander(rng: Rng, centre: Points, reach: float) -> Points:
    """A path of one to four turns whose longer side is `reach`, around `centre`: dashes, hooks, S and L shapes."""
    heading = rng.uniform(0, 2 * math.pi) if rng.random() < 0.7 else math.pi / 2 * float(rng.integers(4))
    points = [np.zeros(2)]
    for _ in range(int(rng.choice([1, 2, 3, 4, 6], p=[0.3, 0.27, 0.2, 0.13, 0.1]))):
        step = np.array([math.cos(heading), math.sin(heading)]) * rng.uniform(0.4, 1.0)
        points.append(points[-1] + step)
        heading += rng.normal(0, 1.1)
    path = np.array(points)
    span = np.ptp(path, axis=0).max()
    middle = (path.max(axis=0) + path.min(axis=0)) / 2
    return np.asarray((path - middle) * (reach / max(span, 1e-6)) + centre)


def box(rng: Rng, start: Points, end: Points, width: float) -> Stroke:
    """A bar with square ends, as a cutter or a ruler leaves it."""
    side = np.array([-(end - start)[1], (end - start)[0]])
    side = side / max(float(np.linalg.norm(side)), 1e-6) * width / 2
    corners = np.array([start - side, start + side, end + side, end - side]) + rng.normal(0, 0.6, (4, 2))
    low = np.floor(corners.min(axis=0)).astype(int) - 2
    high = np.ceil(corners.max(axis=0)).astype(int) + 3
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(mask, [np.round((corners - low) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return Stroke(int(low[0]), int(low[1]), mask.astype(bool))


def draw(rng: Rng, points: Points, start: float, end: float | None = None, rough: float = 0.28) -> Stroke:
    """A stroke in one of the brush's manners; `rough` is the chance that it does not cover well."""
    if rng.random() > rough:
        return paint(rng, points, start, end, uneven=float(rng.choice([0.03, 0.12, 0.25], p=[0.4, 0.4, 0.2])))
    if rng.random() < 0.45 and start > 1.5:
        return _sketched(rng, points, start)
    return worn(rng, paint(rng, points, start, end))


def _sketched(rng: Rng, points: Points, radius: float) -> Stroke:
    """Two to four thin lines that follow the path within the brush's width, and meet at its ends."""
    thin, dense = rng.uniform(0.6, 1.5), _dense(points, 3.0)
    fan = np.sin(np.pi * np.linspace(0.08, 0.92, len(dense)))[:, None]
    lines = []
    for _ in range(int(rng.integers(2, 5))):
        aside = rng.normal(0, 0.55, 2) * radius * fan + rng.normal(0, 0.35, (len(dense), 2))
        lines.append(paint(rng, dense + aside, thin, thin * rng.uniform(0.5, 1.2), uneven=0.2))
    return _together(lines)


def _together(strokes: list[Stroke]) -> Stroke:
    x, y = min(s.x for s in strokes), min(s.y for s in strokes)
    right = max(s.x + s.mask.shape[1] for s in strokes)
    bottom = max(s.y + s.mask.shape[0] for s in strokes)
    mask = np.zeros((bottom - y, right - x), bool)
    for s in strokes:
        h, w = s.mask.shape
        mask[s.y - y : s.y - y + h, s.x - x : s.x - x + w] |= s.mask
    return Stroke(x, y, mask)


def worn(rng: Rng, stroke: Stroke) -> Stroke:
    """A stroke that a bad brush left: hollow, dotted, hatched or half dry."""
    manner = WORN[int(rng.choice(len(WORN), p=(0.35, 0.25, 0.15, 0.25)))]
    mask = stroke.mask & manner(rng, stroke.mask)
    return Stroke(stroke.x, stroke.y, mask) if mask.any() else stroke


def _hollow(rng: Rng, mask: Mask) -> Mask:
    """The outline alone, or one outline inside another."""
    inside = _depth(mask)
    rim = rng.uniform(1.2, 3.0)
    rings = inside % (2 * rim + 1) <= rim if rng.random() < 0.5 else inside <= rim
    return rings & (rng.random(mask.shape) < rng.uniform(0.8, 1.0))


def _dotted(rng: Rng, mask: Mask) -> Mask:
    """Dots on a grid, as plus signs or lone pixels."""
    rows, columns = np.indices(mask.shape)
    period = int(rng.integers(3, 6))
    dots = (rows % period == 0) & ((columns + rows // period % 2 * (period // 2)) % period == 0)
    dots &= rng.random(mask.shape) < 0.95
    return np.asarray(cv2.dilate(dots.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))), bool)


def _hatched(rng: Rng, mask: Mask) -> Mask:
    """Lines one pixel apart or more."""
    rows, columns = np.indices(mask.shape)
    across = (rows, columns, rows + columns)[int(rng.integers(3))]
    return np.asarray((across % int(rng.integers(2, 5)) > 0) | (rng.random(mask.shape) < 0.1))


def _dry(rng: Rng, mask: Mask) -> Mask:
    """Thick in the middle and sparse at the rim."""
    inside = _depth(mask)
    drawn = rng.random(mask.shape)
    return np.asarray(drawn < np.clip(inside / max(float(inside.max()), 1.0) + rng.uniform(-0.2, 0.35), 0.15, 1))


def _depth(mask: Mask) -> NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3), np.float32)


WORN: tuple[Callable[[Rng, Mask], Mask], ...] = (_hollow, _dotted, _hatched, _dry)


def solid(mask: Mask) -> Mask:
    """What a stroke would have covered with a good brush: its gaps closed and its holes filled."""
    wide = np.pad(mask, 4).astype(np.uint8)
    closed = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    around, outside = closed.copy(), np.zeros((closed.shape[0] + 2, closed.shape[1] + 2), np.uint8)
    cv2.floodFill(around, outside, (0, 0), 1)
    filled = np.asarray(closed, bool) | (np.asarray(around) == 0)
    return np.asarray(filled[4:-4, 4:-4], bool)
