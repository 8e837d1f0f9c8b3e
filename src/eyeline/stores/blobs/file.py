"""Blobs in a folder: `<root>/<site>/<two hex digits>/<sha256>`, durable before `put` returns.

A blob is written beside its place under a name of its own, fsynced, and linked into place; then the folder is fsynced. A
reader therefore sees all of it or nothing, and two writers of the same bytes do not meet.
"""

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from eyeline.core.errors import BlobError
from eyeline.core.types import BlobRef
from eyeline.stores.blobs.names import is_sha256, names_of, require_names

T = TypeVar("T")

#: Threads that wait for the disk; fsyncs of different blobs overlap.
THREADS = 8
#: Seconds after which an unfinished file of a writer that died is removed.
STALE_SECONDS = 3600.0

#: Seconds after which a blob's folder entry is surely on the disk.
SETTLED_SECONDS = 60.0
#: Bytes of the largest blob that is copied on the event loop where the kernel has it in memory.
SMALL = 1_000_000
#: Bytes of the disk that pictures leave free, and at most this share of a small one: results, jobs and metrics, which tell
#: what became of the pictures that were accepted, lie on the same disk most of the time.
RESERVE = 100_000_000
RESERVE_SHARE = 0.05

_PART = ".part-"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderBlobs:
    """BlobStore at `file:///absolute/folder`, which is made on first use. No file outside of it is ever touched."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc not in {"", "localhost"} or not parts.path.strip("/"):
            raise BlobError(
                f"the blob store needs a folder, and {url!r} names none; write file:///absolute/folder",
                transient=False,
            )
        self.root = Path("/" + unquote(parts.path).lstrip("/"))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")
        self._known: set[Path] = set()
        self._closed = False

    async def put(self, site: str, data: bytes, sha256: str) -> BlobRef:
        """Keep the bytes; where they lie already, only their time is set to now."""
        place = self._place(site, sha256)
        await self._run(lambda: self._put(place, data))
        return BlobRef(f"{site}/{sha256}", len(data), sha256)

    async def get(self, ref: BlobRef) -> bytes:
        """The bytes; a size other than the reference's is refused."""
        place = self._of(ref.url)
        data = None if self._closed else _at_hand(place, ref)
        return await self._run(lambda: _read(place, ref)) if data is None else data

    async def delete(self, url: str, *, older_than: float | None = None) -> None:
        """Remove it, if it is there and was not touched within `older_than` seconds."""
        place = self._of(url)
        if older_than is None:
            await self._run(lambda: place.unlink(missing_ok=True))
        else:
            before = time.time() - older_than
            await self._run(lambda: _delete_untouched(place, before))

    async def list(self, *, older_than: float) -> AsyncIterator[BlobRef]:
        """Blobs not touched for so long, folder by folder; what dead writers left half-written is removed on the way."""
        before = time.time() - older_than
        for folder in await self._run(partial(_blob_folders, self.root)):
            for ref in await self._run(partial(_aged, folder, before)):
                yield ref

    async def close(self) -> None:
        """Finish what is being written, then give back the threads."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    def path_of(self, url: str) -> Path:
        """Where a blob's file lies: for backups, which link or copy it. Raises BlobError for a URL that is none."""
        return self._of(url)

    def _of(self, url: str) -> Path:
        return self._place(*names_of(url))

    def _place(self, site: str, sha256: str) -> Path:
        require_names(site, sha256)
        return self.root / site / sha256[:2] / sha256

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise BlobError("the blob store is closed; open it again", transient=False)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._told, work)

    def _told(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            raise _blob_error(error, self.root) from error

    def put_now(self, site: str, data: bytes, sha256: str) -> BlobRef:
        """`put` for a caller who is in a thread of its own already: blocks until the bytes are durable."""
        place = self._place(site, sha256)
        self._told(lambda: self._put(place, data))
        return BlobRef(f"{site}/{sha256}", len(data), sha256)

    def _put(self, place: Path, data: bytes) -> None:
        if _touched(place, len(data)):
            return
        folder = place.parent
        self._ready(folder)
        part = folder / _part_name()
        try:
            try:
                _write(part, data)
            except FileNotFoundError:  # the folder was removed since we saw it
                self._known.discard(folder)
                self._ready(folder)
                _write(part, data)
            part.replace(place)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _fsync_folder(folder)

    def _ready(self, folder: Path) -> None:
        """Make the folder and its parents, each fsynced into the one above; what lies on the way must be no link."""
        if folder in self._known:
            return
        for step in reversed([folder, *folder.parents]):
            if not step.is_relative_to(self.root) and step not in self.root.parents:
                continue
            try:
                step.mkdir(mode=0o750)
            except FileExistsError:
                if step.is_relative_to(self.root) and step != self.root and step.is_symlink():
                    raise BlobError(
                        f"{step} is a link; the blob store follows none: remove it", transient=False
                    ) from None
            else:
                _fsync_folder(step.parent)
        self._known.add(folder)


def _touched(place: Path, size: int) -> bool:
    """Whether the whole blob is there already; its time is now then, so that the sweeper lets it be."""
    try:
        found = place.stat(follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        os.utime(place, follow_symlinks=False)
        if time.time() - found.st_ctime < SETTLED_SECONDS:
            _fsync_folder(place.parent)  # whoever linked it into place may not have come to that yet
    except FileNotFoundError:
        return False
    return True


def _leave_room(folder: Path, size: int) -> None:
    """Raises BlobError where the disk would be as good as full with so many bytes more."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    reserve = min(RESERVE, int(RESERVE_SHARE * disk.f_blocks * disk.f_frsize))
    if free - size < reserve:
        raise BlobError(
            f"the disk that holds {folder.parent.parent} is full ({free / 1e6:.0f} MB left, of which pictures leave "
            f"{reserve / 1e6:.0f} MB to results and queue); free space there"
        )


def _write(part: Path, data: bytes) -> None:
    _leave_room(part.parent, len(data))
    descriptor = os.open(part, _WRITE, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _at_hand(place: Path, ref: BlobRef) -> bytes | None:
    """The bytes where the kernel has them all in memory, as it has those just written: a thread would cost more than this
    copy. None where the disk would have to be waited for, and for all that is not as it should be.
    """
    if not hasattr(os, "RWF_NOWAIT") or ref.size > SMALL:
        return None
    try:
        descriptor = os.open(place, _READ | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        data = bytearray(ref.size + 1)  # one more, to see that nothing follows
        whole = os.preadv(descriptor, [data], 0, os.RWF_NOWAIT) == ref.size
        return bytes(memoryview(data)[: ref.size]) if whole else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _read(place: Path, ref: BlobRef) -> bytes:
    try:
        descriptor = os.open(place, _READ)
    except FileNotFoundError as error:
        raise BlobError(f"there is no blob {ref.url}; it was deleted, or never kept here", transient=False) from error
    try:
        size = os.fstat(descriptor).st_size
        if size != ref.size:
            raise BlobError(
                f"the blob {ref.url} has {size} bytes and should have {ref.size}: it was cut or changed; "
                "restore it from a backup",
                transient=False,
            )
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def _aged(folder: Path, before: float) -> list[BlobRef]:
    """The blobs of one folder last touched before then, oldest first."""
    found: list[tuple[float, BlobRef]] = []
    for entry in _entries(folder):
        with contextlib.suppress(FileNotFoundError):
            told = entry.stat(follow_symlinks=False)
            if entry.name.startswith(_PART):
                _sweep_part(entry, told.st_mtime)
            elif is_sha256(entry.name) and stat.S_ISREG(told.st_mode) and told.st_mtime < before:
                ref = BlobRef(f"{folder.parent.name}/{entry.name}", told.st_size, entry.name)
                found.append((told.st_mtime, ref))
    return [ref for _, ref in sorted(found, key=lambda pair: pair[0])]


def _delete_untouched(place: Path, before: float) -> None:
    """Remove a blob unless someone put it again meanwhile: taken aside first, so that no put can touch it unseen."""
    aside = place.with_name(_part_name())
    try:
        if place.stat(follow_symlinks=False).st_mtime >= before:
            return
        place.rename(aside)
    except FileNotFoundError:
        return
    if aside.stat(follow_symlinks=False).st_mtime >= before:
        with contextlib.suppress(FileExistsError):
            place.hardlink_to(aside)
    aside.unlink()


def _sweep_part(entry: "os.DirEntry[str]", touched: float) -> None:
    if touched < time.time() - STALE_SECONDS:
        Path(entry.path).unlink()


def _part_name() -> str:
    return f"{_PART}{os.getpid()}-{os.urandom(6).hex()}"


def _blob_folders(root: Path) -> list[Path]:
    return [folder for site in _subfolders(root) for folder in _subfolders(site)]


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries


def _subfolders(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False))


def _blob_error(error: OSError, root: Path) -> BlobError:
    """What the system said, as a BlobError that says what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return BlobError(f"the disk that holds {root} is full ({error.strerror}); free space there")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        # passing, for it waits for a person: no picture is at fault, and none may fail for it
        return BlobError(
            f"{error.filename or root}: {error.strerror}; give this user the right to read and write there"
        )
    if error.errno == errno.ELOOP:
        return BlobError(f"{error.filename} is a link; the blob store follows none", transient=False)
    return BlobError(f"{error.filename or root}: {error.strerror or error}")
