"""A camera that can only be read blocking (RTSP, USB), read in a thread of its own, newest frames first.

The thread never waits for its reader: a camera that is not read at its own pace shows the past. What the reader does not
fetch in time is dropped and counted.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from eyeline.cameras.base import Frame

#: Frames that wait for the reader.
SLOTS = 2
#: The longest that a blocked read may take to notice that it is over (seconds).
JOIN = 8.0

DROPPED_NEWEST_FIRST = "newest_first"


class Blocking(Protocol):
    """A camera as its driver gives it; every method runs in the pump's thread."""

    def open(self) -> None:
        """Connect. Raises CameraError."""
        ...

    def read(self) -> Frame | None:
        """Wait for the next frame; None for one that is not wanted. Raises CameraError where the camera breaks or stalls."""
        ...

    def close(self) -> None:
        """Give the device back. Idempotent; never raises."""
        ...


class Pump:
    """One run of a camera: from `frames` to `close`."""

    def __init__(self, camera: Blocking, dropped: Callable[[str], object]) -> None:
        self._camera = camera
        self._dropped = dropped
        self._waiting: deque[Frame] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Frames until the camera breaks; then its CameraError."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name="camera", daemon=True)
        self._thread.start()
        while True:
            await self._wake.wait()
            self._wake.clear()
            ended = self._error
            while (frame := self._taken()) is not None:
                yield frame
            if ended is not None:
                raise ended

    async def close(self) -> None:
        """Stop reading and wait until the device is free: many cameras serve few at a time."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, JOIN)

    def _taken(self) -> Frame | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _work(self) -> None:
        try:
            self._camera.open()
            while not self._stop.is_set():
                frame = self._camera.read()
                if frame is not None:
                    self._put(frame)
        except Exception as error:  # noqa: BLE001 - raised again where the frames are read
            self._error = error
        finally:
            self._camera.close()
            self._tell()

    def _put(self, frame: Frame) -> None:
        with self._lock:
            self._waiting.append(frame)
            late = len(self._waiting) > SLOTS
            if late:
                self._waiting.popleft()
        if late:
            self._dropped(DROPPED_NEWEST_FIRST)
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone already
            self._loop.call_soon_threadsafe(self._wake.set)
