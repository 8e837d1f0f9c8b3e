"""Pictures without a job are swept, those of any job stay."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from eyeline.core.ids import uuid7
from eyeline.core.types import BlobRef, Job
from eyeline.ops.storage.stock import sweep_orphans
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results.base import NewJob
from eyeline.stores.results.sqlite import SqliteResults

NOW = datetime(2026, 3, 4, tzinfo=UTC)


async def put(blobs: FolderBlobs, number: int, *, age: float = 1e6) -> BlobRef:
    data = bytes([number])
    ref = await blobs.put("north", data, hashlib.sha256(data).hexdigest())
    place = blobs.path_of(ref.url)
    os.utime(place, (place.stat().st_mtime - age,) * 2)
    return ref


async def test_only_old_pictures_that_no_job_names_are_swept(tmp_path: Path) -> None:
    blobs, results = FolderBlobs(f"file://{tmp_path}/blobs"), SqliteResults(f"sqlite:///{tmp_path}/r.db")
    await results.upgrade()
    named, orphan, young = await put(blobs, 1), await put(blobs, 2), await put(blobs, 3, age=60)
    job = Job(id=uuid7(), site="north", pipeline="p", lane="live", blob=named, received_at=NOW, captured_at=NOW)
    await results.keep_jobs([NewJob(job=job)])
    assert await sweep_orphans(blobs, results) == 1
    left = {ref.url async for ref in blobs.list(older_than=-1)}
    assert left == {named.url, young.url}
    assert orphan.url not in left
    await results.close()
    await blobs.close()
