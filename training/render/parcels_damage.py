"""What goes wrong on the way: blows that move the surface, tears, holes, burst seams and wet patches on the skin.

Modelled on what photographs of damaged parcels show: caved-in corners and tops with sharp creases, broken outlines,
ragged dark holes with a pale fibrous rim and bare corrugation, peeled liner, gaping flaps, dark water marks.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render.parcels_mesh import Floats, as_pixels, unit
from training.render.parcels_surface import Skin, blend, noise, slopes

DAMAGES = ("dented", "crushed", "torn", "wet")


@dataclass(frozen=True)
class Blow:
    """A push: points near the segment from `start` to `end` move by `push` metres and crumple."""

    start: Floats
    end: Floats
    push: Floats
    radius: float
    crumple: float  # metres
    sharpness: float = 2.0
    seed: int = 0

    def apply(self, points: Floats) -> Floats:
        """Moved points, same shape [..., 3]."""
        span = self.end - self.start
        along = np.clip(((points - self.start) @ span) / (span @ span + 1e-9), 0, 1)
        distance = np.linalg.norm(points - self.start - along[..., None] * span, axis=-1)
        field = creases(points, self.radius, self.seed)
        reach = distance / (self.radius * (1 + 0.35 * (creases(points, self.radius * 2, self.seed + 1) - 0.4)))
        fall = np.exp(-(reach**self.sharpness))
        wrinkle = (field - 0.5)[..., None] * fall[..., None] * self.crumple
        return np.asarray(points + fall[..., None] * self.push + wrinkle * unit(self.push), np.float32)


def creases(points: Floats, scale: float, seed: int) -> Floats:
    """A field in space of straight ridges and flat facets, 0..1: how board buckles."""
    rng = np.random.default_rng(seed)
    total = np.zeros(points.shape[:-1], np.float32)
    for octave in (1.0, 1.7, 3.1):
        wave = unit(rng.normal(size=3).astype(np.float32)) * 2.2 * octave / scale
        total += np.abs(np.sin(points @ wave + rng.uniform(0, 6.3))) / octave**0.7
    return total / 2.1


def blows(
    rng: np.random.Generator, kind: str, size: tuple[float, float, float], severity: float, side: Floats
) -> list[Blow]:
    """The blows of a damage on a box of `size` (x, y, z); `side` is a horizontal unit vector towards the camera."""
    half = np.array([size[0] / 2, size[1] / 2, size[2]], np.float32)
    small = float(min(size))
    top = rng.random() < 0.6
    facing = np.sign(side + rng.normal(0, 0.35, 3))
    corner = np.array([facing[0] * half[0], facing[1] * half[1], half[2] if rng.random() < 0.8 else 0.0], np.float32)
    seed = int(rng.integers(1 << 30))
    if kind == "dented":
        return [_dent(rng, half, small, severity, side, top=top, seed=seed)]
    if kind == "crushed" and rng.random() < 0.45:
        inward = unit(
            np.array([-facing[0], -facing[1], -1.1 if corner[2] else 1.0], np.float32)
            * rng.uniform(0.5, 1.5, 3).astype(np.float32)
        )
        depth = small * (0.22 + 0.38 * severity)
        return [
            Blow(
                corner,
                corner,
                inward * depth,
                depth * rng.uniform(1.3, 2.4),
                depth * rng.uniform(0.4, 0.9),
                rng.uniform(1.4, 2.4),
                seed,
            )
        ]
    if kind == "crushed" and rng.random() < 0.55:
        return [_edge(rng, corner, small, severity, seed=seed)]
    if kind == "crushed":
        return _collapse(rng, half, small, severity, seed=seed)
    weak = small * rng.uniform(0.02, 0.12)
    return [Blow(corner, corner, unit(-corner + half / 2) * weak, small * 0.5, weak * 0.7, 2.0, seed)]


def _dent(
    rng: np.random.Generator,
    half: Floats,
    small: float,
    severity: float,
    side: Floats,
    *,
    top: bool,
    seed: int,
) -> Blow:
    place = np.array([*(rng.uniform(-0.6, 0.6, 2) * half[:2]), half[2] * rng.uniform(0.25, 0.75)], np.float32)
    axis = 2 if top else int(rng.random() > abs(side[0]) / (abs(side[0]) + abs(side[1]) + 1e-6))
    place[axis] = half[axis] * (1.0 if top else np.sign(side[axis]) or 1.0)
    push = np.zeros(3, np.float32)
    push[axis] = -np.sign(place[axis])
    depth = small * (0.12 + 0.22 * severity)
    reach = rng.normal(0, 0.25, 3).astype(np.float32) * small
    reach[axis] = 0
    return Blow(
        place - reach,
        place + reach,
        push * depth,
        small * rng.uniform(0.18, 0.4),
        depth * rng.uniform(0.3, 1.0),
        rng.uniform(1.5, 3),
        seed,
    )


def _edge(rng: np.random.Generator, corner: Floats, small: float, severity: float, *, seed: int) -> Blow:
    axis = int(rng.integers(3))
    start, end = corner.copy(), corner.copy()
    start[axis] *= rng.uniform(-0.3, 0.5)
    end[axis] *= rng.uniform(0.6, 1.0)
    inward = -np.sign(corner) * rng.uniform(0.5, 1.2, 3)
    inward[2] = -1.0 if corner[2] else 1.0
    inward[axis] = 0
    depth = small * (0.15 + 0.28 * severity)
    return Blow(
        start,
        end,
        unit(inward.astype(np.float32)) * depth,
        depth * rng.uniform(1.0, 1.8),
        depth * rng.uniform(0.4, 0.9),
        2.0,
        seed,
    )


def _collapse(rng: np.random.Generator, half: Floats, small: float, severity: float, *, seed: int) -> list[Blow]:
    depth = float(half[2]) * (0.15 + 0.3 * severity)
    middle = np.array([*(rng.uniform(-0.5, 0.5, 2) * half[:2]), half[2]], np.float32)
    reach = np.array([*(rng.uniform(-0.7, 0.7, 2) * half[:2]), 0], np.float32)
    down = np.array([0, 0, -depth], np.float32)
    lean = np.array([*rng.normal(0, 0.12 * small, 2), -depth * 0.4], np.float32)
    wide = float(np.linalg.norm(half[:2]))
    return [
        Blow(
            middle - reach,
            middle + reach,
            down,
            wide * rng.uniform(0.35, 0.7),
            depth * rng.uniform(0.4, 1.0),
            2.2,
            seed,
        ),
        Blow(middle, middle, lean, wide * 0.9, small * rng.uniform(0.05, 0.14), 3.0, seed + 7),
    ]


def ragged(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: Floats,
    radii: Floats,
    angle: float,
    roughness: float,
) -> Floats:
    """A signed picture of a torn outline: above 0 inside, about 1 at the middle."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn = np.deg2rad(angle)
    x, y = columns - centre[0], rows - centre[1]
    along, down = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    away = np.sqrt((along / radii[0]) ** 2 + (down / radii[1]) ** 2)
    theta = np.arctan2(down / radii[1], along / radii[0])
    teeth = np.zeros(shape, np.float32)
    for count in rng.integers(3, 14, 5):
        teeth += np.abs(np.mod(theta * count / np.pi + rng.uniform(0, 2), 2) - 1).astype(np.float32) - 0.5
    grain = noise(rng, shape, max(shape) / max(float(radii.max()), 4) * 4, 3)
    return np.asarray(1 - away + roughness * (0.15 * teeth + 0.2 * grain), np.float32)


def tear(rng: np.random.Generator, skin: Skin, severity: float) -> None:
    """One of a ragged hole, a torn slit with a flap, a strip of peeled liner, a burst seam."""
    kind = rng.choice(["hole", "slit", "peel", "seam"], p=[0.4, 0.2, 0.2, 0.2])
    rows, columns = skin.shape
    small = min(rows, columns)
    centre = (rng.uniform(0.15, 0.85, 2) * [columns, rows]).astype(np.float32)
    if rng.random() < 0.35:  # at an edge or corner, where parcels are hit
        centre[int(rng.integers(2))] = rng.choice([0.0, 1.0]) * (columns if rng.random() < 0.5 else rows)
    radius = small * (0.10 + 0.2 * severity) * rng.uniform(0.8, 1.3)
    if kind == "hole":
        _hole(rng, skin, centre, np.array([radius * rng.uniform(1, 1.8), radius], np.float32))
    elif kind == "slit":
        _hole(
            rng,
            skin,
            centre,
            np.array([radius * rng.uniform(2, 3.5), radius * rng.uniform(0.2, 0.5)], np.float32),
        )
    elif kind == "peel":
        _peel(
            rng,
            skin,
            centre,
            np.array([radius * rng.uniform(1.2, 3), radius * rng.uniform(0.5, 1.2)], np.float32),
        )
    else:
        _burst(rng, skin, severity)


def _hole(rng: np.random.Generator, skin: Skin, centre: Floats, radii: Floats) -> None:
    shape, angle = skin.shape, float(rng.uniform(0, 180))
    outline = ragged(rng, shape, centre, radii, angle, rng.uniform(0.8, 1.8))
    pixel = 1.0 / max(float(radii.min()), 2.0)
    _crack(rng, skin, centre, radii)
    rim = np.clip((outline + rng.uniform(0.1, 0.5)) / 0.25, 0, 1) * (noise(rng, shape, 30, 2) > -0.6)
    blend(
        skin,
        cv2.GaussianBlur(rim.astype(np.float32), (0, 0), 0.8),
        _inner_board(rng, skin),
        rng.uniform(0.5, 0.95),
    )
    hole = np.clip(outline / (2.5 * pixel), 0, 1)
    depth = np.array([0.07, 0.055, 0.045]) if rng.random() < 0.7 else rng.uniform(0.1, 0.35, 3)
    inside = np.clip(
        60 * noise(rng, shape, 10, 2)[..., None] * depth + 255 * depth + 60 * np.clip(outline, 0, 1)[..., None] * depth,
        0,
        255,
    )
    if rng.random() < 0.15:
        inside = _contents(rng, shape)
    blend(skin, hole, inside.astype(np.uint8))
    shift = (rng.normal(0, 1, 2) * radii.min() * 0.35).astype(np.float32)
    moved = cv2.warpAffine(
        outline, np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32), shape[::-1], borderValue=-9
    )
    lip = ((moved > 0) & (moved < 0.3) & (outline < 0.25)).astype(np.float32)
    blend(skin, cv2.GaussianBlur(lip, (0, 0), 0.7), (206, 176, 136), rng.uniform(0.3, 0.9))
    skin.slope += slopes(
        np.asarray(cv2.GaussianBlur(rim.astype(np.float32), (0, 0), max(radii.min() * 0.15, 1))),
        rng.uniform(2, 9),
    )


def _inner_board(rng: np.random.Generator, skin: Skin) -> NDArray[np.uint8]:
    """Bare corrugation: light and dark ribs in raw paper brown."""
    rows, columns = skin.shape
    grid = np.arange(columns)[None] if rng.random() < 0.5 else np.arange(rows)[:, None]
    pitch = rng.uniform(0.005, 0.008) * skin.density
    ribs = 14 * np.sin(grid / pitch * 2 * np.pi) + noise(rng, (rows, columns), 20, 2) * 10
    base = np.array([(212, 180, 138), (196, 160, 118), (228, 208, 176), (236, 228, 214)][rng.integers(4)], np.float32)
    return as_pixels(base + ribs[..., None])


def _contents(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    colours = rng.uniform(20, 190, (2, 1)) + rng.normal(0, 22, (2, 3))
    mix = (noise(rng, shape, 8, 3) > 0)[..., None]
    return np.asarray(
        np.where(mix, colours[0], colours[1]) * (0.75 + 0.25 * noise(rng, shape, 20, 2)[..., None]),
        np.float32,
    )


def _crack(rng: np.random.Generator, skin: Skin, centre: Floats, radii: Floats) -> None:
    """Sharp creases running out from a blow."""
    heights = np.zeros(skin.shape, np.float32)
    for _ in range(rng.integers(2, 7)):
        turn, reach = rng.uniform(0, 2 * np.pi), float(radii.max()) * rng.uniform(1.2, 3)
        points = [centre]
        for _ in range(4):
            turn += rng.normal(0, 0.25)
            points.append(points[-1] + np.array([np.cos(turn), np.sin(turn)], np.float32) * reach / 4)
        cv2.polylines(
            heights,
            [np.array(points, np.int32)],
            isClosed=False,
            color=float(rng.choice([-1, 1])),
            thickness=max(1, round(skin.density * 0.002)),
        )
    soft = cv2.GaussianBlur(heights, (0, 0), max(0.8, skin.density * 0.0025))
    skin.slope += slopes(soft, rng.uniform(4, 12))
    blend(skin, np.abs(soft), (90, 66, 46) if rng.random() < 0.6 else (226, 204, 172), rng.uniform(0.2, 0.8))


def _peel(rng: np.random.Generator, skin: Skin, centre: Floats, radii: Floats) -> None:
    outline = ragged(
        rng, skin.shape, centre, radii, float(rng.choice([0, 90]) + rng.normal(0, 15)), rng.uniform(1, 2.2)
    )
    bare = np.clip(outline * 8, 0, 1)
    blend(skin, bare, _inner_board(rng, skin), 0.95)
    rim = np.exp(-((outline / 0.07) ** 2))
    blend(skin, np.asarray(rim, np.float32), (240, 228, 206), rng.uniform(0.3, 0.8))
    shade = np.exp(-(((outline - 0.1) / 0.06) ** 2))
    blend(skin, np.asarray(shade, np.float32), (70, 50, 36), rng.uniform(0.2, 0.7))
    ribs = np.sin(np.arange(skin.shape[1]) / (0.0065 * skin.density) * 2 * np.pi)[None].repeat(skin.shape[0], 0)
    skin.slope += slopes(ribs.astype(np.float32), 0.5) * bare[..., None]


def _burst(rng: np.random.Generator, skin: Skin, severity: float) -> None:
    """A seam or an edge that gapes: a dark wedge with torn lips."""
    rows, columns = skin.shape
    at, length = rng.choice([0.02, 0.5, 0.98]), rng.uniform(0.4, 1.0)
    grid = np.linspace(0, 1, columns, dtype=np.float32)[None]
    start = rng.uniform(0, 1 - length)
    opening = np.clip((grid - start) / length, 0, 1)
    profile = np.where((opening > 0) & (opening < 1), np.sin(np.pi * opening ** rng.uniform(0.4, 2.5)), 0)
    gap = min(rows, columns) * (0.04 + 0.12 * severity) * profile + noise(rng, (1, columns), 18, 3) * min(
        rows, columns
    ) * 0.012 * (profile > 0)
    away = np.abs(np.arange(rows, dtype=np.float32)[:, None] - at * rows)
    if rng.random() < 0.5 and rows > 16:
        away = np.abs(np.arange(columns, dtype=np.float32)[None] - at * columns)
        gap = np.asarray(cv2.resize(gap.astype(np.float32).T, (1, rows)))
    lip = np.clip(1 - np.abs(away - gap) / max(2.0, 0.05 * min(rows, columns)), 0, 1) * (gap > 1)
    blend(skin, lip.astype(np.float32), (222, 194, 156), rng.uniform(0.3, 0.9))
    blend(skin, np.clip(gap - away, 0, 1).astype(np.float32), (20, 15, 12), 0.95)
    skin.slope += slopes(cv2.GaussianBlur(lip.astype(np.float32), (0, 0), 2), rng.uniform(2, 8))


def soak(rng: np.random.Generator, skin: Skin, severity: float, *, from_below: bool) -> None:
    """A wet patch: dark to a ragged tide line, softly cockled; from the lower rim, or as splashes."""
    rows, columns = skin.shape
    wobble = noise(rng, (rows, columns), rng.uniform(2, 6), 4)
    if from_below:
        level = (np.arange(rows, dtype=np.float32)[:, None] / rows) - (1 - (0.25 + 0.5 * severity))
    else:
        level = 0.1 + 0.25 * severity - 0.35 * np.abs(noise(rng, (rows, columns), 2, 1))
    wet = level + 0.16 * wobble
    mask = np.clip(wet / rng.uniform(0.015, 0.06), 0, 1)
    tint = np.array([0.60, 0.54, 0.48]) + rng.uniform(-0.08, 0.12)
    skin.texture[:] = np.clip(skin.texture * (1 - mask[..., None] * (1 - tint)), 0, 255)
    rim = np.exp(-((wet / 0.02) ** 2))
    blend(skin, np.asarray(rim, np.float32), (84, 60, 42), rng.uniform(0.1, 0.5))
    skin.slope += slopes(noise(rng, (rows, columns), 9, 3), rng.uniform(1, 5)) * mask[..., None]


def crumple_skin(rng: np.random.Generator, skin: Skin, severity: float) -> None:
    """Hard creases all over a face that was crushed or bent."""
    shape = skin.shape
    heights = np.zeros(shape, np.float32)
    for cells in (2.5, 5.0, 9.0):
        field = np.abs(noise(rng, shape, cells, 1))
        heights += np.minimum(field, 0.7) / cells * 9
    skin.slope += slopes(heights, (1.2 + 3.6 * severity) * skin.density / 400)
    ridges = np.exp(-((noise(rng, shape, 4, 2) / 0.03) ** 2)) * (noise(rng, shape, 3, 1) > 0.1)
    blend(
        skin,
        np.asarray(ridges, np.float32),
        (222, 196, 160) if rng.random() < 0.5 else (88, 64, 46),
        rng.uniform(0.15, 0.6) * severity,
    )
