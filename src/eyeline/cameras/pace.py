"""Sampling by time: which frames of a live source are taken."""


class Pace:
    """Lets through `fps` frames a second, evenly as far as the source allows; all of them for 0. Seconds come from outside."""

    def __init__(self, fps: float) -> None:
        self._step = 1 / fps if fps else 0.0
        self._due = float("-inf")

    def takes(self, now: float) -> bool:
        """Whether the frame of this moment is taken."""
        if now < self._due - self._step / 100:  # times jitter; a source of the very rate loses no frame by it
            return False
        # after a pause the rhythm begins anew: what was missed is not made up for by a burst
        self._due = max(self._due + self._step, now) if self._due > now - self._step else now + self._step
        return True

    def until_due(self, now: float) -> float:
        """Seconds until the next frame is wanted."""
        return max(0.0, self._due - now)
