"""Accepting images, with no framework inside: bytes and parameters in, kept jobs out.

The order is the promise "202 means kept": header probed → blob fsynced → jobs committed → answered. Enqueueing comes
after it (relay.py); a crash in between is found by the relay's sweep.
"""

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from msgspec import structs

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.dedupe import duplicate
from eyeline.core.errors import BackendError, Conflict, InputError
from eyeline.core.ids import uuid7
from eyeline.core.telemetry import CACHE_HITS, IMAGES, logger
from eyeline.core.types import BlobRef, ImageInfo, Job, Result, Status
from eyeline.gateway.answers import ANSWERED, Answers
from eyeline.gateway.limits import Admission
from eyeline.gateway.params import ImageParams
from eyeline.pipeline.decode import probe
from eyeline.stores.blobs.base import BlobStore, BlockingPut
from eyeline.stores.pictures import original_of
from eyeline.stores.results.base import KeptJob, NewJob, ResultStore

log = logger("gateway")

THREADS = 4  # they wait for the disk most of the time
#: How long another model's answer to a record's picture is waited for.
ASIDE_SECONDS = timedelta(minutes=15)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who sends images, under which parameters.

    `key` is the idempotency key; under one key `words` (the query) and the images, or the `url` they came from, must stay
    the same.
    """

    who: Principal
    params: ImageParams
    key: str | None = None
    words: bytes = b""
    url: str | None = None
    trace: str | None = None

    def digest(self, images: Sequence[str]) -> str | None:
        """What is compared under one key: the parameters, `wait` aside, and the images' digests (or the URL)."""
        if self.key is None:
            return None
        pairs = sorted(pair for pair in self.words.split(b"&") if pair and not pair.startswith(b"wait="))
        content = [self.url] if self.url is not None else list(images)
        return hashlib.sha256(msgspec.json.encode([pairs, content])).hexdigest()


@dataclass(frozen=True)
class Accepted:
    """A kept job. `result` where it is known already; `fresh` jobs still have to be enqueued."""

    job: Job
    status: Status
    result: Result | None = None
    fresh: bool = True


class Intake:
    """Turns images into kept jobs."""

    def __init__(
        self,
        blobs: BlobStore,
        results: ResultStore,
        answers: Answers,
        admission: Admission,
        *,
        digests: Mapping[str, str],
        max_bytes: int,
        max_pixels: int,
    ) -> None:
        self._blobs = blobs
        self._blocking = blobs if isinstance(blobs, BlockingPut) else None
        self._results = results
        self._answers = answers
        self._admission = admission
        self._digests = digests
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="intake")

    async def accept(self, images: Sequence[bytes], request: Request) -> list[Accepted]:
        """Keep all images of a request, or none. When this returns, blobs and jobs are durable.

        Raises BadImage and TooLarge for a header that is wrong (nothing is kept), Conflict for an idempotency key that
        came with another body, BackendError where a store is away.
        """
        received = utcnow()
        loop = asyncio.get_running_loop()
        site, pipeline = request.params.site, request.params.pipeline
        digests, blobs, answers = await loop.run_in_executor(self._threads, self._in_thread, images, site, pipeline)
        for image, digest in zip(images[len(blobs) :], digests[len(blobs) :], strict=True):
            blobs.append(await self._blobs.put(site, image, digest))
        for digest in digests[len(answers) :]:
            answers.append(await self._answers.known(site, pipeline, digest))
        jobs = [_job(blob, request, received, self._digests.get(pipeline)) for blob in blobs]
        kept = await self._keep(jobs, request, request.digest(digests))
        return [await self._finish(row, answer) for row, answer in zip(kept, answers, strict=True)]

    async def replay(self, failed: Job, who: Principal) -> Job:
        """Keep a new job for the picture of a failed one; durable when this returns. It ignores cached answers."""
        job = structs.replace(
            failed,
            id=uuid7(),
            received_at=utcnow(),
            replay_of=failed.id,
            deadline=None,
            pipeline_digest=self._digests.get(failed.pipeline),
        )
        await self._results.keep_jobs([NewJob(job=job, principal=who.name)])
        self._admission.kept(job.lane, job.id)
        return job

    async def ask_aside(self, record: Result, image: ImageInfo, pipeline: str, version: str, who: Principal) -> Job:
        """Keep a job that asks another model about a record's picture; durable when this returns. Its ref is the record: so it is
        found from there, and is no picture of the record's own ref. It ends by itself where nobody can answer it.
        """
        now = utcnow()
        job = Job(
            id=uuid7(),
            site=record.site,
            pipeline=pipeline,
            lane="bulk",
            blob=original_of(record.site, image),
            received_at=now,
            captured_at=record.captured_at,
            camera=record.camera,
            ref=record.id,
            deadline=now + ASIDE_SECONDS,
            replay_of=record.id,
            aside=version,
            pipeline_digest=self._digests.get(pipeline),
            min_reader=2,
        )
        await self._results.keep_jobs([NewJob(job=job, principal=who.name)])
        self._admission.kept(job.lane, job.id)
        return job

    async def try_blobs(self) -> None:
        """Keep and forget a few fresh bytes. Raises BlobError while the store does not take them."""
        data = os.urandom(16)
        ref = await self._blobs.put("default", data, hashlib.sha256(data).hexdigest())
        await self._blobs.delete(ref.url)

    def close(self) -> None:
        """Give back threads."""
        self._threads.shutdown(wait=False)

    def _in_thread(
        self, images: Sequence[bytes], site: str, pipeline: str
    ) -> tuple[list[str], list[BlobRef], list[Result | None]]:
        """All that computes, and what store and cache can do here as well: every change of threads costs a tenth of a ms."""
        self._check(images)
        digests = [hashlib.sha256(image).hexdigest() for image in images]
        blobs: list[BlobRef] = []
        answers: list[Result | None] = []
        if self._blocking is not None:
            pairs = zip(images, digests, strict=True)
            blobs = [self._blocking.put_now(site, image, digest) for image, digest in pairs]
        if self._answers.blocking:
            answers = [self._answers.known_now(site, pipeline, digest) for digest in digests]
        return digests, blobs, answers

    def _check(self, images: Sequence[bytes]) -> None:
        """Every header is fine, before anything is kept."""
        for number, image in enumerate(images):
            try:
                probe(image, max_pixels=self._max_pixels, max_bytes=self._max_bytes)
            except InputError as error:
                if len(images) == 1:
                    raise
                raise type(error)(f"part {number + 1} of {len(images)}: {error}", code=error.code) from error

    async def _keep(self, jobs: list[Job], request: Request, digest: str | None) -> list[KeptJob]:
        """Commit the job rows. The first one alone decides about a conflict, so that a refused request leaves nothing."""
        rows = [_row(job, number, request, digest) for number, job in enumerate(jobs)]
        split = 1 if request.key is not None else len(rows)
        kept = await self._results.keep_jobs(rows[:split])
        for row in kept:
            if row.existing and row.body_digest != digest:
                raise Conflict(
                    "this Idempotency-Key came with another request before; use a new key for a new request",
                    code="idempotency_conflict",
                )
        return kept + (await self._results.keep_jobs(rows[split:]) if split < len(rows) else [])

    async def _finish(self, row: KeptJob, answer: Result | None) -> Accepted:
        if row.existing:
            result = await self._results.get(row.job.id) if row.status != "queued" else None
            return Accepted(row.job, row.status, result, fresh=False)
        accepted = Accepted(row.job, "queued") if answer is None else await self._answer(row.job, answer)
        if accepted.result is None:
            self._admission.kept(row.job.lane, row.job.id)
        return accepted

    async def _answer(self, job: Job, answer: Result) -> Accepted:
        """Record the duplicate now. Where that fails the job is an ordinary one: it is kept already."""
        now = utcnow()
        result = duplicate(answer, job, now, {ANSWERED: (now - job.received_at).total_seconds()})
        try:
            await self._results.save_many([result])
        except BackendError as error:
            log.warning("duplicate not recorded; left to a worker", id=job.id, error=str(error))
            return Accepted(job, "queued")
        CACHE_HITS.inc()
        IMAGES.labels(status="completed").inc()
        return Accepted(job, "completed", result, fresh=False)


def _job(blob: BlobRef, request: Request, received: datetime, digest: str | None) -> Job:
    params = request.params
    return Job(
        id=uuid7(),
        site=params.site,
        pipeline=params.pipeline,
        lane=params.lane,
        blob=blob,
        received_at=received,
        captured_at=params.captured_at or received,
        camera=params.camera,
        ref=params.ref,
        meta=params.meta,
        deadline=None if params.deadline is None else received + timedelta(seconds=params.deadline),
        trace=request.trace,
        pipeline_digest=digest,
    )


def _row(job: Job, number: int, request: Request, digest: str | None) -> NewJob:
    if request.key is None:
        return NewJob(job=job, principal=request.who.name)
    key = request.key if number == 0 else f"{request.key}\x1f{number}"
    return NewJob(job=job, principal=request.who.name, idempotency_key=key, body_digest=digest)
