"""From one machine's stores to a cluster's: everything is there afterwards, however often the move was cut off."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from eyeline.app import locked
from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import BlobRef, Code, Detection, Job, Result
from eyeline.ops.move import Moved, move
from eyeline.stores.blobs import open_blobs
from eyeline.stores.results import copying, open_results
from eyeline.stores.results.base import AlertQuery, AlertRow, DeliveryRow, KeyRow, NewJob, ResultQuery
from tests.contract.servers import new_database, s3_url

FINISHED, WAITING = 12, 3


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a small system that has worked."""
    folder = tmp_path_factory.mktemp("worked")
    asyncio.run(_fill(load_settings(None, {}, {"data_dir": str(folder / "data")})))
    return folder / "data"


@pytest.fixture
def old(worked: Path, tmp_path: Path) -> Path:
    """Its settings, and a copy of its data that is the test's own."""
    shutil.copytree(worked, tmp_path / "old")
    config = tmp_path / "old.toml"
    config.write_text(tomli_w.dumps({"data_dir": str(tmp_path / "old")}))
    return config


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The settings of a system on a database server and a bucket, both empty."""
    config = tmp_path / "new.toml"
    stores = {"results": {"url": new_database()}, "blobs": {"url": s3_url()}}
    config.write_text(tomli_w.dumps({"data_dir": str(tmp_path / "new"), **stores}))
    return config


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PAGE", 5)  # so that a move can be cut off within a table


async def _fill(settings: Settings) -> None:
    settings.data_dir.mkdir()
    blobs, results = open_blobs(settings.blobs.url), open_results(settings.results.url)
    await results.upgrade()
    jobs = [_job(await _put(blobs, os.urandom(3000)), number) for number in range(FINISHED + WAITING)]
    new = [NewJob(job=job, principal="cam", idempotency_key=f"k{n}", body_digest="d") for n, job in enumerate(jobs)]
    await results.keep_jobs(new)
    await results.mark_enqueued([job.id for job in jobs])
    await results.save_many([_result(job, number) for number, job in enumerate(jobs[:FINISHED])])
    now = utcnow()
    await results.put_key(KeyRow(name="ops", sha256="a" * 64, role="admin", sites=("north",), created_at=now))
    await results.report_camera("belt-1", "north", {"captured": 7})
    alert = AlertRow(
        id=uuid7(), rule="r", cause="c", site="north", severity="warning", state="open",
        opened_at=now, last_at=now, count=1, result_id=uuid7(), body={"label": "dent"},
    )  # fmt: skip
    told = DeliveryRow(id=uuid7(), alert_id=alert.id, channel="ops", payload=b"{}", captured_at=now, next_at=now)
    await results.commit_alerts(state={"engine": b"cursor"}, alerts=[alert], deliveries=[told])
    await results.close()
    await blobs.close()


async def _put(blobs: Any, data: bytes) -> BlobRef:
    ref: BlobRef = await blobs.put("north", data, hashlib.sha256(data).hexdigest())
    return ref


def _job(ref: BlobRef, number: int) -> Job:
    now = utcnow()
    return Job(
        id=uuid7(), site="north", pipeline="p", lane="live", blob=ref, received_at=now, captured_at=now,
        camera=f"belt-{number % 2}",
    )  # fmt: skip


def _result(job: Job, number: int) -> Result:
    return Result(
        id=job.id, status="completed", site="north", pipeline="p", camera=job.camera, captured_at=job.captured_at,
        received_at=job.received_at, completed_at=utcnow(), codes=[Code(f"C{number}\x00", "DataMatrix", (0, 0, 1, 1))],
        detections=[Detection("dent", 0.1 + number / 100, (0, 0, 1, 1), "find")],
    )  # fmt: skip


async def everything(settings: Settings) -> dict[str, Any]:
    """What a system holds, as its users can see it; `enqueued` of the unfinished aside."""
    blobs, results = open_blobs(settings.blobs.url), open_results(settings.results.url)
    found, _ = await results.find(ResultQuery(limit=10_000))
    events = await results.tail(0, 10_000)
    jobs = await results.find_jobs([event.body["id"] for event in events if event.kind == "result"])
    alerts, _ = await results.find_alerts(AlertQuery(limit=100))
    every = timedelta(days=-1).total_seconds()
    held = {
        "results": found,
        "events": events,
        "jobs": jobs,
        "unfinished": await results.unfinished(),
        "counts": await results.camera_counts(),
        "cameras": await results.cameras(),
        "alerts": alerts,
        "deliveries": [await results.list_deliveries(alert.id) for alert in alerts],
        "state": await results.load_state("engine"),
        "keys": await results.keys(),
        "codes": [len((await results.find(ResultQuery(code="C7\x00")))[0])],
        "labels": [result.id for result in (await results.find(ResultQuery(label="dent", min_score=0.3)))[0]],
        "pictures": {ref.url: await blobs.get(ref) async for ref in blobs.list(older_than=every)},
    }
    await results.close()
    await blobs.close()
    return held


def moved(old: Path, new: Path, *, until: int | None = None) -> Moved:
    """The move, cut off after `until` steps where that is given."""

    def cut(done: int, _total: int) -> None:
        if until is not None and done >= until:
            raise KeyboardInterrupt

    return asyncio.run(move(load_settings(old, {}), load_settings(new, {}), cut))


def test_a_system_moves_to_a_database_server_and_a_bucket_whole(old: Path, new: Path) -> None:
    told = moved(old, new)
    before, after = (asyncio.run(everything(load_settings(config, {}))) for config in (old, new))
    assert (len(after["results"]), len(after["pictures"])) == (FINISHED, FINISHED + WAITING)
    assert after == before
    assert (told.blobs, told.unfinished) == (FINISHED + WAITING, WAITING)
    asyncio.run(_goes_on(load_settings(new, {}), len(before["events"])))


async def _goes_on(settings: Settings, newest: int) -> None:
    """The unfinished are for the relay, numbers go on behind the old ones, idempotency keys hold."""
    blobs, results = open_blobs(settings.blobs.url), open_results(settings.results.url)
    assert len(await results.unqueued(-1.0, 100)) == WAITING
    job = _job(await _put(blobs, b"new"), 1)
    kept = await results.keep_jobs([NewJob(job=job, principal="cam", idempotency_key="k1", body_digest="d")])
    assert kept[0].existing
    await results.save_many([_result(job, 1)])
    assert [event.seq for event in await results.tail(newest, 10)] == [newest + 1]
    await results.close()
    await blobs.close()


@pytest.mark.parametrize("until", [3, FINISHED + WAITING + 20, FINISHED + WAITING + 60])
def test_a_move_that_was_cut_off_goes_on_where_it_was(old: Path, new: Path, until: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        moved(old, new, until=until)
    assert moved(old, new).unfinished == WAITING
    before, after = (asyncio.run(everything(load_settings(config, {}))) for config in (old, new))
    assert after == before


def command(old: Path, new: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    words = ["move", "--from-config", str(old), "--to-config", str(new)]
    return subprocess.run(
        [sys.executable, "-m", "eyeline", *words],
        env={**os.environ, **environ}, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_moves_what_does_not_run_and_only_by_its_two_files(old: Path, new: Path) -> None:
    with locked(load_settings(old, {}).data_dir):
        refused = command(old, new)
    assert refused.returncode == 2
    assert "another `eyeline up` works on" in refused.stderr
    told = command(old, new, EYELINE_RESULTS__URL="sqlite:////nowhere/at/all.db")
    assert told.returncode == 0, told.stderr
    assert f"{WAITING} unfinished jobs" in told.stdout


def test_nothing_is_written_over(old: Path, new: Path) -> None:
    moved(old, new)
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        moved(old, new)
    with pytest.raises(ConfigError, match="nothing to move"):
        moved(old, old)


def test_rows_that_changed_between_two_starts_are_noticed(old: Path, new: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        moved(old, new, until=FINISHED + WAITING + 60)

    async def touched() -> None:
        results = open_results(load_settings(old, {}).results.url)
        await results.charge((await results.find(ResultQuery(limit=1)))[0][0].id)
        await results.close()

    asyncio.run(touched())
    with pytest.raises(ConfigError, match="somebody wrote to one of them"):
        moved(old, new)


def test_a_damaged_picture_is_named_and_not_moved(old: Path, new: Path) -> None:
    picture = next(path for path in (old.parent / "old" / "blobs").rglob("*") if path.is_file())
    picture.write_bytes(b"x" * picture.stat().st_size)
    with pytest.raises(ConfigError, match=f"{picture.name} is damaged in the source"):
        moved(old, new)
