"""A watched folder: files that arrive in it, sent as they are, each once."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from eyeline.cameras import path_of
from eyeline.cameras.base import Frame, Memory
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.settings import CameraSettings
from eyeline.pipeline.headers import sniff

POLL = 0.25
#: A file is complete when it was left alone for this long; one renamed into place usually was.
SETTLE = 0.6
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
_UNFINISHED_SUFFIXES = {".part", ".tmp", ".crdownload", ".filepart", ".partial"}


@dataclass(frozen=True)
class _Found:
    path: Path
    name: str
    size: int
    changed_ns: int

    @property
    def origin(self) -> str:
        return f"{self.name}|{self.size}|{self.changed_ns}"


class FolderSource:
    """Files of a folder and the folders within, oldest first; a file that is written again is a new frame.

    Names that begin with a dot or end in .part, .tmp … are left alone, and so is what has neither an image's name nor an
    image's first bytes. `fps` bounds how many are taken a second.
    """

    live = False

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        self._folder = path_of(url)
        self._pause = 1 / settings.fps if settings.fps else 0.0
        self._memory = memory
        self._settling: dict[str, float] = {}
        self._done: set[str] = set()

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; never ends."""
        while True:
            for found in await asyncio.to_thread(self._complete):
                frame = await asyncio.to_thread(self._read, found)
                if frame is not None:
                    self._done.add(found.origin)
                    yield frame
                    await asyncio.sleep(self._pause)
            await asyncio.sleep(POLL)

    async def close(self) -> None:
        """Nothing is held open."""

    def _complete(self) -> list[_Found]:
        """New files that nobody writes any more, oldest first."""
        if not self._folder.is_dir():
            raise CameraError(f"no folder at {self._folder}; make it, or correct the camera's url")
        new = [found for found in self._files() if self._is_new(found.origin)]
        self._settling = {found.origin: self._settling.get(found.origin, time.monotonic()) for found in new}
        return sorted(filter(self._is_settled, new), key=lambda found: (found.changed_ns, found.name))

    def _is_new(self, origin: str) -> bool:
        return origin not in self._done and not self._memory.seen(origin)

    def _is_settled(self, found: _Found) -> bool:
        old = time.time() - found.changed_ns / 1e9 > SETTLE
        return found.size > 0 and (old or time.monotonic() - self._settling[found.origin] > SETTLE)

    def _files(self) -> Iterator[_Found]:
        for folder, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") or path.suffix.lower() in _UNFINISHED_SUFFIXES:
                    continue
                found = self._found(path)
                if found is not None:
                    yield found

    def _found(self, path: Path) -> _Found | None:
        try:
            status = path.stat()
        except OSError:
            return None  # gone again
        return _Found(path, str(path.relative_to(self._folder)), status.st_size, status.st_mtime_ns)

    def _read(self, found: _Found) -> Frame | None:
        """The file's own bytes; None where it went away, changed, or is no image by name nor by bytes."""
        try:
            data = found.path.read_bytes()
        except OSError:
            return None
        if self._found(found.path) != found:
            return None  # someone still writes: seen again at the next look
        if found.path.suffix.lower() not in _IMAGE_SUFFIXES and sniff(data) is None:
            self._done.add(found.origin)
            return None
        changed = datetime.fromtimestamp(found.changed_ns / 1e9, UTC)
        # what lay there before this camera's first run counts as captured when it is found
        captured = min(changed, utcnow()) if changed >= self._memory.since else utcnow()
        return Frame(data, captured, found.origin)
