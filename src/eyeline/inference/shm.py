"""Shared memory segments: how pixels reach a model on the same host without being copied through a socket.

Segments are opened here by hand, not by `multiprocessing.shared_memory`: its resource tracker unlinks a segment of a
live owner when any process that attached to it ends (Python ≤ 3.12). An owner holds a lock on its segment for as long
as it lives, so `sweep()` can tell a dead owner's segment even across PID namespaces.
"""

import contextlib
import fcntl
import itertools
import math
import mmap
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from eyeline.core.clock import boot_id
from eyeline.core.errors import ConfigError

FOLDER = Path("/dev/shm")  # noqa: S108 - where the kernel keeps POSIX shared memory; not a temporary file
PREFIX = "eyeline"
#: A segment without a lock whose PID lives (a PID used again) is swept only when it is older than this, in seconds.
UNLOCKED_GRACE = 60.0

_counter = itertools.count()
_ours = re.compile(rf"^{PREFIX}-(?P<boot>[0-9a-f]{{8}})-(?P<pid>\d+)-(?P<n>\d+)$")
_safe = re.compile(r"^[A-Za-z0-9_.-]{1,200}$")


class Segment:
    """A mapped piece of shared memory. The owner (`create`) removes it with `unlink`; others (`attach`) only close."""

    def __init__(self, name: str, descriptor: int, size: int, *, owner: bool) -> None:
        self.name = name
        self.size = size
        self.owner = owner
        self._descriptor = descriptor
        self._map: mmap.mmap | None = mmap.mmap(descriptor, size)

    @classmethod
    def create(cls, size: int, name: str | None = None) -> Self:
        """A new segment of `size` bytes, zeroed, its memory reserved. Raises ConfigError where there is no room for it."""
        name = name or new_name()
        try:
            descriptor = _open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise ConfigError(f"cannot make the shared memory segment {name!r}: {error}") from error
        try:
            with contextlib.suppress(OSError):  # not every system can lock shared memory
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            _reserve(descriptor, size)
            return cls(name, descriptor, size, owner=True)
        except OSError as error:
            os.close(descriptor)
            unlink(name)
            raise ConfigError(_no_room(size, error)) from error

    @classmethod
    def attach(cls, name: str) -> Self:
        """Somebody else's segment. Raises FileNotFoundError where there is none, ValueError for a name that is a path."""
        descriptor = _open(name, os.O_RDWR)
        try:
            return cls(name, descriptor, os.fstat(descriptor).st_size, owner=False)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def buffer(self) -> memoryview:
        """All of it, writable."""
        if self._map is None:
            raise ValueError(f"shared memory segment {self.name!r} is closed")
        return memoryview(self._map)

    @property
    def descriptor(self) -> int:
        """The open file, for a child process that is to inherit it."""
        return self._descriptor

    def view(self, offset: int, shape: Sequence[int], dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """An array in place, not a copy. Raises ValueError where it would reach beyond the segment."""
        kind = np.dtype(dtype)
        length = math.prod(shape) * kind.itemsize
        if offset < 0 or min(shape, default=0) < 0 or offset + length > self.size:
            raise ValueError(
                f"bytes {offset} to {offset + length} are outside of the shared memory segment {self.name!r} of {self.size}"
            )
        if self._map is None:
            raise ValueError(f"shared memory segment {self.name!r} is closed")
        count = length // kind.itemsize if kind.itemsize else 0
        return np.frombuffer(self._map, kind, count, offset).reshape(tuple(shape))

    def current(self) -> bool:
        """Whether the name still leads to this very memory (its owner may have made it anew)."""
        try:
            descriptor = _open(self.name, os.O_RDWR)
        except OSError:
            return False
        with os.fdopen(descriptor):
            return os.path.sameopenfile(descriptor, self._descriptor)

    def close(self) -> None:
        """Unmap. Idempotent. Memory that arrays still point into goes when the last of them does."""
        if self._map is None:
            return
        with contextlib.suppress(BufferError):
            self._map.close()
        self._map = None
        os.close(self._descriptor)

    def unlink(self) -> None:
        """Remove the name; who has it mapped keeps it. Idempotent."""
        unlink(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.owner:
            self.unlink()


def new_name() -> str:
    """A name that no other process gives: `eyeline-<boot>-<pid>-<n>` (macOS allows 30 characters)."""
    return f"{PREFIX}-{_boot()}-{os.getpid()}-{next(_counter)}"


def unlink(name: str) -> None:
    """Remove a segment by name. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        if sys.platform == "darwin":
            _posix().shm_unlink(f"/{_checked(name)}")
        else:
            (FOLDER / _checked(name)).unlink()


def sweep() -> list[str]:
    """Remove segments whose owner is dead; returns their names. Does nothing where segments cannot be listed (macOS)."""
    if sys.platform == "darwin" or not FOLDER.is_dir():
        return []
    return [path.name for path in FOLDER.glob(f"{PREFIX}-*") if _orphaned(path) and _removed(path)]


def _orphaned(path: Path) -> bool:
    found = _ours.match(path.name)
    if found is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone meanwhile, or another user's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        age = time.time() - os.fstat(descriptor).st_mtime
    except OSError:  # its owner lives and holds the lock
        return False
    finally:
        os.close(descriptor)
    dead = found["boot"] != _boot() or not _alive(int(found["pid"]))
    return dead or age > UNLOCKED_GRACE


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _boot() -> str:
    return re.sub("[^0-9a-f]", "", boot_id().lower())[:8].ljust(8, "0")


def _checked(name: str) -> str:
    if not _safe.match(name) or name.startswith("."):
        raise ValueError(f"{name!r} is no name for shared memory: letters, digits, '_', '-' and '.' only, no path")
    return name


def _open(name: str, flags: int) -> int:
    if sys.platform == "darwin":
        return int(_posix().shm_open(f"/{_checked(name)}", flags, mode=0o600))
    return os.open(FOLDER / _checked(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class _PosixShm(Protocol):
    def shm_open(self, path: str, flags: int, mode: int = ...) -> int: ...
    def shm_unlink(self, path: str) -> None: ...


def _posix() -> _PosixShm:
    from importlib import import_module  # noqa: PLC0415 - only where there is no /dev/shm

    module: Any = import_module("_posixshmem")
    found: _PosixShm = module
    return found


def _reserve(descriptor: int, size: int) -> None:
    """Claim the pages now: a full /dev/shm must be an error here, not a SIGBUS at the first write."""
    os.ftruncate(descriptor, size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def _no_room(size: int, error: OSError) -> str:
    free = ""
    with contextlib.suppress(OSError):
        stat = os.statvfs(FOLDER)
        free = f" {FOLDER} has {stat.f_bavail * stat.f_frsize / 1e6:.0f} MB free;"
    return (
        f"cannot reserve {size / 1e6:.0f} MB of shared memory ({error.strerror});{free} "
        "give the container more (docker run --shm-size=512m) or lower worker.concurrency"
    )
