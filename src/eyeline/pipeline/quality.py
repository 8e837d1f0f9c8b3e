"""Is a picture worth an answer? Brightness, blown highlights and sharpness in numbers that a setting can be held against.

Measured on the whole picture at one size, so that the numbers mean the same for every camera. Whether a camera is frozen is
seen over several frames: that is the camera's affair.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from eyeline.core.types import Pixels
from eyeline.pipeline.geometry import laplacian, resize, rgb_to_grey

#: The longer side of the picture that is measured; smaller ones are measured as they are.
SIDE = 640
#: Grey values that count as blown: what lies there is lost.
BLOWN = 250


class QualityStep(msgspec.Struct, frozen=True):
    """Limits of a quality gate; None is no limit. `reject`: what is outside gets a failed result and no inference."""

    name: str
    dark: float | None = None
    over_exposed: float | None = None
    blurred: float | None = None
    reject: bool = False

    def faults(self, measured: "Quality") -> list[str]:
        """The words for what is wrong: dark, over_exposed, blurred."""
        wrong = {
            "dark": self.dark is not None and measured.brightness < self.dark,
            "over_exposed": self.over_exposed is not None and measured.blown > self.over_exposed,
            "blurred": self.blurred is not None and measured.sharpness < self.blurred,
        }
        return [word for word, is_so in wrong.items() if is_so]


class Quality(msgspec.Struct, frozen=True, array_like=True):
    """brightness: mean grey, 0..1. blown: the share of pixels at the upper end. sharpness: the variance of the Laplacian of
    the grey picture (0..255), the field's usual measure; it depends on what is shown, so compare a camera with itself.
    """

    brightness: float
    blown: float
    sharpness: float


def measure(pixels: Pixels) -> Quality:
    """The numbers of an RGB picture."""
    height, width = pixels.shape[:2]
    shrink = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    grey: NDArray[np.uint8] = rgb_to_grey(resize(pixels, *size))
    return Quality(
        round(float(grey.mean()) / 255, 4),
        round(float(np.mean(grey >= BLOWN)), 4),
        round(float(laplacian(grey).var()), 2),
    )


def needed(width: int, height: int) -> tuple[int, int]:
    """(height, width) to decode an original of that size to, so that it can be measured."""
    shrink = min(1.0, SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))
