"""Trying a camera out, in six looks: does it open, do frames come, how many, how large, in what light, by what clock."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyeline.cameras import open_camera
from eyeline.cameras.base import Frame, Memory
from eyeline.cameras.health import DARK, SKEW
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError, InputError
from eyeline.core.settings import CameraSettings, mask
from eyeline.pipeline.decode import Decoded, decode
from eyeline.pipeline.drawing import encode_jpeg
from eyeline.pipeline.looks import look

#: Frames that are enough, and seconds after which fewer are (once there is one).
FRAMES = 12
LONGEST = 4.0
PATIENCE = 15.0
BLINDING = 245.0
#: Below it hardly an edge is to be seen; frames of a camera in focus have ten times as much.
SOFT = 0.005

Line = tuple[str, bool, str]


@dataclass(frozen=True)
class Seen:
    """A frame, and when it came: on the steady clock, and by ours."""

    frame: Frame
    at: float
    ahead: float | None  # seconds by which the camera's clock is ahead of ours


async def test_camera(address: str, save_to: Path) -> list[Line]:
    """Take a few frames of the camera at `address` (a path or URL) and write the first to `save_to` as JPEG.

    Returns (what was looked at, whether it is well, a sentence) for each look: six, and where the frame was saved; fewer
    where an early one fails. Raises ConfigError for an unknown scheme.
    """
    begun = time.monotonic()
    dropped: list[str] = []
    seen, live, why = await _take(CameraSettings(name="test", url=address), dropped)
    if not seen and why:
        return [("open", False, why)]
    if not seen:
        damaged = f" ({len(dropped)} came damaged)" if dropped else ""
        return [
            ("open", True, mask(address)),
            (
                "frames",
                False,
                f"none within {PATIENCE:.0f} s{damaged}; put images into the folder, or check the camera",
            ),
        ]
    first = f"{mask(address)}, the first frame after {seen[0].at - begun:.1f} s"
    report = [("open", True, first), _frames(seen, dropped), _rate(seen, live=live)]
    return report + await asyncio.to_thread(lambda: list(_looks(seen, save_to)))


async def _take(settings: CameraSettings, dropped: list[str]) -> tuple[list[Seen], bool, str]:
    """The first frames, as many as come in time; whether they come by themselves; and how the camera broke, if it did."""
    source = open_camera(settings, Memory(lambda _: False, utcnow(), dropped.append))
    seen: list[Seen] = []
    try:
        async with asyncio.timeout(PATIENCE) as limit, contextlib.aclosing(source.frames()) as coming:
            async for frame in coming:
                seen.append(_noted(frame))
                if len(seen) == 1:
                    limit.reschedule(min(limit.when() or 0.0, asyncio.get_running_loop().time() + LONGEST))
                if len(seen) == FRAMES:
                    break
    except TimeoutError:
        pass
    except CameraError as error:
        return seen, source.live, str(error)
    finally:
        await source.close()
    return seen, source.live, ""


def _noted(frame: Frame) -> Seen:
    ahead = None if frame.camera_clock is None else (frame.camera_clock - utcnow()).total_seconds()
    return Seen(frame, time.monotonic(), ahead)


def _frames(seen: Sequence[Seen], dropped: Sequence[str]) -> Line:
    distinct = len({each.frame.data for each in seen})
    if len(seen) > 2 and distinct == 1:
        return "frames", False, f"{len(seen)} came and all are the same: frozen?"
    if len(dropped) > len(seen):
        return "frames", False, f"{len(seen)} came whole and {len(dropped)} damaged; look at cable and network"
    return "frames", True, f"{len(seen)} came, {distinct} of them differ, {len(dropped)} were dropped"


def _rate(seen: Sequence[Seen], *, live: bool) -> Line:
    if not live:
        return "rate", True, "a file or folder: as fast as frames are taken"
    if len(seen) < 2:
        return "rate", False, f"one frame in {LONGEST:.0f} s: slower than most uses need; check the camera's frame rate"
    rate = (len(seen) - 1) / max(1e-6, seen[-1].at - seen[0].at)
    return "rate", True, f"{rate:.1f} frames a second"


def _looks(seen: Sequence[Seen], save_to: Path) -> Iterator[Line]:
    data = seen[0].frame.data
    try:
        first = decode(data)
    except InputError as error:
        yield "size", False, f"the frame cannot be read: {error.code}: {error}"
        return
    yield "size", True, f"{first.width} × {first.height} {first.format}, {len(data):,} bytes"
    yield _light(first)
    yield _clock(seen[-1])
    save_to.write_bytes(encode_jpeg(first.pixels))
    yield "saved", True, str(save_to)


def _light(picture: Decoded) -> Line:
    looks = look(picture.pixels)
    said = f"brightness {looks.brightness:.0f} of 255, sharpness {looks.sharpness:.2g}"
    if looks.brightness < DARK:
        return "light", False, f"{said}: dark; is the lens covered or the light off?"
    if looks.brightness > BLINDING:
        return "light", False, f"{said}: blinding; check the exposure"
    if looks.scene is not None and looks.sharpness < SOFT:
        return "light", False, f"{said}: blurred; check the focus, clean the lens"
    return "light", True, said


def _clock(seen: Seen) -> Line:
    if seen.ahead is None:
        return (
            "clock",
            True,
            "the camera does not say what time it has; frames carry the time at which they arrive here",
        )
    direction = "ahead of" if seen.ahead > 0 else "behind"
    said = f"the camera's clock is {abs(seen.ahead):.0f} s {direction} this machine's"
    if abs(seen.ahead) > SKEW:
        return "clock", False, f"{said}; set both by NTP"
    return "clock", True, "the camera's clock agrees with this machine's"
