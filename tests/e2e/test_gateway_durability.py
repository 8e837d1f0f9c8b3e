"""202 means kept: the order of system calls, `kill -9`, stores that fail, and a queue that is away."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import tomli_w

from eyeline.core.errors import BlobError, QueueError, StoreError
from eyeline.core.ids import uuid7
from eyeline.queues.sqlite import SqliteQueue
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob
from eyeline.stores.results.sql import SqlResults
from tests.gateways import PIPELINES, jpeg, running, settings_for
from tests.system import TLS

IN_CI = "CI" in os.environ


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@asynccontextmanager
async def process(folder: Path, before: Sequence[str] = ()) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """`eyeline gateway` as a process of its own, and its address once it answers."""
    port = free_port()
    tree: dict[str, Any] = {"data_dir": str(folder / "data"), "pipelines": PIPELINES, "gateway": {"port": port}}
    config = folder / "eyeline.toml"
    config.write_text(tomli_w.dumps(tree))
    argv = [*before, sys.executable, "-m", "eyeline", "gateway", "--config", str(config)]
    child = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        await answering(url, child)
        yield child, url
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


async def answering(url: str, child: subprocess.Popen[bytes]) -> None:
    """Wait until it is ready."""
    async with httpx.AsyncClient(verify=TLS, trust_env=False) as client, asyncio.timeout(60):
        while True:
            assert child.poll() is None, "the gateway ended at its start"
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


# ---------------------------------------------------------------- the order of system calls
def place_of(lines: list[str], pattern: str) -> int:
    """The number of the first line that matches."""
    found = next((number for number, line in enumerate(lines) if re.search(pattern, line)), None)
    assert found is not None, f"no system call like {pattern}"
    return found


async def test_blob_folder_and_write_ahead_log_are_synced_before_the_202(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        assert not IN_CI, "strace must be there in CI"
        pytest.skip("strace is not installed; it shows the order of fsync and answer")
    trace = tmp_path / "trace"
    calls = "fsync,fdatasync,rename,renameat,renameat2,write,writev,sendto,sendmsg"
    strace = ["strace", "-f", "-y", "-s", "40", "-e", f"trace={calls}", "-o", str(trace)]
    async with process(tmp_path, strace) as (_, url), httpx.AsyncClient(verify=TLS, trust_env=False) as client:
        before = len(trace.read_text(errors="replace").splitlines())
        answer = await client.post(f"{url}/v1/images", content=jpeg(7), timeout=60)
        assert answer.status_code == 202
        await asyncio.sleep(1.0)  # strace writes its last lines
        lines = trace.read_text(errors="replace").splitlines()[before:]
    told = place_of(lines, r"HTTP/1\.1 202")
    sync = r"(fsync|fdatasync)\(\d+<[^>]*"
    blob = place_of(lines, sync + r"/blobs/default/[0-9a-f]{2}/[^>]+>")
    folder = place_of(lines, sync + r"/blobs/default/[0-9a-f]{2}>")
    renamed = place_of(lines, r"rename.*/blobs/default/")
    log = max(n for n, line in enumerate(lines[:told]) if re.search(sync + r"/results\.db-wal>", line))
    assert blob < renamed < folder < log < told


# ---------------------------------------------------------------- kill -9
async def test_every_202_before_a_kill_has_its_job_and_its_blob_and_is_enqueued_after_it(tmp_path: Path) -> None:
    accepted: list[str] = []
    for round_ in range(3):
        async with process(tmp_path) as (child, url):
            sending = [asyncio.create_task(send_until_dead(url, round_ * 1000 + n * 100, accepted)) for n in range(4)]
            async with asyncio.timeout(60):  # however slow this machine is now: it dies in the midst of work
                while len(accepted) < 10 * (round_ + 1):
                    await asyncio.sleep(0.01)
            os.killpg(child.pid, signal.SIGKILL)
            await asyncio.gather(*sending)
    assert len(accepted) >= 30
    async with running(tmp_path / "data") as here:
        kept = await here.results.find_jobs(accepted)
        assert set(kept) == set(accepted)
        for row in kept.values():
            assert len(await here.blobs.get(row.job.blob)) == row.job.blob.size
        async with asyncio.timeout(20):
            while await here.results.unqueued(0.0, 1):
                await asyncio.sleep(0.2)
        assert (await here.queue.stats()).depth >= len(accepted)


async def send_until_dead(url: str, seed: int, accepted: list[str]) -> None:
    """Send pictures until the gateway is gone; note each 202."""
    async with httpx.AsyncClient(verify=TLS, trust_env=False) as client:
        while True:
            seed += 1
            try:
                answer = await client.post(f"{url}/v1/images", content=jpeg(seed), timeout=10)
            except httpx.TransportError:
                return
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])


async def test_sigterm_ends_requests_in_hand_and_exits_0(tmp_path: Path) -> None:
    async with process(tmp_path) as (child, url), httpx.AsyncClient(verify=TLS, trust_env=False, timeout=30) as client:
        waiting = asyncio.create_task(client.post(f"{url}/v1/images?wait=25", content=jpeg(1)))
        await asyncio.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGTERM)
        assert (await waiting).status_code == 202
        assert await asyncio.to_thread(child.wait, 20) == 0


# ---------------------------------------------------------------- stores that fail
async def test_a_blob_store_that_fails_is_a_503_and_shows_in_readiness_until_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as here:
        broken = True
        put = FolderBlobs.put_now

        def failing(self: FolderBlobs, site: str, data: bytes, sha256: str) -> Any:
            if broken:
                raise BlobError("no space left on /secret/path")
            return put(self, site, data, sha256)

        async def failing_later(self: FolderBlobs, site: str, data: bytes, sha256: str) -> Any:
            return failing(self, site, data, sha256)

        monkeypatch.setattr(FolderBlobs, "put_now", failing)
        monkeypatch.setattr(FolderBlobs, "put", failing_later)
        answer = await here.send(1)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "secret" not in answer.text
        ready = await here.client.get("/readyz")
        assert (ready.status_code, list(ready.json()["not_ready"])) == (503, ["blobs"])
        assert (await here.client.get("/healthz")).status_code == 200
        assert (await here.results.unfinished()).count == 0
        broken = False
        async with asyncio.timeout(10):
            while (await here.client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
        assert (await here.send(1)).status_code == 202


async def test_a_result_store_that_fails_is_a_503_never_a_202_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StoreError("database is locked")

    async with running(tmp_path) as here:
        with monkeypatch.context() as patch:
            patch.setattr(SqlResults, "keep_jobs", away)
            patch.setattr(SqlResults, "unfinished", away)
            assert (await here.send(1)).status_code == 503
            async with asyncio.timeout(5):
                while (await here.client.get("/readyz")).status_code != 503:
                    await asyncio.sleep(0.1)
        async with asyncio.timeout(15):
            while (await here.client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
        assert (await here.send(1)).status_code == 202


async def test_a_queue_that_is_away_delays_jobs_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise QueueError("no broker")

    async with running(tmp_path) as here:
        with monkeypatch.context() as patch:
            patch.setattr(SqliteQueue, "put_many", away)
            ids = {(await here.send(seed)).json()["id"] for seed in range(5)}
            await asyncio.sleep(0.3)
            assert (await here.client.get("/readyz")).status_code == 503
        assert {(await here.take()).id for _ in ids} == ids


async def test_the_sweep_enqueues_what_a_crash_left_and_only_that(tmp_path: Path) -> None:
    """Jobs as a gateway leaves them that died between the commit and the queue."""
    async with running(tmp_path) as here:
        await here.send(1)
        left = await here.take()
    results = open_results(settings_for(tmp_path).results.url)
    orphan = msgspec.structs.replace(left, id=uuid7())
    await results.keep_jobs([NewJob(job=orphan)])
    await results.close()
    async with running(tmp_path) as here:
        async with asyncio.timeout(20):
            while (await here.queue.stats()).depth == 0:
                await asyncio.sleep(0.2)
        assert (await here.take()).id == orphan.id
        assert (await here.queue.stats()).depth == 0
