"""Retention as a service: it works by itself, gives way to waiting jobs, and only one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.settings import Settings
from eyeline.core.types import Result
from eyeline.ops.storage import service
from eyeline.ops.storage.keeper import STOCK, WHO
from eyeline.ops.storage.service import KeeperService
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.cache.memory import MemoryCache
from eyeline.stores.results.sqlite import SqliteResults
from tests.unit.ops.storage.site import Site, opened


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "IDLE", 0.02)


def served(site: Site, folder: Path, **words: Any) -> KeeperService:
    """A service over stores of its own, as it has them in the alerts role."""
    blobs, results = FolderBlobs(f"file://{folder}/blobs"), SqliteResults(f"sqlite:///{folder}/r.db")
    return KeeperService(site.keeper(**words), blobs, results, MemoryCache(f"memory://{folder}"))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_it_counts_and_lets_go_until_it_is_stopped(tmp_path: Path) -> None:
    async with opened(tmp_path) as site:
        site.now = utcnow() - timedelta(days=40)
        old = await site.take()
        site.now = utcnow() + timedelta(seconds=1)
        stop = asyncio.Event()
        running = asyncio.create_task(served(site, tmp_path, originals="30d", evidence="0d").run(stop))

        async def gone() -> bool:
            return not await site.has(old) and await site.results.load_state(STOCK) is not None

        await until(gone)
        assert [row.count for row in await site.results.tallies("") if row.what == "received"] == [1]
        stop.set()
        await asyncio.wait_for(running, 10)


async def test_it_waits_while_jobs_wait_and_while_another_has_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as site:
        site.now = utcnow() - timedelta(minutes=1)
        waiting: Result = await site.take(unfinished=True)
        await site.results.take_turn(WHO, "another", 1.0)
        stop = asyncio.Event()
        running = asyncio.create_task(served(site, tmp_path).run(stop))
        await asyncio.sleep(0.3)
        assert await site.results.load_state(STOCK) is None
        await asyncio.sleep(1.2)
        assert await site.results.load_state(STOCK) is None  # it has the turn now, but a job waits
        await site.results.save_many([waiting])

        async def looked() -> bool:
            return await site.results.load_state(STOCK) is not None

        await until(looked)
        stop.set()
        await asyncio.wait_for(running, 10)


def test_the_defaults_keep_everything() -> None:
    retention = Settings().retention
    assert (retention.originals, retention.evidence, retention.results, retention.reencode) == (
        "ever",
        "ever",
        "ever",
        "",
    )
