"""What there is: pictures counted in their store, the database, the disk. And pictures that no job names, which are removed."""

import os
from collections import Counter
from pathlib import Path

import msgspec

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.types import BlobRef
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results.base import ResultStore

#: Seconds after which a picture without a job is an orphan: long after any upload has been answered.
ORPHAN_SECONDS = 24 * 3600.0
#: Pictures asked about at a time.
PAGE = 500
#: Blobs of every age, also those that another clock dated in the future.
ANY_AGE = -1e9


class Disk(msgspec.Struct, frozen=True):
    """The disk that pictures lie on, in bytes: all of it, and what is free to use."""

    total: int
    free: int


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """What there was at a time: blobs (pictures and what was made of them), by site in bytes, and the database."""

    at: str
    blobs: int
    bytes: int
    by_site: dict[str, int]
    database: int
    disk: Disk | None = None


async def take_stock(blobs: BlobStore, results: ResultStore) -> Stock:
    """Look at every blob there is. Raises BlobError and StoreError."""
    count, by_site = 0, Counter[str]()
    async for ref in blobs.list(older_than=ANY_AGE):
        count += 1
        by_site[ref.url.partition("/")[0]] += ref.size
    return Stock(
        at=isoformat(utcnow()),
        blobs=count,
        bytes=by_site.total(),
        by_site=dict(by_site),
        database=await results.size(),
        disk=disk_of(blobs.root) if isinstance(blobs, FolderBlobs) else None,
    )


def disk_of(folder: Path) -> Disk | None:
    """None where there is no such folder yet."""
    try:
        found = os.statvfs(folder)
    except FileNotFoundError:
        return None
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


async def sweep_orphans(blobs: BlobStore, results: ResultStore, older_than: float = ORPHAN_SECONDS) -> int:
    """Delete the blobs that no job names and nobody put for `older_than` seconds; returns how many.

    A blob that is put again while this runs stays. Raises BlobError and StoreError; running it again is harmless.
    """
    removed = 0
    page: list[BlobRef] = []
    async for ref in blobs.list(older_than=older_than):
        page.append(ref)
        if len(page) == PAGE:
            removed += await _sweep(blobs, results, page, older_than)
            page = []
    return removed + await _sweep(blobs, results, page, older_than)


async def _sweep(blobs: BlobStore, results: ResultStore, page: list[BlobRef], older_than: float) -> int:
    named = await results.named_blobs([ref.url for ref in page]) if page else set()
    orphans = [ref for ref in page if ref.url not in named]
    for ref in orphans:
        await blobs.delete(ref.url, older_than=older_than)
    return len(orphans)
