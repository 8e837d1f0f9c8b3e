"""A doorbell between processes that share a file: who has written rings, who waits for news wakes.

Each listener has a FIFO of its own in a folder for temporary files, away from the data, which people copy and search; a ring
is one byte into each. A ring that is missed (by a listener that has just come, or whose temporary files lie elsewhere) costs
only the pause after which every listener looks anyway.
"""

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

_numbers = itertools.count()


class Bell:
    """The bell of the file at `path`."""

    def __init__(self, path: Path) -> None:
        place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
        self._folder = Path(tempfile.gettempdir()) / f"eyeline-{os.getuid()}-{place}"
        self._name = ""
        self._fifo = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    def ring(self) -> None:
        """Wake all other listeners, in this process and in others. From any thread; never blocks, never raises."""
        with contextlib.suppress(OSError):
            _require_own(self._folder)
            for name in os.listdir(self._folder):  # noqa: PTH208 - names are enough, and it is called for every write
                if name != self._name and not name.startswith("."):
                    _push(f"{self._folder}/{name}")

    def listen(self, heard: Callable[[], None]) -> bool:
        """Have `heard` called on the running loop at every ring. False where this file system has no FIFOs."""
        if self._loop is not None:
            return True
        name = f"{os.getpid()}-{next(_numbers)}"
        draft = self._folder / f".{name}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _require_own(self._folder)
            os.mkfifo(draft, 0o600)
            self._fifo = os.open(
                draft, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            )  # also to write: else it reads as ended
            draft.rename(self._folder / name)  # seen by others only now, for they remove what nobody has open
            loop = asyncio.get_running_loop()
            loop.add_reader(self._fifo, self._heard, heard)
        except OSError:
            self._forget()
            return False
        self._name, self._loop = name, loop
        return True

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fifo)
        self._loop = None
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
            self._folder.rmdir()  # the last one takes it away
        self._forget()

    def _heard(self, heard: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fifo, 65_536)
        heard()

    def _forget(self) -> None:
        if self._fifo >= 0:
            os.close(self._fifo)
        self._fifo = -1


def _require_own(folder: Path) -> None:
    """Everyone may write where temporary files lie: what someone else put there is not used. Raises OSError."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "not a folder of this user", str(folder))


def _push(fifo: str) -> None:
    """One byte; what nobody has open any more is removed, what is full will wake its listener anyway."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            with contextlib.suppress(OSError):
                os.unlink(fifo)  # noqa: PTH108
        return
    try:
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\0")
    finally:
        os.close(descriptor)
