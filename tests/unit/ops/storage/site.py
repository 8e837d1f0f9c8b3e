"""A small site for tests of retention: results with real pictures in a real store, and a clock that is set by hand."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from eyeline.core.ids import derived_id
from eyeline.core.settings import RetentionSettings
from eyeline.core.types import BlobRef, Classification, Detection, ImageInfo, Job, Result
from eyeline.ops.audit.sealer import Sealer
from eyeline.ops.storage.keeper import Keeper
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.cache.memory import MemoryCache
from eyeline.stores.results import keeping
from eyeline.stores.results.base import NewJob
from eyeline.stores.results.sqlite import SqliteResults, checkpoint
from tests.pictures import jpeg

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FOUND = Detection("carton", 0.9, (10.0, 10.0, 90.0, 70.0), "find")


@dataclass
class Site:
    """Stores, a clock, and what was recorded."""

    blobs: FolderBlobs
    results: SqliteResults
    cache: MemoryCache
    now: datetime = START
    count: int = 0
    bytes_of: dict[str, bytes] = field(default_factory=dict)

    def keeper(self, settings: RetentionSettings | None = None, **words: Any) -> Keeper:
        return Keeper(
            settings or RetentionSettings(**words),
            self.blobs,
            self.results,
            self.cache,
            clock=lambda: self.now,
            grace=0,
        )

    async def take(
        self, *, picture: bytes | None = None, label: str | None = None, unfinished: bool = False, **changes: Any
    ) -> Result:
        """One image that came now, and what was found in it."""
        self.count += 1
        data = picture or jpeg(160, 120, 60 + self.count % 100, seed=self.count)
        digest = hashlib.sha256(data).hexdigest()
        site = changes.get("site", "north")
        ref = await self.blobs.put(site, data, digest)
        words: Mapping[str, Any] = {name: changes[name] for name in ("camera", "ref") if name in changes}
        job = Job(
            id=derived_id(self.now, str(self.count)),
            site=site,
            pipeline="parcels",
            lane="live",
            blob=ref,
            received_at=self.now,
            captured_at=self.now,
            **words,
        )
        await self.results.keep_jobs([NewJob(job=job)])
        values: dict[str, Any] = {
            "id": job.id,
            "status": "completed",
            "site": site,
            "pipeline": job.pipeline,
            "captured_at": job.captured_at,
            "received_at": job.received_at,
            "completed_at": job.received_at,
            "image": ImageInfo(digest, 160, 120, "jpeg", len(data)),
            "detections": [FOUND],
            "classifications": [Classification(label, 0.9, "look")] if label is not None else [],
        }
        result = Result(**(values | changes))
        if not unfinished:
            await self.results.save_many([result])
        return result

    async def seal(self) -> None:
        await Sealer(self.results, lease=0.0).seal_all()

    async def urls(self) -> set[str]:
        """The blobs there are."""
        return {ref.url async for ref in self.blobs.list(older_than=-1e9)}

    async def has(self, result: Result) -> bool:
        """Whether its picture is there as it was received."""
        assert result.image is not None
        return f"{result.site}/{result.image.sha256}" in await self.urls()

    async def picture(self, url: str) -> bytes:
        place = self.blobs.path_of(url)
        return await self.blobs.get(BlobRef(url, place.stat().st_size, url.rpartition("/")[2]))


async def run(keeper: Keeper) -> None:
    """Until there is nothing left to do."""
    more = True
    while more:
        more = False
        for work in keeper.works():
            more |= await work()
    await keeper.drop()


@cache
def empty_database() -> bytes:
    """A database with all its tables, made once."""

    async def make(path: Path) -> bytes:
        made = SqliteResults(f"sqlite:///{path}")
        await made.upgrade()
        await made.close()
        await asyncio.to_thread(checkpoint, path)
        return path.read_bytes()

    with TemporaryDirectory() as folder:
        return asyncio.run(make(Path(folder) / "empty.db"))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Site]:
    (folder / "r.db").write_bytes(await asyncio.to_thread(empty_database))
    blobs, results = FolderBlobs(f"file://{folder}/blobs"), SqliteResults(f"sqlite:///{folder}/r.db")
    cache = MemoryCache(f"memory://{folder}")
    site = Site(blobs, results, cache)
    try:
        with mock.patch.object(keeping, "utcnow", side_effect=lambda: site.now):
            yield site
    finally:
        for each in (blobs, results, cache):
            await each.close()


def after(days: int) -> datetime:
    """A minute later than so many days after the start."""
    return START + days * DAY + timedelta(minutes=1)
