"""Backup under load, restore into an empty folder: every recorded result is there, every picture is the one it was."""

import asyncio
import hashlib
import os
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from eyeline.core.backups import LAST, LastBackup
from eyeline.core.clock import utcnow
from eyeline.core.embedded import path_of
from eyeline.core.errors import ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import Job, Result
from eyeline.ops.backup import About, Restored, backup, restore
from eyeline.stores.blobs import open_blobs
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob, ResultQuery


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, {}, {"data_dir": str(tmp_path / "data")})


class Load:
    """Images coming in as they do: blob, job, and for two of three a result."""

    def __init__(self, settings: Settings) -> None:
        self.blobs = open_blobs(settings.blobs.url)
        self.results = open_results(settings.results.url)
        self.finished: list[str] = []
        self.waiting: list[str] = []

    async def one(self) -> None:
        data = os.urandom(2000)
        sha = hashlib.sha256(data).hexdigest()
        ref, now = await self.blobs.put("north", data, sha), utcnow()
        job = Job(id=uuid7(), site="north", pipeline="p", lane="live", blob=ref, received_at=now, captured_at=now)
        await self.results.keep_jobs([NewJob(job=job)])
        await self.results.mark_enqueued([job.id])
        if (len(self.finished) + len(self.waiting)) % 3 == 2:
            self.waiting.append(job.id)
            return
        await self.results.save_many(
            [
                Result(
                    id=job.id,
                    status="completed",
                    site="north",
                    pipeline="p",
                    captured_at=now,
                    received_at=now,
                    completed_at=now,
                )
            ]
        )
        self.finished.append(job.id)

    async def until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.one()

    async def close(self) -> None:
        await self.results.close()
        await self.blobs.close()


async def made(settings: Settings, target: Path, before: int = 30) -> tuple[About, Load]:
    """A backup made while four senders go on."""
    load = Load(settings)
    await load.results.upgrade()
    for _ in range(before):
        await load.one()
    stop = asyncio.Event()
    senders = [asyncio.create_task(load.until(stop)) for _ in range(4)]
    about = await asyncio.to_thread(backup, settings, target)
    stop.set()
    await asyncio.gather(*senders)
    await load.close()
    return about, load


async def test_a_backup_under_load_restores_to_a_whole(settings: Settings, tmp_path: Path) -> None:
    target, fresh = tmp_path / "backup", tmp_path / "fresh"
    load = Load(settings)
    await load.results.upgrade()
    for _ in range(30):
        await load.one()
    finished, waiting = list(load.finished), list(load.waiting)
    stop = asyncio.Event()
    senders = [asyncio.create_task(load.until(stop)) for _ in range(4)]
    about = await asyncio.to_thread(backup, settings, target)
    stop.set()
    await asyncio.gather(*senders)
    await load.close()
    noted = open_results(settings.results.url)
    last = msgspec.json.decode(await noted.load_state(LAST) or b"", type=LastBackup)
    assert (last.to, last.blobs) == (str(target), about.blobs)
    assert last.bytes == about.bytes + (target / "results.db").stat().st_size
    actions = await noted.actions(utcnow() - timedelta(hours=1), utcnow() + timedelta(seconds=1), 100)
    assert [(each["what"], each["to"]) for each in actions] == [("backup", str(target))]
    await noted.close()
    told = await asyncio.to_thread(restore, target, fresh)
    assert isinstance(told, Restored)
    assert told.blobs == about.blobs >= 30

    again = load_settings(None, {}, {"data_dir": str(fresh)})
    results, blobs = open_results(again.results.url), open_blobs(again.blobs.url)
    await results.upgrade()
    assert set(await results.get_many(finished)) == set(finished)
    requeued = await results.unqueued(-60.0, 10_000)
    assert {job.id for job in requeued} >= set(waiting)
    assert told.unfinished == len(requeued) == (await results.unfinished()).count
    page, _ = await results.find(ResultQuery(limit=10_000))
    jobs = await results.find_jobs([result.id for result in page])
    assert len(jobs) == len(page) >= 20
    for job in (*(kept.job for kept in jobs.values()), *requeued):
        assert hashlib.sha256(await blobs.get(job.blob)).hexdigest() == job.blob.sha256
    await results.close()
    await blobs.close()


async def test_progress_ends_at_the_whole(settings: Settings, tmp_path: Path) -> None:
    load = Load(settings)
    await load.results.upgrade()
    for _ in range(5):
        await load.one()
    await load.close()
    seen: list[tuple[int, int]] = []
    await asyncio.to_thread(backup, settings, tmp_path / "b", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    seen.clear()
    await asyncio.to_thread(restore, tmp_path / "b", tmp_path / "r", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7)  # database, backup.json, five pictures


@pytest.mark.parametrize("harm", ["flip", "remove", "manifest"])
async def test_a_damaged_backup_restores_nothing(settings: Settings, tmp_path: Path, harm: str) -> None:
    await made(settings, tmp_path / "b", before=3)
    picture = next(path for path in (tmp_path / "b" / "blobs").rglob("*") if path.is_file())
    if harm == "flip":
        data = bytearray(picture.read_bytes())
        data[7] ^= 1
        picture.unlink()
        picture.write_bytes(data)
    elif harm == "remove":
        picture.unlink()
    else:
        (tmp_path / "b" / "MANIFEST.sha256").write_text(f"{'0' * 64}  ../../outside\n")
    with pytest.raises(ConfigError, match=r"another backup|nothing was restored"):
        await asyncio.to_thread(restore, tmp_path / "b", tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()
    assert [path.name for path in tmp_path.iterdir() if ".part-" in path.name] == []


async def test_nothing_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    await made(settings, tmp_path / "b", before=3)
    with pytest.raises(ConfigError, match="not an empty folder"):
        await asyncio.to_thread(backup, settings, tmp_path / "b")
    with pytest.raises(ConfigError, match="not an empty folder"):
        await asyncio.to_thread(restore, tmp_path / "b", path_of(settings.results.url).parent)


async def test_servers_are_not_pretended_to_be_copied(settings: Settings, tmp_path: Path) -> None:
    remote = settings.results.model_copy(update={"url": "postgresql://me:secret@db/eyeline"})
    with pytest.raises(ConfigError, match="pg_dump") as caught:
        backup(settings.model_copy(update={"results": remote}), tmp_path / "b")
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_no_backup_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no backup"):
        restore(tmp_path, tmp_path / "fresh")
