"""Queue, stores, jobs and workers without a gateway, for tests of the worker: real backends in one folder."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import LANES, BlobRef, Job, Lane, Message, Result, topic_of
from eyeline.inference.replicas import open_predictor
from eyeline.queues import open_queue
from eyeline.stores.blobs import open_blobs
from eyeline.stores.cache import open_cache
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob
from eyeline.worker.worker import Worker
from tests.system import patience

ROOT = Path(__file__).resolve().parent.parent


def steps(*entries: tuple[str, str, str | None]) -> list[dict[str, Any]]:
    """(name, model, on) for each step, as settings have them."""
    return [{"name": name, "model": model, **({"on": on} if on else {})} for name, model, on in entries]


def plant_settings(folder: Path, inference: str, models: Path, **more: Any) -> Settings:
    """Settings with the pipelines `brightness` (a classifier), `box` (a detector) and `both` (the one on the other's crops)."""
    tree: dict[str, Any] = {
        "data_dir": str(folder),
        "inference": {"url": inference, "models": str(models)},
        "pipelines": [
            {"name": "brightness", "steps": steps(("light", "brightness", None))},
            {"name": "box", "steps": steps(("find", "box", None))},
            {"name": "both", "steps": steps(("find", "box", None), ("light", "brightness", "find"))},
        ],
        "worker": {"decoders": 1, "concurrency": 8},
    }
    for key, value in more.items():
        tree[key] = {**tree[key], **value} if isinstance(tree.get(key), dict) else value
    return load_settings(environ={}, overrides=tree)


class Plant:
    """What stands around a worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = [topic_of(pipeline.name, lane) for pipeline in settings.pipelines for lane in LANES]
        self.queue = open_queue(settings.queue.url, self.topics)
        self.blobs = open_blobs(settings.blobs.url)
        self.results = open_results(settings.results.url)
        self.cache = open_cache(settings.cache.url)

    async def close(self) -> None:
        for each in (self.queue, self.blobs, self.results, self.cache):
            await each.close()

    async def submit(
        self,
        data: bytes,
        *,
        pipeline: str = "brightness",
        site: str = "default",
        deadline: datetime | None = None,
        replay_of: str | None = None,
        times: int = 1,
        lane: Lane = "live",
        **job: Any,
    ) -> str:
        """Keep an image and its job and put it on the queue; `times` messages for the one job. The job's id."""
        blob = await self.blobs.put(site, data, hashlib.sha256(data).hexdigest())
        return await self.enqueue(
            blob, pipeline=pipeline, site=site, deadline=deadline, replay_of=replay_of, times=times, lane=lane, **job
        )

    async def enqueue(self, blob: BlobRef, *, times: int = 1, lane: Lane = "live", **fields: Any) -> str:
        now = utcnow()
        job = Job(id=uuid7(), blob=blob, lane=lane, received_at=now, captured_at=now, **fields)
        await self.results.keep_jobs([NewJob(job=job, enqueued=True)])
        body = msgspec.json.encode(job)
        topic = topic_of(job.pipeline, lane)
        ids = [job.id, *(f"{job.id}-{again}" for again in range(1, times))]
        await self.queue.put_many([Message(id=name, topic=topic, group=job.site, body=body) for name in ids])
        return job.id

    async def result(self, job: str, seconds: float = 30.0) -> Result:
        """The job's result, once there is one."""
        found = await self.until(lambda: self.results.get(job), seconds, f"a result of {job}")
        assert isinstance(found, Result)
        return found

    async def empty(self, seconds: float = 30.0) -> None:
        """Until every message is acknowledged."""

        async def is_empty() -> bool:
            stats = await self.queue.stats()
            return stats.depth + stats.in_flight == 0

        await self.until(is_empty, seconds, "an empty queue")

    async def until(self, condition: Callable[[], Awaitable[Any]], seconds: float, what: str) -> Any:
        deadline = time.monotonic() + patience(seconds)
        while time.monotonic() < deadline:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"not within {seconds} s: {what}")

    async def attempts(self, job: str) -> int:
        row = await self.results.get_job(job)
        assert row is not None
        return row.attempts

    async def events(self, kind: str = "result") -> list[str]:
        """Ids in the event log, one for each recorded result."""
        return [event.body["id"] for event in await self.results.tail(0, 10_000) if event.kind == kind]

    @contextlib.asynccontextmanager
    async def worker(self, **replaced: Any) -> AsyncIterator[Worker]:
        """A worker in this process; `replaced` names other backends for it."""
        predictor = open_predictor(self.settings.inference.url, self.settings.inference.models)
        given = {"queue": self.queue, "blobs": self.blobs, "results": self.results, "cache": self.cache}
        worker = Worker(self.settings, **{**given, "predictor": predictor, **replaced})
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await running
            await predictor.close()


@contextlib.asynccontextmanager
async def open_plant(settings: Settings) -> AsyncIterator[Plant]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    plant = Plant(settings)
    await plant.results.upgrade()
    try:
        yield plant
    finally:
        await plant.close()


@contextlib.contextmanager
def worker_process(settings: Settings, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as a process of its own, to be killed."""
    tree = settings.model_dump_json()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.plant"],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environ},
    )
    assert process.stdin is not None
    process.stdin.write(tree.encode())
    process.stdin.close()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(30)


def main() -> None:
    """The child of `worker_process`."""
    from eyeline.app import worker_service
    from eyeline.core.service import run_service
    from eyeline.core.telemetry import configure_logging

    configure_logging("warning", "worker")
    settings = Settings.model_validate_json(sys.stdin.read())
    run_service(lambda: worker_service(settings))


if __name__ == "__main__":
    main()
