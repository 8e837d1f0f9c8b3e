"""Rendered groceries, the golden pictures of `grocery`: fruit heaped in a crate, cartons on a shelf. Nothing learns from them."""

import cv2
import numpy as np

from training.data import Picture

SIZE = 348
#: RGB of a fruit's skin, its size as a share of the picture, and how long it is for its width.
FRUIT = {
    "orange": ((240, 130, 20), 0.15, 1.0),
    "lemon": ((245, 215, 50), 0.13, 1.35),
    "lime": ((80, 150, 40), 0.12, 1.2),
    "red apple": ((165, 20, 35), 0.15, 1.0),
    "green apple": ((140, 190, 60), 0.15, 1.0),
    "tomato": ((215, 40, 25), 0.14, 0.92),
    "plum": ((70, 30, 75), 0.11, 1.1),
    "cucumber": ((40, 95, 40), 0.16, 4.5),
}


def heap(name: str, seed: int) -> Picture:
    """Fruit of one kind in a dark crate, RGB, lit from above."""
    rng = np.random.default_rng([seed, 21])
    skin, share, length = FRUIT[name]
    image = np.full((SIZE, SIZE, 3), (45, 38, 32), np.uint8)
    radius = SIZE * share / 2 * rng.uniform(0.9, 1.2)
    for row in np.arange(-radius, SIZE + radius, radius * 1.25):
        for column in np.arange(-radius, SIZE + radius * length, radius * 1.7 * length**0.5):
            centre = np.array([column, row]) + rng.normal(0, radius * 0.25, 2)
            tint = np.clip(np.array(skin) * rng.uniform(0.85, 1.12) + rng.normal(0, 6, 3), 0, 255)
            _fruit(image, centre, radius * rng.uniform(0.88, 1.08), length, float(rng.uniform(-40, 40)), tint)
    return _photographed(image, rng)


def _fruit(image: Picture, centre: np.ndarray, radius: float, length: float, angle: float, tint: np.ndarray) -> None:
    """One body: darker and smaller ellipses inside each other make the shade, a white one the light's reflection."""
    light = centre - radius * 0.3
    for step in np.linspace(0, 1, 12):
        place = centre + (light - centre) * step
        colour = np.clip(tint * (0.45 + 0.7 * step), 0, 255)
        axes = (radius * length * (1 - 0.85 * step), radius * (1 - 0.85 * step))
        _ellipse(image, place, axes, angle, colour)
    _ellipse(image, light, (radius * 0.12, radius * 0.08), angle, np.clip(tint * 0.3 + 175, 0, 255))


def _ellipse(image: Picture, centre: np.ndarray, axes: tuple[float, float], angle: float, colour: np.ndarray) -> None:
    x, y = (round(float(value) * 16) for value in centre)
    sizes = (max(1, round(axes[0] * 16)), max(1, round(axes[1] * 16)))
    cv2.ellipse(image, (x, y), sizes, angle, 0, 360, [float(c) for c in colour], -1, cv2.LINE_AA, 4)


def cartons(seed: int) -> Picture:
    """Drink cartons of one brand that does not exist, side by side on a lit shelf, RGB."""
    rng = np.random.default_rng([seed, 22])
    image = np.full((SIZE, SIZE, 3), (200, 205, 205), np.uint8)
    colour = [float(value) for value in rng.uniform(20, 230, 3)]
    wide, tall = int(rng.integers(80, 110)), int(rng.integers(210, 250))
    for left in range(-int(rng.integers(wide)), SIZE, wide + 6):
        top = SIZE - 30 - tall
        cv2.rectangle(image, (left, top), (left + wide, SIZE - 30), (240, 240, 236), -1)
        cv2.rectangle(image, (left, top), (left + wide, top + tall // 3), colour, -1)
        cv2.rectangle(image, (left + wide * 4 // 5, top), (left + wide, SIZE - 30), [c * 0.8 for c in colour], -1)
        roof = np.array([[left, top], [left + wide, top], [left + wide - 18, top - 40], [left + 18, top - 40]])
        cv2.fillPoly(image, [roof], [min(255.0, c * 1.15) for c in colour])
        cv2.circle(image, (left + wide * 2 // 5, top + tall * 3 // 5), wide // 4, colour, -1, cv2.LINE_AA)
        cv2.putText(image, "SOL", (left + 8, top + tall // 4), cv2.FONT_HERSHEY_DUPLEX, 1.1, (250, 250, 250), 2)
    image[SIZE - 30 :] = (120, 120, 125)
    return _photographed(image, rng)


def _photographed(image: Picture, rng: np.random.Generator) -> Picture:
    """A little blur, uneven light and sensor noise."""
    soft = cv2.GaussianBlur(image, (0, 0), 0.8).astype(np.float32)
    slope = np.linspace(rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.1), SIZE)[None, :, None]
    return np.clip(soft * slope + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
