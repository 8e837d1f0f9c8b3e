"""Exports in the background: one of each person, followed, fetched, stopped; one that was broken off says so."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError, NotFound, Overloaded, StoreError
from eyeline.core.ids import first_id
from eyeline.gateway import export_jobs
from eyeline.gateway.export_jobs import ExportJob, ExportJobs
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action, ResultQuery, ResultStore
from tests.unit.worker.test_doubts import result

ANA, BEN, CEM = (Principal(name, "viewer") for name in ("ana", "ben", "cem"))
COUNT = 40


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    opened = open_results(f"sqlite:///{tmp_path}/results.db")
    await opened.upgrade()
    start = utcnow() - timedelta(hours=1)
    await opened.save_many([result(id=first_id(start + timedelta(minutes=each))) for each in range(COUNT)])
    yield opened
    await opened.close()


async def begun(jobs: ExportJobs, who: Principal = ANA, limit: int = 10, **more: Any) -> ExportJob:
    asked = Action(what="export", by=who.name, body={"format": "jsonl"} | more)
    return await jobs.begin(ResultQuery(limit=limit), None, who, asked)


async def ended(jobs: ExportJobs, job: ExportJob, who: Principal = ANA) -> ExportJob:
    while (found := await jobs.get(job.id, who)).state == "running":
        await asyncio.sleep(0.01)
    return found


class Slow:
    """A store that gives no second page before it is let."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self.go = asyncio.Event()
        self.asked = 0
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find(self, query: ResultQuery) -> Any:
        if not query.oldest:
            self.asked += 1
            if self.asked > 1:
                await self.go.wait()
            if self.broken:
                raise StoreError("the store is away")
        return await self._store.find(query)


async def test_a_file_is_written_page_by_page_and_is_its_owners_for_a_day(tmp_path: Path, store: ResultStore) -> None:
    jobs = ExportJobs(tmp_path, store)
    job = await ended(jobs, await begun(jobs))
    assert (job.state, job.results, job.about, job.error) == ("done", COUNT, COUNT, None)
    lines = jobs.file(job).read_text().splitlines()
    found, _ = await store.find(ResultQuery(limit=100))
    assert [json.loads(line)["id"] for line in lines] == [each.id for each in found]
    assert job.bytes == jobs.file(job).stat().st_size
    [action] = [json.loads(row.body or b"") for row in await store.unsealed(100, bodies=True) if row.kind == "action"]
    assert (action["what"], action["by"], action["job"]) == ("export", "ana", job.id)
    for other in (BEN, Principal("ana", "viewer", ("north",))):  # a site less than when it was written
        assert await jobs.of(other) == []
        with pytest.raises(NotFound):
            await jobs.get(job.id, other)
    for _ in range(export_jobs.EACH):
        await ended(jobs, await begun(jobs))
    assert len(await jobs.of(ANA)) == export_jobs.EACH
    assert not jobs.file(job).exists()
    path = tmp_path / "exports" / f"{(await jobs.of(ANA))[0].id}.json"
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps(told | {"expires_at": "2026-01-01T00:00:00Z"}))
    assert len(await jobs.of(ANA)) == export_jobs.EACH - 1
    await asyncio.gather(*jobs._writing.values())
    jobs._sweep()
    whole = 2 * export_jobs.EACH
    assert len(list((tmp_path / "exports").iterdir())) == whole  # young: one that begins or ends now looks like this
    for file in (tmp_path / "exports").iterdir():
        os.utime(file, (0, time.time() - export_jobs.YOUNG - 1))
    jobs._sweep()
    assert len(list((tmp_path / "exports").iterdir())) == whole - 2


async def test_a_sweep_leaves_a_job_alone_that_begins_or_ends_meanwhile(
    tmp_path: Path, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, kept = ExportJobs(tmp_path, store), ExportJobs._keep

    def swept(self: ExportJobs, job: ExportJob) -> None:
        jobs._sweep()
        kept(self, job)
        jobs._sweep()

    monkeypatch.setattr(ExportJobs, "_keep", swept)
    monkeypatch.setattr(ExportJobs, "_all", lambda _: [])  # what the sweep saw just before
    job = await begun(jobs)
    monkeypatch.undo()
    assert (await ended(jobs, job)).state == "done"


async def test_one_of_each_person_is_written_and_few_in_all(tmp_path: Path, store: ResultStore) -> None:
    slow = Slow(store)
    jobs = ExportJobs(tmp_path, slow)
    first = await begun(jobs)
    with pytest.raises(Overloaded, match="your export"):
        await begun(jobs)
    second = await begun(jobs, BEN)
    with pytest.raises(Overloaded, match="2 exports"):
        await begun(jobs, CEM)
    while slow.asked < 3:
        await asyncio.sleep(0.01)
    elsewhere = ExportJobs(tmp_path, store)  # another gateway with the same folder
    assert (await elsewhere.get(first.id, ANA)).state == "running"
    await jobs.remove(await jobs.get(second.id, BEN))
    assert await elsewhere.of(BEN) == []
    slow.go.set()
    assert (await ended(elsewhere, first)).state == "done"
    await begun(jobs, CEM)


async def test_how_many_there_will_be_is_judged_by_time(
    tmp_path: Path, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_jobs, "WORD", 3600.0)  # the test alone keeps what is written so far
    slow = Slow(store)
    jobs = ExportJobs(tmp_path, slow)
    job = await begun(jobs)
    while slow.asked < 2:
        await asyncio.sleep(0.01)
    jobs._keep(job)
    found = await jobs.get(job.id, ANA)
    assert (found.results, found.about) == (10, 43)
    slow.broken = True
    slow.go.set()
    failed = await ended(jobs, job)
    assert (failed.state, failed.error) == ("failed", "the store is away")
    await asyncio.gather(*jobs._writing.values())
    assert [path.suffix for path in (tmp_path / "exports").iterdir()] == [".json"]


async def test_what_a_gateway_leaves_behind_is_broken_off(tmp_path: Path, store: ResultStore) -> None:
    jobs = ExportJobs(tmp_path, Slow(store))
    running = asyncio.create_task(jobs.run())
    job = await begun(jobs)
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait({running})
    after = ExportJobs(tmp_path, store)
    assert [(each.id, each.state) for each in await after.of(ANA)] == [(job.id, "broken")]
    await ended(after, await begun(after))


async def test_what_cannot_be_written_is_told_at_once(
    tmp_path: Path, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exports").write_text("no folder")
    jobs = ExportJobs(tmp_path, store)
    for _ in range(2):
        with pytest.raises(Overloaded, match="no export can be written"):
            await begun(jobs)
    with pytest.raises(InputError, match="no export is called"):
        await begun(jobs, format="xls")
    (tmp_path / "exports").unlink()

    async def away(_: Action) -> str:
        raise StoreError("the store is away")

    monkeypatch.setattr(store, "record_action", away)
    with pytest.raises(StoreError):
        await begun(jobs)
    assert await jobs.of(ANA) == []
