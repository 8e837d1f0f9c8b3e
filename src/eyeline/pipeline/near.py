"""Near-duplicates: is this frame the same picture as another one, to within what no defect can hide in? Pure.

Both pictures are brought to half their size (each cell the mean of 2 × 2 pixels) and compared in windows of 2 × 2 cells that lie
at every cell and in each colour: 4 × 4 pixels, at every second one. The worst window decides, never the mean.

The guarantee, for a `contrast` C in levels of 255: ten pixels that touch each other by their edges and all differ by C or more,
in one direction and in one colour, put four of themselves into some window, whose mean they change by C / 4. A repeated frame
may differ by less than C / 8 anywhere, so that what noise there is cannot make up for them: with the ten pixels it is no hit.
Where noise itself comes to C / 8, nothing is one.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from eyeline.core.types import Pixels

#: How the half-sized picture is rounded: half a level in each of the two.
ROUNDING = 1.0

Signature = NDArray[np.uint8]


def signature(pixels: Pixels) -> Signature:
    """What is remembered of a picture: it at half its size, a quarter of its bytes."""
    height, width = pixels.shape[:2]
    even = (
        cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if height % 2 or width % 2
        else pixels
    )
    half: Signature = cv2.resize(even, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return half


def signature_size(width: int, height: int) -> tuple[int, int]:
    """(height, width) of the signature of a picture."""
    return (height + 1) // 2, (width + 1) // 2


def distance(one: Signature, other: Signature) -> float:
    """The largest difference of any window's mean in any colour, in levels; infinity for pictures of different sizes."""
    if one.shape != other.shape:
        return float("inf")
    difference = cv2.subtract(one, other, dtype=cv2.CV_16S)
    sums = cv2.boxFilter(difference, cv2.CV_16S, (2, 2), normalize=False, borderType=cv2.BORDER_REPLICATE)
    low, high, _, _ = cv2.minMaxLoc(sums.reshape(-1, 1))
    return max(-low, high) / 4


def limit(contrast: float) -> float:
    """The distance under which a picture counts as the same, where a defect of that contrast must never."""
    return contrast / 8 - ROUNDING
