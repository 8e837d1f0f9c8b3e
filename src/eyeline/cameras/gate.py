"""The motion gate: a frame is sent where something changed since the last one that was sent. Pure.

Judged by the worst place, never by the mean: a defect of ten pixels changes the mean of a frame by nothing. Differences are
taken in full resolution and in each colour, and gathered in windows of 5 × 5 that lie everywhere, so that no grid cuts a
small change in four. In doubt (another size, an image that cannot be read) the frame is sent.
"""

import cv2
import numpy as np

from eyeline.core.types import Pixels

WINDOW = 5


def change(before: Pixels, now: Pixels) -> float:
    """The largest difference (root mean square over a window, in levels of 255) anywhere in two pictures of one size."""
    channels = cv2.split(cv2.absdiff(before, now))
    worst = cv2.max(cv2.max(channels[0], channels[1]), channels[2]).astype(np.float32)
    mean = cv2.boxFilter(worst * worst, -1, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT_101)
    return float(np.sqrt(mean.max()))


class Gate:
    """Remembers the last frame that passed. Compared with that one, not with its neighbour: slow change adds up."""

    def __init__(self, levels: float, seconds: float) -> None:
        self._levels = levels
        self._seconds = seconds
        self._last: Pixels | None = None
        self._until = 0.0

    def passes(self, pixels: Pixels | None, now: float) -> bool:
        """Whether this frame is sent; `now` in seconds of any steady clock, `pixels` None where it cannot be read."""
        if pixels is not None and not self._changed(pixels) and now < self._until:
            return False
        self._last, self._until = pixels, now + self._seconds
        return True

    def _changed(self, pixels: Pixels) -> bool:
        last = self._last
        return last is None or last.shape != pixels.shape or change(last, pixels) >= self._levels
