"""The demo stays within its folder's limit by letting its oldest pictures go, and nothing else."""

import os
import time
from pathlib import Path

from eyeline.ops.demo import shrink


def _file(path: Path, size: int, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def test_the_oldest_pictures_go_first_and_records_stay(tmp_path: Path) -> None:
    database = _file(tmp_path / "data" / "results.db", 500, 9000)
    oldest = _file(tmp_path / "data" / "blobs" / "north" / "aa" / "1", 400, 900)
    older = _file(tmp_path / "data" / "blobs" / "north" / "bb" / "2", 400, 600)
    newer = _file(tmp_path / "data" / "blobs" / "north" / "cc" / "3", 400, 300)
    assert shrink(tmp_path, 1000) == 900
    assert [path.exists() for path in (database, oldest, older, newer)] == [True, False, False, True]


def test_a_picture_that_may_still_be_in_work_stays(tmp_path: Path) -> None:
    fresh = _file(tmp_path / "data" / "blobs" / "north" / "aa" / "1", 400, 1)
    assert shrink(tmp_path, 100) == 400
    assert fresh.exists()


def test_nothing_goes_below_the_limit(tmp_path: Path) -> None:
    kept = _file(tmp_path / "data" / "blobs" / "north" / "aa" / "1", 400, 900)
    assert shrink(tmp_path, 1000) == 400
    assert kept.exists()
