"""A video file as a camera: frames by sampling rate, encoded once as JPEG; looped and paced it plays like a live one."""

import asyncio
import struct
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import cv2
import numpy as np
import simplejpeg

from eyeline.cameras import path_of
from eyeline.cameras.base import Frame, Memory
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.settings import CameraSettings

_ASSUMED_FPS = 25.0


class VideoSource:
    """Frames of a video file. Live (paced as recorded) where frames may be dropped; else as fast as they are taken.

    A video that is not looped is captured once: after a restart it goes on behind the last captured frame.
    """

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        self._path = path_of(url)
        self._fps = settings.fps
        self._loop = settings.loop
        self._quality = settings.quality
        self._memory = memory
        self.live = settings.drop == "newest" or (settings.drop == "auto" and settings.loop)
        self._laps = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="video")

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; ends with the file unless it is looped."""
        loop = asyncio.get_running_loop()
        while True:
            playback = await loop.run_in_executor(self._thread, self._open)
            while (frame := await loop.run_in_executor(self._thread, playback.next)) is not None:
                if self.live:
                    await asyncio.sleep((frame.captured_at - utcnow()).total_seconds())
                yield frame
            if not self._loop:
                return
            if playback.taken == 0:
                raise CameraError(f"no frames in {self._path}; it cannot be looped")

    async def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> "_Playback":
        if not self._path.is_file():
            raise CameraError(f"no video file at {self._path}; correct the camera's url")
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_ANY, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            raise CameraError(f"{self._path} cannot be opened as a video; use MP4, AVI, MKV or WebM")
        status = self._path.stat()
        once = None if self._loop else f"{self._path.name}|{status.st_size}|{status.st_mtime_ns}"
        lap, self._laps = self._laps, self._laps + 1
        return _Playback(capture, self._fps, self._quality, self._memory, live=self.live, once=once, lap=lap)


class _Playback:
    """One pass through a file; used by one thread."""

    def __init__(
        self, capture: Any, fps: float, quality: int, memory: Memory, *, live: bool, once: str | None, lap: int
    ) -> None:
        self._capture = capture
        self._native = capture.get(cv2.CAP_PROP_FPS) or _ASSUMED_FPS
        self._step = 1 / fps if fps else 0.0
        self._quality = quality
        self._memory = memory
        self._once = once
        self._lap = lap
        self._index = 0
        self._due = 0.0
        self.taken = 0
        self._live = live
        self._start = utcnow() if live else self._recorded(capture)

    def next(self) -> Frame | None:
        """The next frame of the sample, or None at the end."""
        while self._capture.grab():
            index, self._index = self._index, self._index + 1
            position = index / self._native
            if position + 1e-9 < self._due:
                continue
            self._due = max(self._due + self._step, position)
            self.taken += 1
            origin = None if self._once is None else f"{self._once}|{index}"
            if origin is not None and self._memory.seen(origin):
                continue
            whole, pixels = self._capture.retrieve()
            if whole:
                return self._frame(pixels, position, origin)
        self._capture.release()
        return None

    def _frame(self, pixels: Any, position: float, origin: str | None) -> Frame:
        if self._live:  # one that falls behind plays on from now: its frames do not grow older and older
            self._start = max(self._start, utcnow() - timedelta(seconds=position))
        captured_at = self._start + timedelta(seconds=position)
        meta = {"position": f"{position:.3f}", "lap": str(self._lap)}
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=self._quality, colorspace="BGR", colorsubsampling="420"
        )
        # another pass through the same clip is another moment: its frames are not the bytes of the first
        return Frame(data if origin else stamped(data, captured_at), captured_at, origin, meta)

    def _recorded(self, capture: Any) -> datetime:
        """A file that is read faster than it was recorded ended now, so that no frame lies in the future."""
        frames = max(0.0, capture.get(cv2.CAP_PROP_FRAME_COUNT))
        return utcnow() - timedelta(seconds=frames / self._native)


def stamped(jpeg: bytes, moment: datetime) -> bytes:
    """`jpeg` with its capture time in EXIF (DateTimeOriginal, to the microsecond, UTC), as cameras write it."""
    texts = {
        0x9003: moment.strftime("%Y:%m:%d %H:%M:%S").encode(),
        0x9011: b"+00:00",
        0x9291: moment.strftime("%f").encode(),
    }
    at = 26 + 2 + 12 * len(texts) + 4  # header, IFD0 with one entry, then the EXIF IFD and its texts
    entries, values = b"", b""
    for tag, text in texts.items():
        entries += struct.pack("<HHII", tag, 2, len(text) + 1, at + len(values))
        values += text + b"\0"
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0)
    tiff += struct.pack("<H", len(texts)) + entries + bytes(4) + values
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
