"""Backup while Eyeline works, and restore into an empty folder.

A backup is a folder: `results.db` (one moment of the database), `blobs/`, `backup.json`, and `MANIFEST.sha256` over both.
The database is copied first and the pictures after it: a picture lies in the blob store before its job is in the database,
and never changes, so that every job of the copy has its picture. The queue is not copied. It holds nothing that the
database does not: restoring marks unfinished jobs as not enqueued, and the relay puts them on the new queue.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import msgspec

from eyeline import __version__
from eyeline.core import embedded
from eyeline.core.backups import LAST, LastBackup
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import BackendError, ConfigError
from eyeline.core.settings import Settings, mask
from eyeline.core.telemetry import logger
from eyeline.core.types import BlobRef
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action

log = logger("backup")

Progress = Callable[[int, int], None]

DATABASE, BLOBS, MANIFEST, ABOUT = "results.db", "blobs", "MANIFEST.sha256", "backup.json"
#: Blobs of every age, also those that another clock dated in the future.
ANY_AGE = -timedelta(days=3650).total_seconds()
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class About:
    """What a backup says of itself, in backup.json."""

    created: str
    eyeline: str
    blobs: int
    bytes: int
    schema_version: int = 1


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What came back: pictures, and unfinished jobs that the relay will enqueue."""

    blobs: int
    bytes: int
    unfinished: int


def backup(settings: Settings, target: Path, progress: Progress = lambda _done, _total: None) -> About:
    """Copy results and pictures to `target`, an empty or new folder. Blocks; others may go on working.

    Pictures are hard links where the file system is the same. `progress` is told files done and in all. Raises ConfigError
    where the stores are not the embedded ones or the folder is not empty, BackendError where a copy fails. That there is one
    is noted in the database, for the audit and the system page; where that fails, the backup is as good.
    """
    database, blobs = _embedded(settings)
    _require_empty(target, "backup")
    part = _part(target)
    try:
        about = asyncio.run(_copy(database, blobs, part, progress))
        _arrive(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    size = about.bytes + (target / DATABASE).stat().st_size
    last = LastBackup(at=about.created, to=str(target.absolute()), blobs=about.blobs, bytes=size)
    try:
        asyncio.run(_note(settings.results.url, last))
    except BackendError as error:
        log.warning("the backup is whole, but the database keeps no note of it", error=str(error))
    return about


def restore(source: Path, data_dir: Path, progress: Progress = lambda _done, _total: None) -> Restored:
    """Lay the backup in `source` into `data_dir`, an empty or new folder, every file checked by its digest. Blocks.

    Nothing is left in `data_dir` where a file is missing or damaged: ConfigError names it.
    """
    _require_empty(data_dir, "restore")
    expected = dict(_manifest(source))
    part = _part(data_dir)
    try:
        for done, (name, digest) in enumerate(expected.items()):
            progress(done, len(expected))
            _checked_copy(source, part, name, digest)
        unfinished = asyncio.run(_requeue(part))
        _arrive(part, data_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    progress(len(expected), len(expected))
    pictures = [data_dir / name for name in expected if name.startswith(BLOBS + "/")]
    size = sum(path.stat().st_size for path in pictures)
    return Restored(blobs=len(pictures), bytes=size, unfinished=unfinished)


def _embedded(settings: Settings) -> tuple[Path, str]:
    """The database file and the blob URL; other stores have their own ways to be backed up."""
    if not settings.results.url.startswith("sqlite:"):
        raise ConfigError(
            f"`eyeline backup` copies the embedded stores; results are at {mask(settings.results.url)}. Back that server up "
            "with its own tool (pg_dump --format=custom --file=results.dump URL), and the pictures after it, not before; to "
            "restore, pg_restore into an empty database, the pictures to where they were, an empty queue, then "
            "`eyeline audit verify`. Step by step: docs/backends/results-postgresql.md, Backup"
        )
    if not settings.blobs.url.startswith("file:"):
        raise ConfigError(
            f"`eyeline backup` copies the embedded stores; blobs are at {mask(settings.blobs.url)}. Copy the database file "
            "first (sqlite3 FILE '.backup COPY'), and that bucket after it by its own means (versions, aws s3 sync); to "
            "restore, lay both back and start with an empty queue"
        )
    database = embedded.path_of(settings.results.url)
    if not database.exists():
        raise ConfigError(f"there is no results database at {database}; is data_dir the right one?")
    return database, settings.blobs.url


def _require_empty(folder: Path, command: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder; `eyeline {command}` overwrites nothing: name another")


def _part(folder: Path) -> Path:
    """A folder beside the target, so that the target is there whole or not at all."""
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = folder.absolute().with_name(f".{folder.name}.part-{os.getpid()}")
    part.mkdir()
    return part


def _arrive(part: Path, target: Path) -> None:
    os.sync()  # once for all files, not for each
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()
    part.rename(target)
    os.sync()


async def _copy(database: Path, blobs_url: str, part: Path, progress: Progress) -> About:
    await asyncio.to_thread(embedded.copy_database, database, part / DATABASE)
    blobs = FolderBlobs(blobs_url)
    try:
        total = 1 + sum([1 async for _ in _all(blobs)])
        names: list[tuple[str, str]] = []
        size = 0
        async for ref in _all(blobs):
            progress(1 + len(names), max(total, 1 + len(names)))
            if await asyncio.to_thread(_take, blobs.path_of(ref.url), part / BLOBS / _place(ref)):
                names.append((f"{BLOBS}/{_place(ref)}", ref.sha256))
                size += ref.size
    finally:
        await blobs.close()
    about = About(created=isoformat(utcnow()), eyeline=__version__, blobs=len(names), bytes=size)
    await asyncio.to_thread(_describe, part, about, names)
    progress(1 + len(names), 1 + len(names))
    return about


async def _note(results_url: str, last: LastBackup) -> None:
    """The schema stays as it is: a backup before an update changes nothing."""
    results = open_results(results_url)
    try:
        action = Action(what="backup", body=msgspec.to_builtins(last))
        await results.keep_state(LAST, msgspec.json.encode(last), action)
    finally:
        await results.close()


async def _all(blobs: FolderBlobs) -> AsyncIterator[BlobRef]:
    async for ref in blobs.list(older_than=ANY_AGE):
        yield ref


def _place(ref: BlobRef) -> str:
    site, _, sha256 = ref.url.partition("/")
    return f"{site}/{sha256[:2]}/{sha256}"


def _take(source: Path, target: Path) -> bool:
    """Link or copy one picture; False where retention removed it meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        return False
    except OSError:  # another file system, or one without links
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source, target)
        return target.exists()
    return True


def _describe(part: Path, about: About, pictures: list[tuple[str, str]]) -> None:
    (part / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(asdict(about)), indent=2) + b"\n")
    named = [(name, _digest(part / name)) for name in (ABOUT, DATABASE)] + pictures
    lines = [f"{digest}  {name}\n" for name, digest in sorted(named)]
    (part / MANIFEST).write_text("".join(lines), encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(source: Path) -> Iterator[tuple[str, str]]:
    """Relative name → digest; names that lead out of the folder are refused."""
    try:
        lines = (source / MANIFEST).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"{source} is no backup: {MANIFEST} cannot be read ({error.strerror}); name the folder that `eyeline backup` made"
        ) from error
    for line in lines:
        digest, _, name = line.partition("  ")
        parts = Path(name).parts
        if len(digest) != 64 or not parts or ".." in parts or Path(name).is_absolute():
            raise ConfigError(f"{source / MANIFEST}: {line[:100]!r} is no line of a manifest; use another backup")
        yield name, digest


def _checked_copy(source: Path, part: Path, name: str, digest: str) -> None:
    target = part / name
    target.parent.mkdir(parents=True, exist_ok=True)
    seen = hashlib.sha256()
    try:
        with (source / name).open("rb") as old, target.open("xb") as new:
            while chunk := old.read(_CHUNK):
                seen.update(chunk)
                new.write(chunk)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror or error}; nothing was restored from {source}") from error
    if seen.hexdigest() != digest:
        raise ConfigError(
            f"{source / name} is damaged (its SHA-256 is not the manifest's); nothing was restored, use another backup"
        )


async def _requeue(part: Path) -> int:
    """Bring the schema up to date, hand unfinished jobs to the relay, and see that each has its picture."""
    results = open_results(f"sqlite:///{part / DATABASE}")
    try:
        await results.upgrade()
        unfinished = await results.forget_enqueued()
        for job in await results.unqueued(ANY_AGE, max(1, unfinished)):
            if not (part / BLOBS / _place(job.blob)).exists():
                raise ConfigError(
                    f"job {job.id} is unfinished and its picture {job.blob.url} is not in the backup; use another backup"
                )
    finally:
        await results.close()
    return unfinished
