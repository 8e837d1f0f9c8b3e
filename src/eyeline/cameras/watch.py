"""The eye on one camera's frames: each is decoded at most once here, for the gate and, once a second, for health."""

import contextlib
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eyeline.cameras import resolved
from eyeline.cameras.base import Frame
from eyeline.cameras.gate import Gate
from eyeline.cameras.health import Health, Usual
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError
from eyeline.core.settings import CameraSettings
from eyeline.core.types import Pixels
from eyeline.pipeline.decode import decode
from eyeline.pipeline.looks import ENOUGH, look

LOOK_EVERY = 1.0
#: What is usual for a camera is written down so often, and at the end (seconds).
KEEP_EVERY = 300.0


@dataclass(frozen=True)
class Work:
    """What there is to do with a frame."""

    gate: bool
    look: bool

    def __bool__(self) -> bool:
        return self.gate or self.look


class Watch:
    """Sync; `see` is called for one frame at a time, in any thread."""

    def __init__(self, settings: CameraSettings, folder: Path) -> None:
        self._path = folder / "usual.json"
        self._gate = Gate(settings.gate, settings.gate_seconds) if settings.gate else None
        patience = max(settings.stall_seconds, 3 / settings.fps if settings.fps else 0.0)
        # a clip that is played again and again repeats its pictures, and is no camera
        frozen = 0.0 if resolved(settings.url).startswith("video:") else settings.frozen_seconds
        self.health = Health(patience, frozen, _kept(self._path))
        self._look_at = self._keep_at = float("-inf")

    def work(self, *, gate: bool, health: bool) -> Work:
        """Whether the next frame is worth a decoding."""
        return Work(gate and self._gate is not None, health and time.monotonic() >= self._look_at)

    def frame(self, frame: Frame) -> None:
        """A live frame came; whatever becomes of it."""
        now = time.monotonic()
        self.health.frame(now)
        self.health.picture(shown(frame.data), now)

    def see(self, frame: Frame, work: Work) -> bool:
        """Look at a frame as far as there is need. Whether it passes."""
        now = time.monotonic()
        pixels = _decoded(frame.data, whole=work.gate)
        if work.look:
            self._look_at = now + LOOK_EVERY
            if pixels is not None:
                self.health.see(look(pixels), now, time.time())
            if frame.camera_clock is not None:
                self.health.clock("camera", (frame.camera_clock - utcnow()).total_seconds())
            if now >= self._keep_at:
                self.keep()
        return self._gate is None or not work.gate or self._gate.passes(pixels, now)

    def keep(self) -> None:
        """Write down what is usual."""
        self._keep_at = time.monotonic() + KEEP_EVERY
        draft = self._path.with_suffix(".draft")
        with contextlib.suppress(OSError):  # it is learned anew
            draft.write_bytes(msgspec.json.encode(self.health.kept()))
            draft.rename(self._path)


def shown(data: bytes) -> bytes:
    """A digest of what an image shows. A JPEG's headers are left out: many cameras write the time into them."""
    scan = max(0, data.find(b"\xff\xda")) if data.startswith(b"\xff\xd8") else 0
    return hashlib.blake2b(memoryview(data)[scan:], digest_size=16).digest()


def _decoded(data: bytes, *, whole: bool) -> Pixels | None:
    try:
        return decode(data, at_least=None if whole else ENOUGH).pixels
    except InputError:
        return None


def _kept(path: Path) -> Usual | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Usual)
    except (OSError, msgspec.DecodeError):
        return None
