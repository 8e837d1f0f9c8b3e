"""Seeded augmentations: a sample in, a sample out. Boxes follow their pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Picture, Sample

Rng = np.random.Generator


def symmetry(sample: Sample, rng: Rng, *, turns: bool = True) -> Sample:
    """One of the eight symmetries of a square (two, without `turns`: as it is, or mirrored left to right)."""
    image, boxes = sample.image, sample.boxes
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes = _remap(boxes, np.array([[-1, 0], [0, 1]]), (image.shape[1], 0))
    for _ in range(int(rng.integers(4)) if turns else 0):  # a quarter turn against the clock: (x, y) -> (y, W - x)
        boxes = _remap(boxes, np.array([[0, 1], [-1, 0]]), (0, image.shape[1]))
        image = np.ascontiguousarray(np.rot90(image))
    return Sample(image, boxes, sample.classes)


def _remap(boxes: NDArray[np.float32], turn: NDArray[np.int64], shift: tuple[int, int]) -> NDArray[np.float32]:
    corners = boxes.reshape(-1, 2, 2) @ turn.T + np.asarray(shift)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32).reshape(-1, 4)


def crop(
    sample: Sample,
    rng: Rng,
    size: tuple[int, int],
    zoom: tuple[float, float] = (0.8, 1.25),
    stretch: float = 0.0,
    pad: int = 114,
    keep: float = 0.6,
) -> Sample:
    """A random window of (height, width) `size` at a random scale; a box stays if `keep` of its area is inside."""
    height, width = sample.image.shape[:2]
    scale = float(np.exp(rng.uniform(*np.log(zoom))))
    sx = scale * float(np.exp(rng.uniform(-stretch, stretch)))
    sy = scale * float(np.exp(rng.uniform(-stretch, stretch)))
    left = _start(rng, width * sx, size[1])
    top = _start(rng, height * sy, size[0])
    matrix = np.array([[sx, 0, -left], [0, sy, -top]], np.float32)
    flags = cv2.INTER_AREA if min(sx, sy) < 0.7 else cv2.INTER_LINEAR
    image = cv2.warpAffine(sample.image, matrix, size[::-1], flags=flags, borderValue=(pad, pad, pad))
    moved = sample.boxes * np.array([sx, sy, sx, sy], np.float32) - np.array([left, top, left, top], np.float32)
    return _clip(Sample(np.asarray(image, np.uint8), moved.astype(np.float32), sample.classes), keep)


def _start(rng: Rng, length: float, window: int) -> float:
    spare = length - window
    return float(rng.uniform(min(spare, 0), max(spare, 0)))


def _clip(sample: Sample, keep: float) -> Sample:
    height, width = sample.image.shape[:2]
    inside = np.clip(sample.boxes, 0, [width, height, width, height]).astype(np.float32)
    chosen = _area(inside) >= keep * np.maximum(_area(sample.boxes), 1)
    return Sample(sample.image, inside[chosen], sample.classes[chosen])


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)


def tones(image: Picture, rng: Rng, strength: float = 0.3) -> Picture:
    """Brightness, contrast and gamma, by one table."""
    levels = np.linspace(0, 1, 256) ** float(np.exp(rng.uniform(-strength, strength)))
    levels = (levels - 0.5) * rng.uniform(1 - strength, 1 + strength) + 0.5 + rng.uniform(-strength, strength) / 2
    return np.asarray(cv2.LUT(image, np.clip(levels * 255, 0, 255).astype(np.uint8)), np.uint8)


def colour_cast(image: Picture, rng: Rng, strength: float = 0.15) -> Picture:
    """Another white balance (RGB in, RGB out)."""
    gains = rng.uniform(1 - strength, 1 + strength, 3)
    return np.clip(image * gains, 0, 255).astype(np.uint8)


def noise(image: Picture, rng: Rng, sigma: float) -> Picture:
    """Gaussian sensor noise of `sigma` grey levels."""
    grain = rng.standard_normal(image.shape, np.float32) * sigma
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def blur(image: Picture, rng: Rng, widest: float) -> Picture:
    """A Gaussian blur of up to `widest` pixels (sigma)."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.1, widest))), np.uint8)


def threshold(image: Picture, rng: Rng) -> Picture:
    """Two tones, split somewhere about the middle of the picture's own range; an even picture stays as it is."""
    low, high = int(image.min()), int(image.max())
    if high - low < 60:
        return image
    return np.where(image > low + rng.uniform(0.35, 0.65) * (high - low), 255, 0).astype(np.uint8)


def recompress(image: Picture, rng: Rng, worst: int = 40) -> Picture:
    """The marks of JPEG at a random quality."""
    quality = int(rng.integers(worst, 96))
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def cutout(image: Picture, rng: Rng, share: float = 0.25) -> Picture:
    """A grey rectangle over up to `share` of each side."""
    height, width = image.shape[:2]
    h, w = int(height * rng.uniform(0.05, share)), int(width * rng.uniform(0.05, share))
    y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
    out = image.copy()
    out[y : y + h, x : x + w] = int(rng.integers(256))
    return out
