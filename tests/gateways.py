"""A real gateway on a free port over real embedded stores, and a worker that says what it is told to."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
from PIL import Image

from eyeline.alerts.book import RuleBook
from eyeline.core.clock import utcnow
from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import Classification, Detection, ImageInfo, Job, Result
from eyeline.gateway.server import Gateway
from eyeline.queues import open_queue
from eyeline.queues.base import Queue
from eyeline.stores.blobs import open_blobs
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache import open_cache
from eyeline.stores.cache.base import Cache
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultStore
from tests.system import TLS

PIPELINES = [{"name": "parcels", "steps": [{"name": "find", "model": "finder"}]}]


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small picture; another seed, other bytes."""
    out = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256 % 256, 90)).save(out, "JPEG")
    return out.getvalue()


def settings_for(folder: Path, **tree: Any) -> Settings:
    """Settings on a free port with everything under `folder`; `tree` as in the file."""
    tree.setdefault("pipelines", PIPELINES)
    tree["gateway"] = {"port": 0} | tree.get("gateway", {})
    return load_settings(environ={}, overrides={"data_dir": str(folder)} | tree)


def result_of(job: Job, **changes: Any) -> Result:
    """What a worker would say of a job: one box and one label."""
    fields: dict[str, Any] = {
        "id": job.id,
        "status": "completed",
        "site": job.site,
        "camera": job.camera,
        "pipeline": job.pipeline,
        "ref": job.ref,
        "meta": job.meta,
        "captured_at": job.captured_at,
        "received_at": job.received_at,
        "completed_at": utcnow(),
        "image": ImageInfo(job.blob.sha256, 64, 48, "jpeg", job.blob.size),
        "detections": [Detection("parcel", 0.9, (4.0, 4.0, 40.0, 40.0), "find")],
        "classifications": [Classification("intact", 0.8, "damage")],
    }
    return Result(**(fields | changes))


@dataclass
class Running:
    """A gateway that runs, its stores, and a client of it."""

    gateway: Gateway
    client: httpx.AsyncClient
    settings: Settings
    results: ResultStore
    queue: Queue
    cache: Cache
    blobs: BlobStore

    async def take(self) -> Job:
        """The next job from the queue."""
        deliveries = await self.queue.receive(1, 5.0, 30.0)
        assert deliveries, "no job came to the queue"
        await self.queue.ack_many(deliveries)
        return msgspec.json.decode(deliveries[0].body, type=Job)

    async def work(self, **changes: Any) -> Result:
        """Take one job and record its result."""
        result = result_of(await self.take(), **changes)
        await self.results.save_many([result])
        return result

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker that records a result for every job."""

        async def work() -> None:
            while True:
                for _ in range((await self.queue.stats()).depth):
                    await self.work()
                await asyncio.sleep(0.05)

        working = asyncio.create_task(work())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def send(self, seed: int = 0, **params: Any) -> httpx.Response:
        """Upload a picture."""
        return await self.client.post("/v1/images", content=jpeg(seed), params=params)


@asynccontextmanager
async def running(
    folder: Path, *, key: str | None = None, queue_url: str = "", options: dict[str, Any] | None = None, **tree: Any
) -> AsyncIterator[Running]:
    """A gateway over embedded stores in `folder`; the stores are opened a second time for the test itself. `options` are
    the gateway's own, such as its pages.
    """
    settings = settings_for(folder, **tree)
    queue_url = queue_url or settings.queue.url

    def stores() -> dict[str, Any]:
        return {
            "blobs": open_blobs(settings.blobs.url),
            "results": open_results(settings.results.url),
            "cache": open_cache(settings.cache.url),
        }

    theirs = stores()
    options = {"rules": RuleBook(settings.alerts, theirs["results"]), **(options or {})}
    gateway = Gateway(settings, queue=open_queue(queue_url), **theirs, **options)
    stop = asyncio.Event()
    serving = asyncio.create_task(gateway.run(stop))
    ready = asyncio.create_task(gateway.ready.wait())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        ready.cancel()
        await serving
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    mine = stores() | {"queue": open_queue(queue_url)}
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, timeout=35.0, trust_env=False, verify=TLS
    ) as client:
        try:
            yield Running(gateway, client, settings, **mine)
        finally:
            stop.set()
            await serving
            for store in mine.values():
                await store.close()
