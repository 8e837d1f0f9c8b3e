"""The promise of a camera source: frames, one after the other."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec


@dataclass(frozen=True)
class Frame:
    """One image of one camera at one time. `data` is encoded; `origin` names what it was made of, where that lasts
    (a file in a folder, a frame of a video file): a frame with an origin is captured once, also over restarts.
    `meta` goes with the frame into its result: where in the file it stands, or what the file is called.
    `ref` is the caller's word of a triggered capture; `camera_clock` what the camera says the time is, where it says so.
    """

    data: bytes
    captured_at: datetime
    origin: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    ref: str | None = None
    camera_clock: datetime | None = None


def uncounted(_reason: str) -> None:
    """Where no books are kept (a camera is only tried out)."""


def _nothing(_origin: str) -> bool:
    return False


@dataclass(frozen=True)
class Memory:
    """What the books offer a source: which origins were captured, when the first run began, and a place to say that it
    had to drop a frame, and why. `dropped` may be called from any thread and never blocks. `pending` says whether what was
    captured is still on its way to the gateway; `forget`, that an origin will not come again.
    """

    seen: Callable[[str], bool]
    since: datetime
    dropped: Callable[[str], object] = uncounted
    pending: Callable[[str], bool] = _nothing
    forget: Callable[[str], object] = _nothing


class Asked(msgspec.Struct, frozen=True):
    """Someone wants the next frame. `expires_in`: seconds until nobody waits for it any more."""

    id: str
    ref: str | None = None
    expires_in: float = 10.0


class CameraSource(Protocol):
    """Where frames come from. Opening is lazy: nothing is touched before `frames` is iterated."""

    live: bool
    """Whether frames come at their own pace and cannot wait; else the source waits for its reader."""

    def frames(self) -> AsyncGenerator[Frame, None]:
        """Frames until the source ends, or for ever. Never blocks the event loop: reading and encoding go to a thread.

        Raises CameraError where the source cannot be opened or breaks; opening it again may help.
        """
        ...

    async def close(self) -> None:
        """Give back files, devices and threads. Idempotent."""
        ...
