"""`eyeline move`: from the stores of one settings file to those of another, for a system that outgrows its machine.

Pictures go first, so that every job in the target has its picture; then the rows. The queue is not moved: it holds nothing
that the `jobs` table does not, and unfinished jobs arrive as not enqueued, for the relay (as after a restore). Started
again after a break, it goes on where it was: a picture that is there is only read and compared.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from eyeline.core import embedded
from eyeline.core.errors import ConfigError
from eyeline.core.settings import Settings, mask
from eyeline.core.types import BlobRef
from eyeline.ops.backup import ANY_AGE
from eyeline.stores.blobs import open_blobs
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.results import open_results
from eyeline.stores.results.copying import copy_rows, count_rows, finish
from eyeline.stores.results.sql import SqlResults

Progress = Callable[[int, int], None]

#: Pictures under way at once.
AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What is in the target now: pictures, rows, and the unfinished jobs that its relay will enqueue."""

    blobs: int
    rows: int
    unfinished: int


class _Told:
    """Counts what is done and tells the caller."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def step(self, count: int = 1) -> None:
        self._done += count
        self._progress(self._done, max(self._total, self._done))


async def move(source: Settings, target: Settings, progress: Progress = lambda _done, _total: None) -> Moved:
    """Copy pictures, jobs, results, events, alerts and keys. Nothing is removed from the source; nobody may use either.

    Raises ConfigError where there is nothing to copy, where the target holds something else, and where a picture is
    damaged; BackendError where a store is away: start it again then.
    """
    if source.results.url == target.results.url:
        raise ConfigError(f"both settings name the results {mask(source.results.url)}; there is nothing to move")
    _require_source(source.results.url)
    async with _opened(source) as (blobs, results), _opened(target) as (new_blobs, new_results):
        urls = {ref.url async for ref in blobs.list(older_than=ANY_AGE)}
        await results.upgrade()
        await new_results.upgrade()
        await results.last_seq()  # numbers what is not numbered yet
        rows = await asyncio.to_thread(count_rows, results)
        told = _Told(progress, len(urls) + rows)
        if source.blobs.url != target.blobs.url:
            await _copy_blobs(blobs, new_blobs, told)
        await asyncio.to_thread(copy_rows, results, new_results, told.step)
        unfinished = await new_results.forget_enqueued()
        await _require_pictures(new_results, urls, unfinished)
        await asyncio.to_thread(finish, new_results)
    progress(len(urls) + rows, len(urls) + rows)
    return Moved(blobs=len(urls), rows=rows, unfinished=unfinished)


def _require_source(url: str) -> None:
    if urlsplit(url).scheme == "sqlite" and not embedded.path_of(url).exists():
        raise ConfigError(f"there is no results database at {embedded.path_of(url)}; is --from-config the right file?")


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[BlobStore, SqlResults]]:
    results = open_results(settings.results.url)
    blobs = open_blobs(settings.blobs.url)
    try:
        if not isinstance(results, SqlResults):
            raise ConfigError(f"{mask(settings.results.url)} is no SQL database; only those are moved")
        yield blobs, results
    finally:
        await results.close()
        await blobs.close()


async def _copy_blobs(source: BlobStore, target: BlobStore, told: _Told) -> None:
    there = {ref.url: ref.size async for ref in target.list(older_than=ANY_AGE)}
    places = asyncio.Semaphore(AT_ONCE)

    async def copy(ref: BlobRef) -> None:
        try:
            await _copy_blob(ref, source, target, there=there.get(ref.url) == ref.size)
            told.step()
        finally:
            places.release()

    try:
        async with asyncio.TaskGroup() as group:
            async for ref in source.list(older_than=ANY_AGE):
                await places.acquire()
                group.create_task(copy(ref))
    except ExceptionGroup as several:
        raise several.exceptions[0] from several  # one word is enough for a person to act on


async def _copy_blob(ref: BlobRef, source: BlobStore, target: BlobStore, *, there: bool) -> None:
    """Put it, and read it back: what is in the target then is what the source had, and what its name says."""
    if there and _is_whole(await target.get(ref), ref):
        return
    data = await source.get(ref)
    if not _is_whole(data, ref):
        raise ConfigError(
            f"the picture {ref.url} is damaged in the source (its SHA-256 is another); restore or delete it"
        )
    await target.put(ref.url.partition("/")[0], data, ref.sha256)
    if not _is_whole(await target.get(ref), ref):
        raise ConfigError(f"the picture {ref.url} came back from the target damaged; look after that store")


def _is_whole(data: bytes, ref: BlobRef) -> bool:
    return hashlib.sha256(data).hexdigest() == ref.sha256


async def _require_pictures(results: SqlResults, urls: set[str], unfinished: int) -> None:
    for job in await results.unqueued(ANY_AGE, max(1, unfinished)):
        if job.blob.url not in urls:
            raise ConfigError(f"job {job.id} is unfinished and its picture {job.blob.url} is not in the source")
