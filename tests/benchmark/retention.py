"""How much retention lets go in a second, stage by stage: `python -m tests.benchmark.retention --results 4000 [--url postgresql://…]`.

Results with two boxes, a label and a picture each, in real stores; then every stage of their life one after the other, without
the rests that the service takes. Told for each: results a second, CPU milliseconds and transactions for each result, and the
longest transaction, which is how long a writer of the same database may have to wait.
"""

import argparse
import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from eyeline.core.ids import derived_id
from eyeline.core.settings import RetentionSettings
from eyeline.core.types import BlobRef, Classification, Detection, ImageInfo, Job, Result
from eyeline.ops.audit.sealer import Sealer
from eyeline.ops.storage.keeper import Keeper
from eyeline.stores.blobs import open_blobs
from eyeline.stores.cache.memory import MemoryCache
from eyeline.stores.results import keeping, open_results
from eyeline.stores.results.base import NewJob
from eyeline.stores.results.lines import Writer
from tests.pictures import jpeg

START = datetime(2026, 3, 1, tzinfo=UTC)
BOXES = [
    Detection("carton", 0.9, (10.0, 10.0, 90.0, 70.0), "find"),
    Detection("label", 0.7, (60.0, 40.0, 150.0, 110.0), "find"),
]
#: What is done in which order, the day on which, and by which settings.
STAGES: Sequence[tuple[str, int, dict[str, str]]] = (
    ("counting what comes", 1, {}),
    ("encoding anew", 8, {"reencode": "webp:80", "reencode_after": "7d"}),
    ("originals to evidence", 31, {"originals": "30d", "evidence": "90d"}),
    ("evidence deleted", 91, {"originals": "30d", "evidence": "90d"}),
    ("results deleted", 366, {"results": "365d"}),
)


@dataclass
class Measured:
    """What one stage took."""

    stage: str
    results: int
    seconds: float = 0.0
    cpu: float = 0.0
    transactions: list[float] = field(default_factory=list)

    def told(self) -> str:
        """A row of the table."""
        each = max(self.results, 1)
        return (
            f"| {self.stage} | {self.results / self.seconds:,.0f} | {1000 * self.cpu / each:.2f} | "
            f"{len(self.transactions) / each:.3f} | {max(self.transactions, default=0.0):.3f} |"
        )


async def measure(folder: Path, results_url: str, count: int, size: tuple[int, int] = (640, 480)) -> list[Measured]:
    """Record so many results with a picture each in an empty, upgraded database, and take them through all stages."""
    blobs, results, cache = open_blobs(f"file://{folder}/blobs"), open_results(results_url), MemoryCache("memory://")
    measured = []
    try:
        await results.upgrade()
        await _record(blobs, results, count, size)
        await Sealer(results, lease=0.0).seal_all()
        for stage, day, words in STAGES:
            now = START + timedelta(days=day, minutes=5)
            keeper = Keeper(RetentionSettings(**words), blobs, results, cache, clock=lambda now=now: now, grace=0)  # type: ignore[misc]
            with mock.patch.object(keeping, "utcnow", return_value=now):
                measured.append(await _worked_off(Measured(stage, count), keeper))
    finally:
        for each in (blobs, results, cache):
            await each.close()
    return measured


async def _worked_off(measured: Measured, keeper: Keeper) -> Measured:
    """Until there is nothing left to do; looking at the whole stock is no part of it."""
    works = [work for work in keeper.works() if work.__name__ != "_look"]
    async with _timed(measured):
        more = True
        while more:
            more = any([await work() for work in works])
        while await keeper.drop():
            pass
    return measured


@asynccontextmanager
async def _timed(measured: Measured) -> AsyncIterator[None]:
    transact = Writer._transact  # what holds the write lock

    def timed(writer: Writer, parts: Any) -> None:
        begun = time.perf_counter()
        transact(writer, parts)
        measured.transactions.append(time.perf_counter() - begun)

    begun, cpu = time.perf_counter(), time.process_time()
    with mock.patch.object(Writer, "_transact", timed):
        yield
    measured.seconds, measured.cpu = time.perf_counter() - begun, time.process_time() - cpu


async def _record(blobs: Any, results: Any, count: int, size: tuple[int, int]) -> None:
    for start in range(0, count, 200):
        jobs = await asyncio.gather(*(_job(blobs, number, size) for number in range(start, min(start + 200, count))))
        await results.keep_jobs([NewJob(job=job) for job in jobs])
        await results.save_many([_result(job, size) for job in jobs])


async def _job(blobs: Any, number: int, size: tuple[int, int]) -> Job:
    at = START + timedelta(milliseconds=10 * number)
    data = jpeg(*size, level=100 + number % 50)
    data = data[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + data[2:]  # a comment: a digest of its own
    ref: BlobRef = await blobs.put("north", data, hashlib.sha256(data).hexdigest())
    return Job(
        id=derived_id(at, str(number)),
        site="north",
        pipeline="parcels",
        lane="live",
        camera=f"belt-{number % 4}",
        ref=f"order-{number // 3}",
        blob=ref,
        received_at=at,
        captured_at=at,
    )


def _result(job: Job, size: tuple[int, int]) -> Result:
    return Result(
        id=job.id,
        status="completed",
        site=job.site,
        pipeline=job.pipeline,
        camera=job.camera,
        ref=job.ref,
        captured_at=job.captured_at,
        received_at=job.received_at,
        completed_at=job.received_at,
        image=ImageInfo(job.blob.sha256, *size, "jpeg", job.blob.size),
        detections=BOXES,
        classifications=[Classification("whole", 0.9, "look")],
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=4000)
    parser.add_argument("--url", help="an empty results database; none: SQLite in a new folder")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument(
        "--folder", type=Path, help="where pictures and SQLite lie; none: the folder for temporary files"
    )
    told = parser.parse_args()
    with TemporaryDirectory(dir=told.folder) as name:
        url = told.url or f"sqlite:///{name}/results.db"
        rows = asyncio.run(measure(Path(name), url, told.results, (told.width, told.width * 3 // 4)))
    print("| | results/s | CPU ms each | transactions each | longest transaction, s |\n|---|---|---|---|---|")
    for row in rows:
        print(row.told())


if __name__ == "__main__":
    main()
