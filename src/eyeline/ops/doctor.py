"""`eyeline check`: opens every backend and says in one line what is wrong."""

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from eyeline.core.embedded import made_folder
from eyeline.core.errors import EyelineError, InferenceUnavailable
from eyeline.core.settings import Settings, mask
from eyeline.inference.client import InferenceClient
from eyeline.inference.replicas import urls_of
from eyeline.queues import open_queue
from eyeline.queues.base import Advising
from eyeline.stores.blobs import open_blobs
from eyeline.stores.cache import open_cache
from eyeline.stores.results import open_results
from eyeline.stores.results.driver import sqlite_version, sqlite_version_info

Check = tuple[str, bool, str]
LOW_DISK = 1_000_000_000
SAFE_SQLITE = (3, 51, 3)  # the first with the WAL-reset bug mended


def checks(settings: Settings) -> list[Callable[[], Awaitable[list[Check]]]]:
    """The checks in the order of the data's way."""

    async def disk() -> list[Check]:
        return [_disk(settings.data_dir), *_sqlite(settings)]

    async def queue() -> list[Check]:
        store = open_queue(settings.queue.url)
        try:
            stats = await store.stats()
            said = f"{mask(settings.queue.url)}: {stats.depth} waiting, {stats.in_flight} in hand"
            advice = await store.advice() if isinstance(store, Advising) else []
            return [("queue", True, said), *(("queue", True, f"careful: {sentence}") for sentence in advice)]
        finally:
            await store.close()

    async def blobs() -> list[Check]:
        store = open_blobs(settings.blobs.url)
        await store.close()
        return [("blobs", True, mask(settings.blobs.url))]

    async def results() -> list[Check]:
        store = open_results(settings.results.url)
        try:
            await store.upgrade()
            waiting = await store.unfinished()
            return [("results", True, f"{mask(settings.results.url)}: {waiting.count} jobs unfinished")]
        finally:
            await store.close()

    async def cache() -> list[Check]:
        store = open_cache(settings.cache.url)
        try:
            await store.get("check")
            return [("cache", True, mask(settings.cache.url))]
        finally:
            await store.close()

    async def inference() -> list[Check]:
        return [await _inference(url, settings.inference.models) for url in urls_of(settings.inference.url)]

    steps = {"disk": disk, "queue": queue, "blobs": blobs, "results": results, "cache": cache, "inference": inference}
    return [_guarded(name, step) for name, step in steps.items()]


def _guarded(name: str, step: Callable[[], Awaitable[list[Check]]]) -> Callable[[], Awaitable[list[Check]]]:
    async def run() -> list[Check]:
        try:
            return await step()
        except EyelineError as error:
            return [(name, False, str(error))]

    return run


async def _inference(url: str, models: Path) -> Check:
    """One replica."""
    client = InferenceClient(url, models)
    try:
        waiting = await client.ready()
    except InferenceUnavailable as error:
        return ("inference", False, str(error))
    finally:
        await client.close()
    words = f"not ready: {', '.join(waiting)}" if waiting else "all models ready"
    return ("inference", not waiting, f"{mask(url)}: {words}")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(made_folder(folder)).free
    well = free > LOW_DISK and os.access(folder, os.W_OK)
    return ("disk", well, f"{folder}: {free / 1e9:.1f} GB free" + ("" if well else "; free some, or move data_dir"))


def _sqlite(settings: Settings) -> list[Check]:
    """The SQLite that apsw carries; one older than 3.51.3 is safe only while one process checkpoints."""
    if urlsplit(settings.results.url).scheme != "sqlite" or sqlite_version_info >= SAFE_SQLITE:
        return []
    return [
        (
            "sqlite",
            True,
            f"SQLite {sqlite_version} is older than 3.51.3 (WAL-reset bug): pip install --upgrade apsw",
        )
    ]
