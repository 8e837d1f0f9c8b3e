"""The audit of a million results, by `make soak`: verified within a minute, from the database and by the file alone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from eyeline.ops.audit import trail, verifier
from eyeline.ops.audit.sealer import Sealer
from eyeline.stores.results.sqlite import SqliteResults, checkpoint
from tests.unit.ops.audit.test_trail import result

RECORDS, MINUTE = 1_000_000, 60.0


@pytest.mark.soak
async def test_a_million_records_are_verified_within_a_minute(tmp_path: Path) -> None:
    store = SqliteResults(f"sqlite:///{tmp_path / 'results.db'}")
    await store.upgrade()
    sealer = Sealer(store, lease=0.0)
    for _ in range(RECORDS // 1000):
        await store.save_many([result() for _ in range(1000)])
        assert await sealer.step() == 1000
        checkpoint(tmp_path / "results.db")
    started = time.monotonic()
    report = await trail.verify(store)
    assert (report.good, report.records) == (True, RECORDS)
    assert time.monotonic() - started <= MINUTE
    await trail.export(store, tmp_path / "export.jsonl")
    await store.close()
    started = time.monotonic()
    alone = subprocess.run([sys.executable, "-I", "-S", str(verifier.__file__), tmp_path / "export.jsonl"], check=False)
    assert alone.returncode == 0
    assert time.monotonic() - started <= MINUTE
