"""Triggered capture on the agent's side: who wants the next frame, asked of the gateway and heard from MQTT.

The agent asks (one long request after the other), so it needs no port and may stand behind any firewall. Where it has
read to is kept before a frame is taken: a trigger is never answered twice, not even by an agent that dies in between; a
lost one is known to who waits for it.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from eyeline.cameras.base import Asked, Frame
from eyeline.cameras.delivery import Delivery
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.retry import backoff
from eyeline.core.telemetry import logger

log = logger("cameras")

#: Seconds for which the gateway holds a request.
WAIT = 20.0
#: Triggers that wait for a frame; above it the oldest are forgotten.
MOST = 64


@dataclass(frozen=True)
class Capture:
    """A wanted frame; `heard` by the clock that frames are captured by, `until` on the monotonic one."""

    id: str
    ref: str | None
    heard: datetime
    until: float


class Captures:
    """Who waits for the next frame of one camera."""

    def __init__(self, camera: str, delivery: Delivery, folder: Path) -> None:
        self._camera = camera
        self._delivery = delivery
        self._path = folder / "captures.after"
        self._waiting: list[Capture] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, asked: Asked) -> None:
        """Someone wants the next frame."""
        heard = Capture(asked.id, asked.ref, utcnow(), time.monotonic() + asked.expires_in)
        self._waiting = [*self._waiting, heard][-MOST:]

    def take(self, frame: Frame, *, live: bool) -> list[Capture]:
        """Those for whom this frame is the next one. Who has gone meanwhile gets none; and none gets a live frame that was
        captured before it was asked for and came late: it shows what stood there before.
        """
        now = time.monotonic()
        waiting = [capture for capture in self._waiting if capture.until > now]
        early = [capture for capture in waiting if live and frame.captured_at < capture.heard]
        self._waiting = early
        return [capture for capture in waiting if capture not in early]

    async def ask(self) -> None:
        """Ask the gateway for ever."""
        after, failures = self._kept(), 0
        while True:
            try:
                answer = await self._delivery.requests(after, WAIT)
            except CameraError as error:
                failures += 1
                if failures == 1:
                    log.info("captures cannot be asked for", camera=self._camera, reason=str(error))
                await asyncio.sleep(backoff(failures, base=0.5, cap=10.0))
                continue
            failures = 0
            if answer.after != after:
                after = answer.after
                self._keep(after)
            for asked in answer.captures:
                self.add(asked)

    def _kept(self) -> int | None:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return None

    def _keep(self, after: int) -> None:
        draft = self._path.with_suffix(".draft")
        with contextlib.suppress(OSError):
            draft.write_text(str(after))
            draft.rename(self._path)
