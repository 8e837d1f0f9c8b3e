"""What a picture looks like in a few numbers: light, sharpness, the outlines of the scene. Pure and cheap."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eyeline.core.types import Pixels

#: (height, width) that are enough to judge by; a decoder may scale down to it.
ENOUGH = (360, 640)
_WIDTH = 640
_SCENE = (64, 36)


@dataclass(frozen=True)
class Looks:
    """`brightness`: mean, 0..255. `sharpness`: energy of edges over contrast, so that it does not follow the light.

    `scene`: where the edges are, 36 × 64 with mean 0 and deviation 1; None where nothing can be made out.
    """

    brightness: float
    sharpness: float
    scene: NDArray[np.float32] | None


def look(pixels: Pixels) -> Looks:
    """Judge an RGB picture of any size, best of at least ENOUGH."""
    grey: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    if width > _WIDTH:
        size = (_WIDTH, max(8, round(height * _WIDTH / width)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    edges = cv2.Laplacian(grey, cv2.CV_32F)
    contrast = float(grey.std()) ** 2
    sharpness = float(edges.var()) / max(contrast, 1.0)
    return Looks(float(grey.mean()), sharpness, _outlines(grey) if contrast > 16 else None)


def _outlines(grey: Any) -> NDArray[np.float32] | None:
    """Where the edges are; light that comes and goes moves none of them."""
    smooth = cv2.GaussianBlur(grey, (5, 5), 0).astype(np.float32)
    strength = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    small = cv2.resize(np.sqrt(strength), _SCENE, interpolation=cv2.INTER_AREA)
    spread = float(small.std())
    if spread < 1e-3:
        return None
    scene: NDArray[np.float32] = ((small - small.mean()) / spread).astype(np.float32)
    return scene


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How far two scenes agree: 1 the same, 0 nothing in common."""
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / size if size else 0.0
