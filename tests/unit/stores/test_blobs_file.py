"""What holds behind the folder's promises: order on the disk, links, dead writers, full disks."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eyeline.core.errors import BlobError
from eyeline.core.types import BlobRef
from eyeline.stores.blobs import file
from eyeline.stores.blobs.file import FolderBlobs

DATA = b"picture" * 1000
SHA = hashlib.sha256(DATA).hexdigest()
URL = f"north/{SHA}"


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[FolderBlobs]:
    opened = FolderBlobs(f"file://{tmp_path}/blobs")
    yield opened
    await opened.close()


async def test_file_then_name_then_folder_reach_the_disk_in_this_order(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.put("north", b"x", "0" * 63 + "1")
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def told_fsync(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name[:6])
        fsync(descriptor)

    def told_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(Path, "replace", told_rename)
    await blobs.put("north", DATA, SHA)
    assert steps == ["north", ".part-", "rename", SHA[:2]]


async def test_what_the_kernel_has_in_memory_is_read_without_a_thread(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("this system cannot tell what is in memory")
    ref = await blobs.put("north", DATA, SHA)
    monkeypatch.setattr(file, "_read", None)
    assert await blobs.get(ref) == DATA


async def test_what_would_wait_for_the_disk_is_read_in_a_thread(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await blobs.put("north", DATA, SHA)

    def not_here(*_arguments: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", not_here)
    assert await blobs.get(ref) == DATA


async def test_a_repeated_put_writes_nothing_and_touches(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    await blobs.put("north", DATA, SHA)
    place = blobs.path_of(URL)
    os.utime(place, (1, 1))
    monkeypatch.setattr(file, "_write", None)
    await blobs.put("north", DATA, SHA)
    assert place.stat().st_mtime > time.time() - 60


async def test_a_cut_file_is_written_anew(blobs: FolderBlobs) -> None:
    ref = await blobs.put("north", DATA, SHA)
    blobs.path_of(URL).write_bytes(b"cut")
    await blobs.put("north", DATA, SHA)
    assert await blobs.get(ref) == DATA


async def test_a_folder_removed_meanwhile_is_made_again(blobs: FolderBlobs) -> None:
    ref = await blobs.put("north", DATA, SHA)
    blobs.path_of(URL).unlink()
    blobs.path_of(URL).parent.rmdir()
    assert await blobs.get(await blobs.put("north", DATA, SHA)) == DATA
    assert ref.size == len(DATA)


async def test_links_are_followed_nowhere(blobs: FolderBlobs, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(DATA)
    place = blobs.path_of(URL)
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "secret")
    with pytest.raises(BlobError, match="is a link"):
        await blobs.get(BlobRef(URL, len(DATA), SHA))
    (blobs.root / "south").symlink_to(outside)
    with pytest.raises(BlobError, match="is a link"):
        await blobs.put("south", DATA, SHA)
    assert [ref async for ref in blobs.list(older_than=-1)] == []
    await blobs.put("north", DATA, SHA)
    assert not place.is_symlink()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


async def test_a_full_disk_is_said_and_leaves_nothing_behind(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    blobs.path_of(URL).parent.mkdir(parents=True)
    with pytest.raises(BlobError, match=r"is full.*free space") as caught:
        await blobs.put("north", DATA, SHA)
    assert caught.value.transient
    assert list(blobs.path_of(URL).parent.iterdir()) == []


async def test_pictures_leave_room_for_the_results_that_tell_of_them(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.put("north", DATA, SHA)
    monkeypatch.setattr(file, "RESERVE", 10**18)
    monkeypatch.setattr(file, "RESERVE_SHARE", 1.0)
    await blobs.put("north", DATA, SHA)  # it is there already
    with pytest.raises(BlobError, match=r"is full.*free space there") as caught:
        await blobs.put("south", DATA, SHA)
    assert caught.value.transient


async def test_what_a_dead_writer_left_is_swept_after_an_hour(blobs: FolderBlobs) -> None:
    await blobs.put("north", DATA, SHA)
    folder = blobs.path_of(URL).parent
    old, young = folder / ".part-1-a", folder / ".part-1-b"
    old.write_bytes(b"1")
    young.write_bytes(b"1")
    os.utime(old, (1, 1))
    assert [ref.url async for ref in blobs.list(older_than=-1)] == [URL]
    assert (old.exists(), young.exists()) == (False, True)


async def test_a_put_between_listing_and_deleting_is_not_undone(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await blobs.put("north", DATA, SHA)
    place = blobs.path_of(URL)
    os.utime(place, (1, 1))
    rename = Path.rename

    def put_just_before(self: Path, target: Path) -> Path:
        os.utime(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", put_just_before)
    await blobs.delete(URL, older_than=60)
    assert await blobs.get(ref) == DATA
    assert [path.name for path in place.parent.iterdir()] == [SHA]


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from eyeline.stores.blobs import file

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "rename":
    Path.replace = die
else:
    file._fsync_folder = lambda folder: die() if len(folder.name) == 2 else None
asyncio.run(file.FolderBlobs(sys.argv[1]).put("north", b"picture" * 1000, sys.argv[3]))
"""


@pytest.mark.parametrize(("when", "there"), [("rename", 0), ("folder", 1)])
def test_a_kill_leaves_all_of_a_blob_or_nothing(tmp_path: Path, when: str, there: int) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, f"file://{tmp_path}/b", when, SHA], check=False)
    assert died.returncode == -signal.SIGKILL
    found = [path for path in (tmp_path / "b").rglob("*") if path.name == SHA]
    assert [path.read_bytes() for path in found] == [DATA] * there


@pytest.mark.parametrize("url", ["file://", "file:///", "file://elsewhere/x"])
def test_a_url_without_a_folder_is_refused(url: str) -> None:
    with pytest.raises(BlobError, match="needs a folder"):
        FolderBlobs(url)


async def test_a_folder_without_rights_waits_for_a_person_and_fails_no_image(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_descriptor: int) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(BlobError, match="right to read and write") as caught:
        await blobs.put("north", DATA, SHA)
    assert caught.value.transient
