"""What a command starts for itself ends with it, also where nobody could say so."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from eyeline.ops import own
from tests.system import until

SERVICE = """
from eyeline.core.service import run_service
class Waits:
    async def run(self, stop):
        await stop.wait()
run_service(Waits)
"""
STARTER = """
import os, subprocess, sys, time
from eyeline.core.service import tied
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | tied(), stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process there keeps its dead parent")
def test_a_service_ends_where_its_starter_is_killed_even_before_it_could_look() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, SERVICE], stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        os.kill(starter.pid, signal.SIGKILL)
    try:
        until(
            lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie", 20, "the child is gone"
        )
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_it_knows_whom_to_end_with_and_nothing_else_of_the_callers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells = tmp_path / "tells"
    tells.write_text('#!/bin/sh\nenv | grep ^EYELINE_; echo "$@"\n')
    tells.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tells))
    monkeypatch.setenv("EYELINE_GATEWAY__PORT", "1")
    with (tmp_path / "log").open("wb") as log:
        async with own.own_system(Path("site.toml"), log) as process:
            await process.wait()
    said = (tmp_path / "log").read_text().split("\n")
    assert said[:2] == [f"EYELINE_PARENT={os.getpid()}", "-m eyeline up --config site.toml"]


def test_folders_whose_process_was_killed_are_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("mine-dead", "mine-made-just-now", "other"):
        (tmp_path / name / "data").mkdir(parents=True)
    with own.own_folder("mine-") as first:
        for folder in (tmp_path / "mine-dead", tmp_path / "other", first):
            os.utime(folder, (0, 0))
        with own.own_folder("mine-") as second:
            assert {each.name for each in tmp_path.iterdir()} == {
                "mine-made-just-now", "other", first.name, second.name,
            }  # fmt: skip
    assert not first.exists()
