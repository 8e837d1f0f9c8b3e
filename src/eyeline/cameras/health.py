"""A camera's health from what its frames look like, once a second. Pure: looks and moments in, conditions out.

    stalled   no frames                     frozen   the same picture again and again
    dark      hardly any light              blurred  much less sharp than usual
    moved     another scene than usual      clock    the camera's or the gateway's clock is not ours
    drift     light or sharpness of the last hour is far from that of the last days

A condition begins, and ends, only after it held for HOLD seconds: a hand before the lens is no alarm.
"""

import base64
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from eyeline.pipeline.baseline import Baseline
from eyeline.pipeline.looks import Looks, likeness

HOLD = 5.0
DARK = 16.0
#: Sharpness below this share of the usual one is blurred; what is usual is known after LEARN looks.
BLURRED = 0.4
LEARN = 30
#: A scene that agrees less than this with the usual one is another; held for MOVED_HOLD, since much may pass by.
MOVED = 0.45
MOVED_HOLD = 10.0
#: Seconds after which a new view is the usual one.
SETTLED = 600.0
#: Seconds by which clocks may differ: the HTTP Date has whole seconds only.
SKEW = 3.0

#: A picture that was seen this short a time ago (seconds) is a repeated one. A frozen picture that an encoder goes on
#: encoding differs within a group of pictures and comes again with the next group.
RECALL = 10.0
#: Repeated pictures that it takes at least, however slow the camera is.
FROZEN_PICTURES = 3

_SHAPE = (36, 64)


class _Repeats(NamedTuple):
    """Frames that all were repeated ones: from when to when, and how many."""

    since: float
    until: float
    times: int


class Usual(msgspec.Struct):
    """What is usual for this camera; kept over restarts, some 20 kB."""

    looks: int = 0
    sharpness: float = 0.0
    scene: str | None = None  # float16, base64
    brightness_days: Baseline = msgspec.field(default_factory=Baseline)
    sharpness_days: Baseline = msgspec.field(default_factory=Baseline)
    schema_version: int = 1


class _Held:
    """One condition with its hesitation."""

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._since: float | None = None
        self.on = False

    def say(self, seen: bool, now: float) -> None:
        if seen == self.on:
            self._since = None
        elif self._since is None:
            self._since = now
        if self._since is not None and now - self._since >= self._hold:
            self.on, self._since = seen, None


class Health:
    """The health of one camera. `now` is a steady clock, `moment` Unix time, both in seconds."""

    def __init__(self, stall: float, frozen: float, usual: Usual | None = None) -> None:
        self._stall = stall
        self._frozen = frozen
        self.usual = usual or Usual()
        self._scene = _unpacked(self.usual.scene)
        self._current: NDArray[np.float32] | None = None
        self._dark, self._blurred, self._moved = _Held(HOLD), _Held(HOLD), _Held(MOVED_HOLD)
        self._moved_at = 0.0
        self._pictures: dict[bytes, float] = {}
        self._repeats: _Repeats | None = None
        self._frame_at: float | None = None
        self._why = ""
        self.looks: Looks | None = None
        self.skews: dict[str, float] = {}

    def began(self, now: float) -> None:
        """A live source is being opened; from here on frames are expected."""
        if self._frame_at is None:
            self._frame_at = now

    def frame(self, now: float) -> None:
        """A frame came."""
        self._frame_at, self._why = now, ""

    def picture(self, digest: bytes, now: float) -> None:
        """What a frame shows, in a digest: is it one that was there a moment ago?"""
        recall = max(RECALL, self._stall)
        before = self._pictures.pop(digest, None)
        self._pictures[digest] = now
        while next(iter(self._pictures.values())) < now - recall:
            del self._pictures[next(iter(self._pictures))]
        if before is None or before < now - recall:
            self._repeats = None
        elif self._repeats is None:
            self._repeats = _Repeats(now, now, 1)
        else:
            self._repeats = self._repeats._replace(until=now, times=self._repeats.times + 1)

    def broke(self, why: str) -> None:
        """The source broke, and why."""
        self._why = why

    def see(self, looks: Looks, now: float, moment: float) -> None:
        """Judge a frame's looks."""
        self.looks = looks
        dark = looks.brightness < DARK
        self._dark.say(dark, now)
        self.usual.brightness_days.add(looks.brightness, moment)
        if dark or looks.scene is None:  # nothing else can be told of a picture without anything in it
            return
        self.usual.sharpness_days.add(looks.sharpness, moment)
        self._see_blur(looks.sharpness, now)
        self._see_scene(looks.scene, now)
        self.usual.looks += 1

    def clock(self, whose: str, seconds: float) -> None:
        """How far another clock (`camera`, `gateway`) is ahead of ours."""
        self.skews[whose] = seconds

    def conditions(self, now: float, moment: float) -> dict[str, str]:
        """What is wrong now: condition → a sentence."""
        found: dict[str, str] = {}
        for condition, sentence in self._conditions(now, moment):
            found[condition] = f"{found[condition]}; {sentence}" if condition in found else sentence
        return found

    def _conditions(self, now: float, moment: float) -> Iterator[tuple[str, str]]:
        silent = 0.0 if self._frame_at is None else now - self._frame_at
        if silent >= self._stall:
            yield "stalled", f"no frame for {silent:.0f} s{': ' if self._why else ''}{self._why}"
        elif self._frozen_for:
            yield "frozen", f"nothing but repeated pictures for {self._frozen_for:.0f} s"
        if self._dark.on and self.looks is not None:
            yield "dark", f"brightness {self.looks.brightness:.0f} of 255; is the lens covered or the light off?"
        if self._blurred.on and self.looks is not None:
            share = self.looks.sharpness / max(self.usual.sharpness, 1e-9)
            yield "blurred", f"sharpness is {share:.0%} of the usual; clean the lens, check the focus"
        if self._moved.on:
            yield "moved", "the scene is another than usual; was the camera knocked or turned?"
        for whose, skew in self.skews.items():
            if abs(skew) > SKEW:
                yield (
                    "clock",
                    f"the {whose}'s clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this one",
                )
        yield from self._drift(moment)

    @property
    def _frozen_for(self) -> float:
        """Seconds; 0 where it is not frozen."""
        repeats = self._repeats
        if repeats is None or not self._frozen or repeats.times < FROZEN_PICTURES:
            return 0.0
        seconds = repeats.until - repeats.since
        return seconds if seconds >= self._frozen else 0.0

    def _drift(self, moment: float) -> Iterator[tuple[str, str]]:
        for what, days, floor in (
            ("brightness", self.usual.brightness_days, 3.0),
            ("sharpness", self.usual.sharpness_days, 0.05 * self.usual.sharpness),
        ):
            drift = days.drift(moment, floor)
            if drift is not None:
                yield (
                    "drift",
                    f"{what} {drift.now:.3g} in the last hour, {drift.usual:.3g} over {drift.hours} usual hours",
                )

    def _see_blur(self, sharpness: float, now: float) -> None:
        usual = self.usual
        if usual.looks < LEARN:
            usual.sharpness += (sharpness - usual.sharpness) / (usual.looks + 1)
            return
        self._blurred.say(sharpness < BLURRED * usual.sharpness, now)
        if not self._blurred.on:
            usual.sharpness += 0.002 * (sharpness - usual.sharpness)

    def _see_scene(self, scene: NDArray[np.float32], now: float) -> None:
        """What passes by is averaged away; what stays is the scene."""
        self._current = scene if self._current is None else 0.8 * self._current + 0.2 * scene
        if self._scene is None or self.usual.looks < LEARN:
            weight = 1 / (self.usual.looks + 1)
            self._scene = scene if self._scene is None else (1 - weight) * self._scene + weight * scene
            return
        was = self._moved.on
        self._moved.say(likeness(self._current, self._scene) < MOVED, now)
        if self._moved.on and not was:
            self._moved_at = now
        if not self._moved.on:
            self._scene = 0.998 * self._scene + 0.002 * scene
        elif now - self._moved_at > SETTLED:
            self._scene = self._current

    def kept(self) -> Usual:
        """What to keep over a restart."""
        self.usual.scene = _packed(self._scene)
        return self.usual


def _packed(scene: NDArray[np.float32] | None) -> str | None:
    return None if scene is None else base64.b64encode(scene.astype("<f2").tobytes()).decode()


def _unpacked(text: str | None) -> NDArray[np.float32] | None:
    if text is None:
        return None
    try:
        return np.frombuffer(base64.b64decode(text), "<f2").reshape(_SHAPE).astype(np.float32)
    except ValueError:
        return None
