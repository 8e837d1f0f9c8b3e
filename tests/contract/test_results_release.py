"""A rolling update: processes of the last release work beside this one on this one's schema, and each sees what both wrote."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eyeline.ops.audit import trail
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultQuery
from tests.released.life import life

RELEASED = Path(__file__).resolve().parents[1] / "released"


@pytest.mark.parametrize("release", sorted(RELEASED.glob("eyeline-*.zip")), ids=lambda path: path.stem)
async def test_the_release_before_works_on_the_schema_of_this_one(release: Path, results_url: str) -> None:
    store = open_results(results_url)
    await store.upgrade()
    await life(results_url, "ours-first")
    told = await asyncio.to_thread(_run, release, results_url)
    assert told.returncode == 0, told.stderr
    package, *ids = told.stdout.splitlines()[-1].split()  # before it, the log
    assert package.startswith(str(release)), package
    await life(results_url, "ours-last")
    theirs, _ = await store.find(ResultQuery(camera="theirs"))
    assert {result.id for result in theirs} < set(ids)  # they erased one
    assert len(theirs) == len(ids) - 1
    counts = await store.camera_counts()
    assert {camera: count["completed"] + count["failed"] for camera, count in counts.items()} == {
        "ours-first": len(ids),
        "theirs": len(ids),
        "ours-last": len(ids),
    }
    assert (await trail.verify(store)).good
    await store.close()


def _run(release: Path, url: str) -> "subprocess.CompletedProcess[str]":
    """In a process whose `eyeline` is the frozen one."""
    environ = {**os.environ, "PYTHONPATH": str(release)}
    words = [sys.executable, str(RELEASED / "life.py"), url, "theirs"]
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=120)
