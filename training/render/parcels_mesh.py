"""A small software renderer: textured, bump-mapped grids seen by a pinhole camera. It knows nothing of parcels."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]  # float32; cv2's stubs promise less than cv2 does
Pixels = NDArray[np.uint8]

#: Window sizes in pixels in which triangles are tested together; a triangle goes to the smallest that holds it.
WINDOWS = (3, 5, 7, 9, 12, 15, 18, 22, 26, 32, 40, 64, 128, 256)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. World units are metres, z is up; pixels grow right and down."""

    eye: Floats
    target: Floats
    focal: float  # pixels
    size: tuple[int, int]  # height, width
    centre: tuple[float, float] | None = None  # principal point x, y; the middle where None

    def axes(self) -> Floats:
        """Rows: right, down, forward, as unit vectors, [3, 3] float32."""
        forward = unit(self.target - self.eye)
        right = unit(np.cross(forward, np.array([0.0, 0.0, 1.0], np.float32)))
        return np.stack([right, np.cross(forward, right), forward]).astype(np.float32)

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """[..., 3] world points → [..., 2] pixels and [...] depths in metres."""
        seen = (points - self.eye) @ self.axes().T
        depth = np.maximum(seen[..., 2], 1e-3)
        middle = self.centre or (self.size[1] / 2, self.size[0] / 2)
        centre = np.array(middle, np.float32)
        return seen[..., :2] / depth[..., None] * self.focal + centre, depth

    def ground(self) -> Floats:
        """The 3×3 homography from the plane z = 0 (x, y in metres) to pixels."""
        corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32) * 0.3
        corners[:, :2] += self.target[:2]
        return np.asarray(
            cv2.getPerspectiveTransform(corners[:, :2].copy(), self.project(corners)[0].astype(np.float32)),
            np.float32,
        )

    def scaled(self, factor: float) -> "Camera":
        """The same view on a sensor `factor` times as fine."""
        height, width = self.size
        centre = None if self.centre is None else (self.centre[0] * factor, self.centre[1] * factor)
        size = (round(height * factor), round(width * factor))
        return Camera(self.eye, self.target, self.focal * factor, size, centre)

    def window(self, x1: int, y1: int, x2: int, y2: int) -> "Camera":
        """The part of the picture between two pixel corners, seen by the same camera."""
        middle = self.centre or (self.size[1] / 2, self.size[0] / 2)
        return Camera(self.eye, self.target, self.focal, (y2 - y1, x2 - x1), (middle[0] - x1, middle[1] - y1))


@dataclass(frozen=True)
class Light:
    """One lamp far away and an even sky."""

    direction: Floats  # unit, towards the lamp
    key: float = 0.7
    sky: float = 0.45
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass
class Patch:
    """A grid of points with a picture on it: `points` [rows, columns, 3]; `texture` RGB, `slope` per texel (u, v)."""

    points: Floats
    texture: Pixels
    slope: Floats
    gloss: float = 0.0
    closed: bool = True  # its back is never seen
    cut: Pixels | None = None  # 255 where there is no material
    normals: Floats = field(init=False)
    along: Floats = field(init=False)
    down: Floats = field(init=False)

    def __post_init__(self) -> None:
        down, along = np.gradient(self.points, axis=(0, 1))
        self.along, self.down = unit(along), unit(down)
        self.normals = unit(np.cross(self.down, self.along))


def unit(vectors: Floats) -> Floats:
    """Vectors of length one along the last axis; a zero vector stays zero."""
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9), np.float32)


def as_pixels(values: Floats) -> Pixels:
    """Values clipped to 0..255, as uint8."""
    return np.asarray(np.clip(values, 0, 255).astype(np.uint8))


def triangles(rows: int, columns: int) -> NDArray[np.int64]:
    """The two triangles of each cell of a grid, [2 (rows-1)(columns-1), 3] indices into its flat points."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])


def render(patches: list[Patch], camera: Camera, light: Light, supersample: int = 2) -> Floats:
    """Premultiplied RGBA [height, width, 4] float32, colours 0..255, alpha 0..1."""
    fine = camera.scaled(supersample)
    height, width = fine.size
    canvas = np.zeros((height * width, 4), np.float32)
    pixel, depth, owner, weights, corner = _fragments(patches, fine)
    if not len(pixel):
        return np.zeros((*camera.size, 4), np.float32)
    order = np.argsort(-depth, kind="stable")
    nearest = np.full(height * width, -1, np.int64)
    nearest[pixel[order]] = order  # the last write, the nearest, stays
    seen = nearest[nearest >= 0]
    for number, patch in enumerate(patches):
        mine = seen[owner[seen] == number]
        if len(mine):
            canvas[pixel[mine]] = _shade(patch, fine, light, corner[mine], weights[mine])
    return cv2.resize(canvas.reshape(height, width, 4), camera.size[::-1], interpolation=cv2.INTER_AREA)


def _fragments(
    patches: list[Patch], camera: Camera
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Every (triangle, pixel) pair: flat pixel, depth, patch number, barycentric weights, grid indices of corners."""
    parts: list[tuple[NDArray[np.int64], Floats, NDArray[np.int64], Floats, NDArray[np.int64]]] = []
    for number, patch in enumerate(patches):
        rows, columns = patch.points.shape[:2]
        at, depth = camera.project(patch.points.reshape(-1, 3))
        corner = triangles(rows, columns)
        area = _cross(at[corner[:, 1]] - at[corner[:, 0]], at[corner[:, 2]] - at[corner[:, 0]])
        corner = corner[area > 1e-4] if patch.closed else corner[np.abs(area) > 1e-4]
        for flat, weights, which in _covered(at[corner], camera.size):
            z = 1 / (weights / depth[corner[which]]).sum(1)
            parts.append((flat, z, np.full(len(flat), number), weights, corner[which]))
    if not parts:
        empty = np.zeros(0, np.int64)
        return empty, np.zeros(0, np.float32), empty, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64)
    flat, z, owner, weights, corners = (np.concatenate(part) for part in zip(*parts, strict=True))
    return flat, z, owner, weights, corners


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], np.float32)


def _covered(tri: Floats, size: tuple[int, int]) -> list[tuple[NDArray[np.int64], Floats, NDArray[np.int64]]]:
    """Pixels whose centres lie in each triangle of `tri` [n, 3, 2], tested in windows of equal size."""
    low = np.floor(tri.min(1)).astype(np.int64)
    extent = np.ceil(tri.max(1)).astype(np.int64) - low
    on_screen = ((low < np.array(size[::-1])) & (low + extent > 0)).all(1)
    found, smallest = [], 0
    for window in WINDOWS:
        chosen = np.flatnonzero(on_screen & (extent.max(1) <= window) & (extent.max(1) > smallest))
        smallest = window
        if len(chosen):
            found.append(_inside(tri[chosen], low[chosen], chosen, window, size))
    return found


def _inside(
    tri: Floats, low: NDArray[np.int64], chosen: NDArray[np.int64], window: int, size: tuple[int, int]
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    rows, columns = np.divmod(np.arange(window * window), window)
    x = (low[:, :1] + columns + 0.5).astype(np.float32)
    y = (low[:, 1:] + rows + 0.5).astype(np.float32)
    (ax, ay), (bx, by), (cx, cy) = (tri[:, corner].T[..., None] for corner in range(3))
    whole = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    second = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / whole
    third = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / whole
    hit = (second >= -1e-4) & (third >= -1e-4) & (second + third <= 1 + 1e-4)
    hit &= (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])
    second, third = second[hit], third[hit]
    flat = y[hit].astype(np.int64) * size[1] + x[hit].astype(np.int64)
    return flat, np.stack([1 - second - third, second, third], -1), chosen[np.nonzero(hit)[0]]


def _shade(patch: Patch, camera: Camera, light: Light, corner: NDArray[np.int64], weights: Floats) -> Floats:
    """RGBA of fragments: texture by remap, normals tilted by the slopes, lamp, sky, gloss and dark near the ground."""

    def mix(values: Floats) -> Floats:
        picked = [values[corner[:, place]] * weights[:, place, None] for place in range(3)]
        return np.asarray(picked[0] + picked[1] + picked[2], np.float32)

    rows, columns = patch.points.shape[:2]
    height, width = patch.texture.shape[:2]
    u = ((corner % columns) * weights).sum(1) / (columns - 1) * (width - 1)
    v = ((corner // columns) * weights).sum(1) / (rows - 1) * (height - 1)
    colour = _sample(patch.texture, u, v).astype(np.float32)
    slope = _sample(patch.slope, u, v)
    normal = unit(
        mix(patch.normals.reshape(-1, 3))
        - slope[:, :1] * mix(patch.along.reshape(-1, 3))
        - slope[:, 1:] * mix(patch.down.reshape(-1, 3))
    )
    world = mix(patch.points.reshape(-1, 3))
    view = unit(camera.eye - world)
    if not patch.closed:
        normal = np.where((normal * view).sum(1, keepdims=True) < 0, -normal, normal)
    lit = light.sky * (0.72 + 0.28 * normal[:, 2]) + light.key * np.maximum(normal @ light.direction, 0)
    lit *= 1 - 0.32 * np.exp(-np.maximum(world[:, 2], 0) / 0.035)
    shine = np.maximum((normal * unit(view + light.direction)).sum(1), 0) ** 28 * patch.gloss * 190
    colour = colour * lit[:, None] * np.array(light.tint, np.float32) + shine[:, None]
    alpha = np.ones((len(colour), 1), np.float32)
    if patch.cut is not None:
        alpha -= _sample(patch.cut, u, v).astype(np.float32)[:, None] / 255
    return np.concatenate([np.clip(colour, 0, 255) * alpha, alpha], 1)


def _sample(picture: NDArray[Any], u: Floats, v: Floats) -> Floats:
    """Bilinear look-up at n texel positions; cv2 wants a map of at most 32767 columns, hence the fold."""
    side = 512
    rows = -(-len(u) // side)
    padded = np.zeros((2, rows * side), np.float32)
    padded[0, : len(u)], padded[1, : len(v)] = u, v
    found = cv2.remap(
        picture,
        padded[0].reshape(rows, side),
        padded[1].reshape(rows, side),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found.reshape(rows * side, *picture.shape[2:])[: len(u)])


def extent(patches: list[Patch], camera: Camera) -> tuple[float, float, float, float]:
    """The box (x1, y1, x2, y2) in pixels that just holds the patches, not clipped to the picture."""
    at = np.concatenate([camera.project(patch.points.reshape(-1, 3))[0] for patch in patches])
    low, high = at.min(0), at.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def shadow(patches: list[Patch], camera: Camera, light: Light, softness: float) -> Floats:
    """How much of the light the patches take from the ground, [height, width] 0..1."""
    points = np.concatenate([patch.points.reshape(-1, 3) for patch in patches])
    cast = points - light.direction * (points[:, 2:] / max(float(light.direction[2]), 0.25))
    mask = np.zeros(camera.size, np.float32)
    for ground, depth, blur in ((cast, 0.75, softness), (_footprint(points), 0.9, softness * 0.3)):
        outline = cv2.convexHull(camera.project(ground.astype(np.float32))[0].astype(np.float32))
        layer = np.zeros(camera.size, np.float32)
        cv2.fillConvexPoly(layer, np.round(outline).astype(np.int32), depth)
        mask = np.maximum(mask, cv2.GaussianBlur(layer, (0, 0), max(blur, 0.6)))
    return mask


def _footprint(points: Floats) -> Floats:
    low = points[points[:, 2] < points[:, 2].min() + 0.05].copy()
    low[:, 2] = 0
    return np.asarray(low)
