"""Metrics that several processes share by files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PARENT = """
import os, sys
from pathlib import Path
from eyeline.core.telemetry import RESTARTS, metrics_page, share_metrics
share_metrics(Path(sys.argv[1]))
RESTARTS.labels("worker-1").inc()
print(metrics_page().decode())
"""
CHILD = "from eyeline.core.telemetry import claim_metrics; claim_metrics()"


def _python(code: str, *words: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_what_a_parent_counts_is_among_the_metrics_of_its_children(tmp_path: Path) -> None:
    """It is told of the folder after its own start, when the metrics exist already."""
    assert 'eyeline_process_restarts_total{role="worker-1"} 1.0' in _python(PARENT, str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot claim disk space ahead")
def test_a_disk_that_fills_up_later_has_given_the_metrics_their_pages_already(tmp_path: Path) -> None:
    _python(CHILD, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    files = [path.stat() for path in tmp_path.iterdir()]
    assert len(files) >= 3
    assert all(file.st_blocks * 512 >= file.st_size for file in files)
