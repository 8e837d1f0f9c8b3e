"""The copper of a bare circuit board before any defect: traces, pads, vias, planes, as a mask with soft edges.

Everything is drawn on a uint8 sheet (255 = copper) about 48 pixels to the millimetre. New copper goes only where it keeps
its distance from what is there, unless it belongs to it (a pad at a trace's end).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Sheet = NDArray[np.uint8]
Points = NDArray[np.float64]
Rng = np.random.Generator

GRID = 4  # pixels between points where room is measured
SHIFT = 4  # cv2 draws at a sixteenth of a pixel
COPPER, BARE = 255, 0


@dataclass
class Layout:
    """A sheet being drawn on. `size` is its side in pixels."""

    rng: Rng
    size: int

    def __post_init__(self) -> None:
        self.sheet: Sheet = np.zeros((self.size, self.size), np.uint8)

    def room(self) -> NDArray[np.float32]:
        """Distance from the nearest copper, on a grid of every fourth pixel."""
        free = cv2.resize(self.sheet, None, fx=1 / GRID, fy=1 / GRID, interpolation=cv2.INTER_AREA) < 24
        far = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 3)
        return np.asarray(np.minimum(far, self.size) * GRID, np.float32)

    def spot(self, radius: float) -> tuple[float, float] | None:
        """A point with `radius` of room around it, or None where the board is full."""
        spots = np.argwhere(self.room() > radius)
        if not len(spots):
            return None
        y, x = spots[self.rng.integers(len(spots))] * GRID + self.rng.uniform(0, GRID, 2)
        return float(x), float(y)

    def line(self, points: Points, width: float, value: int = COPPER) -> None:
        """A polyline of any width; joints and ends are round."""
        fixed = np.round(points * 2**SHIFT).astype(np.int32)
        cv2.polylines(self.sheet, [fixed], False, value, max(1, round(width)), cv2.LINE_AA, SHIFT)

    def trace(self, points: Points, width: float, value: int = COPPER) -> None:
        """A polyline with square ends and mitred corners: its true outline is filled."""
        left, right = offset(points, width / 2), offset(points, -width / 2)
        self.fill(np.concatenate([left, right[::-1]]), value)

    def fill(self, points: Points, value: int = COPPER) -> None:
        """A filled polygon."""
        cv2.fillPoly(self.sheet, [np.round(points * 2**SHIFT).astype(np.int32)], value, cv2.LINE_AA, SHIFT)

    def disc(self, x: float, y: float, radius: float, value: int = COPPER, flat: float = 1.0) -> None:
        """A filled circle, or an ellipse whose height is `flat` times its width."""
        centre = (round(x * 2**SHIFT), round(y * 2**SHIFT))
        axes = (round(radius * 2**SHIFT), round(radius * flat * 2**SHIFT))
        cv2.ellipse(self.sheet, centre, axes, 0, 0, 360, value, -1, cv2.LINE_AA, SHIFT)

    def box(
        self, x: float, y: float, w: float, h: float, corner: float = 0.0, turn: float = 0.0, value: int = COPPER
    ) -> None:
        """A rectangle around (x, y), with round corners and turned by `turn` radians."""
        outline = rounded(w, h, corner)
        c, s = math.cos(turn), math.sin(turn)
        self.fill(outline @ np.array([[c, s], [-s, c]]) + [x, y], value)


def rounded(w: float, h: float, corner: float) -> Points:
    """The outline of a rectangle around the origin with round corners."""
    r = min(corner, w / 2, h / 2)
    if r < 1:
        return np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    angles = np.linspace(0, np.pi / 2, 7)
    arc = np.stack([np.cos(angles), np.sin(angles)], 1) * r + [w / 2 - r, h / 2 - r]
    return np.concatenate([arc, arc[::-1] * [-1, 1], -arc, arc[::-1] * [1, -1]])


def offset(points: Points, distance: float) -> Points:
    """A polyline moved sideways, with mitred corners."""
    steps = np.diff(points, axis=0)
    normals = np.stack([-steps[:, 1], steps[:, 0]], 1) / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)
    before, after = np.vstack([normals[:1], normals]), np.vstack([normals, normals[-1:]])
    mitre = (before + after) / (1 + (before * after).sum(axis=1, keepdims=True)).clip(0.3)
    return np.asarray(points + distance * mitre)


def walk(
    layout: Layout, half: float, start: tuple[float, float] | None, heading: int, sharp: float = 0.15
) -> Points | None:
    """A path in eighths of a turn through free room, `half` wide to each side; None where there is no room for one."""
    rng, room = layout.rng, layout.room()
    found = start or layout.spot(half + 4)
    if found is None:
        return None
    points = [np.array(found)]
    least = max(18.0, 2.2 * half)
    for _ in range(int(rng.integers(2, 9))):
        angle = heading * math.pi / 4
        ahead = np.array([math.cos(angle), math.sin(angle)])
        free = _free(room, points[-1], ahead, float(rng.uniform(least, least + 260)), half)
        if free < least:
            break
        points.append(points[-1] + ahead * free)
        turn = 2 if rng.random() < sharp else 1
        heading = (heading + (turn if rng.random() < 0.5 else -turn)) % 8
    return np.array(points) if len(points) > 1 else None


def _free(room: NDArray[np.float32], start: Points, ahead: Points, reach: float, half: float) -> float:
    steps = np.arange(6.0, reach, 6.0)
    spots = np.round(start + steps[:, None] * ahead).astype(int)
    inside = (spots >= -40).all(axis=1) & (spots < len(room) * GRID + 40).all(axis=1)
    clipped = np.clip(spots // GRID, 0, len(room) - 1)
    good = inside & ((room[clipped[:, 1], clipped[:, 0]] > half) | (steps < half))
    stop = int(good.argmin()) if not good.all() else len(steps)
    return float(steps[stop - 1]) if stop else 0.0


def bundle(layout: Layout, width: float, gap: float, count: int) -> None:
    """Parallel traces, each ending a little elsewhere, in a pad, a via or nothing."""
    rng = layout.rng
    half = (count * width + (count - 1) * gap) / 2 + gap
    edge = rng.random() < 0.35
    start = _edge_start(layout) if edge else None
    path = walk(layout, half, start[0] if start else None, start[1] if start else int(rng.integers(8)))
    if path is None:
        return
    square = rng.random() < 0.6
    for i in range(count):
        lane = _shorten(rng, offset(path, (i - (count - 1) / 2) * (width + gap)), 0.0 if count == 1 else 60.0)
        (layout.trace if square else layout.line)(lane, width)
        if count == 1 and rng.random() < 0.25:  # a trace that is wider over a part
            first = int(rng.integers(len(lane) - 1))
            layout.trace(lane[first : first + 2], width * rng.uniform(1.2, 1.7))
        for end in (lane[0], lane[-1]):
            _ending(layout, end, width, gap, single=count == 1)


def _edge_start(layout: Layout) -> tuple[tuple[float, float], int]:
    side, along = int(layout.rng.integers(4)), float(layout.rng.uniform(0, layout.size))
    spots = ((0.0, along), (along, 0.0), (layout.size - 1.0, along), (along, layout.size - 1.0))
    return spots[side], (0, 2, 4, 6)[side]


def _shorten(rng: Rng, path: Points, most: float) -> Points:
    path = path.copy()
    for end, inner in ((0, 1), (-1, -2)):
        step = path[end] - path[inner]
        length = float(np.linalg.norm(step))
        path[end] -= step / max(length, 1e-6) * min(rng.uniform(0, most), 0.7 * length)
    return path


def _ending(layout: Layout, end: Points, width: float, gap: float, *, single: bool) -> None:
    rng, (x, y) = layout.rng, end
    choice = rng.random()
    if choice < (0.25 if single else 0.55):
        return
    radius = width * rng.uniform(0.8, 2.2) if single else width / 2 + gap * rng.uniform(0.1, 0.55)
    radius = max(radius, width * 0.6)
    if choice < 0.75:
        layout.disc(x, y, radius, flat=rng.choice([1.0, 1.0, 0.8, 1.25]))
        if radius > 12 and rng.random() < 0.6:
            layout.disc(x, y, radius * rng.uniform(0.3, 0.7), BARE)
    else:
        w, h = radius * rng.uniform(1.6, 2.4), radius * rng.uniform(1.6, 2.4)
        layout.box(x, y, w, h, rng.choice([0, 0, 5, 10]))


def round_pads(layout: Layout) -> None:
    """Round or oval pads, drilled or not, alone or in a row or grid."""
    rng = layout.rng
    radius = float(rng.choice([rng.uniform(7, 14), rng.uniform(14, 30), rng.uniform(30, 60)], p=[0.3, 0.5, 0.2]))
    hole = radius * rng.uniform(0.3, 0.8) if rng.random() < 0.6 and radius > 11 else 0.0
    flat = float(rng.choice([1.0, 1.0, 0.75, 1.3]))
    slack = rng.uniform(-0.12, 0.12, 2) * radius  # the drill rarely hits the middle
    for x, y in _places(layout, radius * max(flat, 1) + 8):
        layout.disc(x, y, radius, flat=flat)
        if hole:
            layout.disc(x + slack[0], y + slack[1], hole, BARE)


def _places(layout: Layout, radius: float) -> list[tuple[float, float]]:
    rng = layout.rng
    first = layout.spot(radius)
    if first is None:
        return []
    columns, rows = (int(v) for v in rng.choice([1, 1, 2, 3, 4, 6], 2))
    pitch = radius * rng.uniform(2.05, 2.9)
    room = layout.room()
    spots = [(first[0] + i * pitch, first[1] + j * pitch) for i in range(columns) for j in range(rows)]
    limit = layout.size - 1
    return [(x, y) for x, y in spots if x <= limit and y <= limit and room[int(y) // GRID, int(x) // GRID] > radius]


def square_pads(layout: Layout) -> None:
    """Rectangular pads in rows, some with round corners, some turned by an eighth."""
    rng = layout.rng
    w, h = rng.uniform(16, 70), rng.uniform(16, 70)
    corner = float(rng.choice([0, 0, 6, 14]))
    turn = float(rng.choice([0, 0, 0, math.pi / 4]))
    hole = min(w, h) * rng.uniform(0.15, 0.35) if rng.random() < 0.25 else 0.0
    linked = rng.random() < 0.3
    places = _places(layout, math.hypot(w, h) / 2 + 6)
    for x, y in places:
        layout.box(x, y, w, h, corner, turn)
        if hole:
            layout.disc(x, y, hole, BARE)
    if linked and len(places) > 1:
        layout.line(np.array(places[:2]), rng.uniform(6, min(w, h) * 0.6))


def fingers(layout: Layout) -> None:
    """A row of long pads, as under a chip; neighbours are joined now and then."""
    rng = layout.rng
    width, length, count = rng.uniform(8, 24), rng.uniform(40, 130), int(rng.integers(3, 12))
    pitch = width * rng.uniform(1.5, 2.5)
    start = layout.spot(length / 2 + 8)
    if start is None:
        return
    room, upright = layout.room(), rng.random() < 0.5
    corner = width / 2 if rng.random() < 0.7 else 0.0
    placed: list[tuple[float, float]] = []
    for i in range(count):
        x, y = (start[0] + i * pitch, start[1]) if upright else (start[0], start[1] + i * pitch)
        if not (0 <= x < layout.size and 0 <= y < layout.size) or room[int(y) // GRID, int(x) // GRID] < length / 2 + 4:
            break
        layout.box(x, y, *((width, length) if upright else (length, width)), corner)
        placed.append((x, y))
    for a, b in itertools.pairwise(placed):
        if rng.random() < 0.12:
            shift = np.array([0, length / 2 - width / 2]) if upright else np.array([length / 2 - width / 2, 0])
            layout.trace(np.array([a, b]) + shift, width * 0.9)


def meander(layout: Layout) -> None:
    """A trace folded to gain length, with round turns."""
    rng = layout.rng
    width = rng.uniform(5, 10)
    pitch, length, turns = width * rng.uniform(2.2, 3.4), rng.uniform(25, 110), int(rng.integers(4, 14))
    start = layout.spot(length / 2 + 10)
    if start is None:
        return
    lanes = []
    for i in range(turns):
        ends = [(i * pitch, -length / 2), (i * pitch, length / 2)]
        lanes += ends if i % 2 == 0 else ends[::-1]
    points = np.array(lanes) + start
    points = points if rng.random() < 0.5 else (points - start)[:, ::-1] + start
    spots = np.clip(np.round(points), 0, layout.size - 1).astype(int) // GRID
    if layout.room()[spots[:, 1], spots[:, 0]].min() > width + 4:
        layout.line(points, width)


def plane(layout: Layout) -> None:
    """A large area with cut corners, holes and slots."""
    rng = layout.rng
    half = np.array([rng.uniform(35, 260), rng.uniform(35, 260)])
    if rng.random() < 0.25:
        half[int(rng.integers(2))] = layout.size
    centre = rng.uniform(0, layout.size, 2)
    if (layout.sheet > 128).any() and _touches(layout, centre, half + 14):
        return
    cut = rng.uniform(0, 0.9 * half.min(), 4) * (rng.random(4) < 0.5)
    corners = []
    for (sx, sy), c, swap in zip(((-1, -1), (1, -1), (1, 1), (-1, 1)), cut, (0, 1, 0, 1), strict=True):
        a, b = (half - [0, c]) * [sx, sy], (half - [c, 0]) * [sx, sy]
        corners += [b, a] if swap else [a, b]
    layout.fill(np.array(corners) + centre)
    _round_corners(layout, float(rng.choice([0, 0, 12])))
    for _ in range(int(rng.integers(0, 4))):
        x, y = centre + rng.uniform(-0.8, 0.8, 2) * half
        layout.disc(x, y, rng.uniform(6, 34), BARE)


def _touches(layout: Layout, centre: Points, half: Points) -> bool:
    low = np.clip(centre - half, 0, layout.size).astype(int)
    high = np.clip(centre + half, 0, layout.size).astype(int)
    return bool((layout.sheet[low[1] : high[1], low[0] : high[0]] > 128).any())


def _round_corners(layout: Layout, radius: float) -> None:
    if radius:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (int(radius) | 1, int(radius) | 1))
        layout.sheet = np.asarray(cv2.morphologyEx(layout.sheet, cv2.MORPH_OPEN, disc), np.uint8)


def slots(layout: Layout, count: int) -> None:
    """White channels through planes: what separates one area from the next."""
    rng = layout.rng
    width = rng.uniform(6, 22)
    for _ in range(count):
        heading, point = (
            int(rng.integers(4)) * 2 if rng.random() < 0.7 else int(rng.integers(8)),
            rng.uniform(0, layout.size, 2),
        )
        points = [point]
        for _ in range(int(rng.integers(1, 7))):
            step = np.array([math.cos(heading * math.pi / 4), math.sin(heading * math.pi / 4)])
            points.append(points[-1] + step * rng.uniform(50, 330))
            heading += int(rng.choice([-2, -1, 1, 2], p=[0.35, 0.15, 0.15, 0.35]))
        _channel(layout, np.array(points), width)


def _channel(layout: Layout, points: Points, width: float) -> None:
    """A bare channel; parts of it are narrower, and some of its bends are wider, as designers draw them."""
    rng, necked = layout.rng, layout.rng.random() < 0.4
    for a, b in itertools.pairwise(points):
        narrow = width * (rng.uniform(0.35, 0.75) if necked and rng.random() < 0.4 else 1.0)
        ahead = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6) * width / 2
        layout.trace(np.array([a - ahead, b + ahead]), narrow, BARE)
        if necked and rng.random() < 0.3:
            layout.disc(float(b[0]), float(b[1]), width * rng.uniform(0.5, 0.9), BARE)


def stripes(layout: Layout) -> None:
    """Broad bars side by side over the whole board, some ending in a round corner."""
    rng = layout.rng
    x = -rng.uniform(0, 60)
    corner, turned = rng.uniform(0, 26), rng.random() < 0.4
    while x < layout.size:
        width, gap = rng.uniform(24, 90), rng.uniform(14, 70)
        top = -50.0 if rng.random() < 0.6 else rng.uniform(0, layout.size * 0.6)
        bottom = layout.size + 50.0 if rng.random() < 0.6 else rng.uniform(layout.size * 0.4, layout.size)
        if bottom - top > 60:
            layout.box(x + width / 2, (top + bottom) / 2, width, bottom - top, corner)
            if rng.random() < 0.3:
                layout.disc(x + width / 2, top + 40, rng.uniform(4, 10), BARE)
        x += width + gap
    if turned:
        layout.sheet = np.ascontiguousarray(layout.sheet.T)


def cells(layout: Layout) -> None:
    """A grid of areas joined and split by thin channels, as in printed capacitors."""
    rng = layout.rng
    layout.sheet[:] = COPPER
    width = rng.uniform(7, 12)
    step = rng.uniform(70, 160)
    for x in np.arange(rng.uniform(-40, 40), layout.size, step):
        points, y = [(x, -20.0)], 0.0
        while y < layout.size:
            side = rng.uniform(0.2, 0.6) * step * rng.choice([0, 1])
            y2 = y + rng.uniform(50, 140)
            points += [(x + side, y), (x + side, y2)]
            y = y2
        _channel(layout, np.array(points), width)
        if rng.random() < 0.4:
            layout.trace(np.array([(x - step * 0.3, 0), (x - step * 0.3, layout.size)]), rng.uniform(7, 26), BARE)


def discs(layout: Layout) -> None:
    """Very large round areas with channels and holes cut in."""
    rng = layout.rng
    x, y = rng.uniform(-0.2, 1.2, 2) * layout.size
    radius = rng.uniform(110, 520)
    if not _touches(layout, np.array([x, y]), np.array([radius * 0.75] * 2)):
        layout.disc(x, y, radius)
        if rng.random() < 0.6:
            layout.disc(x + rng.uniform(-0.5, 0.5) * radius, y, radius * rng.uniform(0.1, 0.4), BARE)


def marks(layout: Layout) -> None:
    """Rings, corner marks, arrows and lone thin lines."""
    rng = layout.rng
    found = layout.spot(46)
    if found is None:
        return
    x, y = found
    kind, size = int(rng.integers(5)), rng.uniform(14, 40)
    if kind == 0:
        layout.disc(x, y, size)
        layout.disc(x, y, size * rng.uniform(0.55, 0.85), BARE)
    elif kind == 1:
        layout.trace(np.array([(x, y + size * 2), (x, y), (x + size * 2, y)]), rng.uniform(4, 9))
    elif kind == 2:
        layout.fill(np.array([(x - size, y), (x + size, y), (x, y + size)]))
    elif kind == 3:
        reach = rng.uniform(60, 400)
        layout.trace(
            np.array([(x, y), (x + reach, y)] if rng.random() < 0.5 else [(x, y), (x, y + reach)]), rng.uniform(4, 8)
        )
    else:
        layout.box(x, y, size * 1.4, size * 1.4, 0, math.pi / 4)


def vias(layout: Layout) -> None:
    """Small filled dots, strewn."""
    radius = layout.rng.uniform(4.5, 11)
    for _ in range(int(layout.rng.integers(1, 12))):
        spot = layout.spot(radius + 6)
        if spot:
            layout.disc(*spot, radius)


def dumbbells(layout: Layout) -> None:
    """Two pads and the trace between them."""
    rng = layout.rng
    width = rng.uniform(6, 20)
    path = walk(layout, width * 1.6 + 6, None, int(rng.integers(8)))
    if path is not None:
        layout.line(path, width)
        for x, y in (path[0], path[-1]):
            radius = width * rng.uniform(0.9, 1.8)
            layout.disc(x, y, radius)
            if radius > 11 and rng.random() < 0.5:
                layout.disc(x, y, radius * rng.uniform(0.35, 0.7), BARE)


def _repeat(step: Callable[[Layout], None], low: int, high: int) -> Callable[[Layout], None]:
    def steps(layout: Layout) -> None:
        for _ in range(int(layout.rng.integers(low, high + 1))):
            step(layout)

    return steps


def _bundles(low: int, high: int, widths: tuple[float, float], most: int) -> Callable[[Layout], None]:
    def steps(layout: Layout) -> None:
        rng = layout.rng
        width, gap = rng.uniform(*widths), 0.0
        for _ in range(int(rng.integers(low, high + 1))):
            if gap == 0.0 or rng.random() < 0.3:
                width = rng.uniform(*widths)
                gap = max(5.0, width * rng.uniform(0.6, 1.6))
            bundle(layout, width, gap, int(rng.integers(1, most + 1)))

    return steps


def _slots(low: int, high: int) -> Callable[[Layout], None]:
    return lambda layout: slots(layout, int(layout.rng.integers(low, high + 1)))


#: Kinds of board: how often each occurs, and what it is built of, in order.
KINDS: dict[str, tuple[float, Sequence[Callable[[Layout], None]]]] = {
    "dense": (0.28, (_repeat(round_pads, 0, 3), _repeat(square_pads, 0, 3), _repeat(fingers, 0, 2), _repeat(meander, 0, 2),
                     _bundles(14, 34, (5.5, 11), 8), _repeat(dumbbells, 2, 14), _repeat(vias, 0, 3))),
    "power": (0.24, (_repeat(plane, 0, 2), _repeat(round_pads, 1, 4), _repeat(square_pads, 0, 3), _bundles(6, 18, (12, 46), 3),
                     _bundles(0, 8, (6, 14), 4), _repeat(marks, 0, 2), _repeat(vias, 0, 1))),
    "planes": (0.16, (_repeat(plane, 2, 6), _slots(0, 2), _bundles(2, 8, (8, 24), 4), _repeat(round_pads, 0, 3),
                      _repeat(marks, 0, 2))),
    "stripes": (0.08, (stripes, _repeat(round_pads, 0, 1))),
    "cells": (0.06, (cells,)),
    "slotted": (0.06, (_repeat(plane, 3, 6), _slots(3, 9), _repeat(vias, 0, 1))),
    "discs": (0.06, (_repeat(discs, 1, 4), _slots(0, 3), _repeat(marks, 1, 3), _bundles(0, 4, (8, 16), 2))),
    "sparse": (0.06, (_repeat(marks, 1, 4), _bundles(1, 4, (8, 40), 3), _repeat(vias, 0, 1), _repeat(round_pads, 0, 2))),
}  # fmt: skip


def draw(rng: Rng, size: int) -> Sheet:
    """A board's copper, uint8 [size, size], 255 = copper, edges soft."""
    names = list(KINDS)
    name = str(rng.choice(names, p=[KINDS[n][0] for n in names]))
    layout = Layout(rng, size)
    for step in KINDS[name][1]:
        step(layout)
    return layout.sheet
