"""Shared memory that survives other processes' ends and not its owner's."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eyeline.core.errors import ConfigError
from eyeline.inference import shm
from eyeline.inference.shm import Segment

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="segments cannot be listed on macOS")


def test_what_one_writes_the_other_reads() -> None:
    with Segment.create(4096) as owner:
        owner.view(16, (2, 3), np.uint8)[...] = [[1, 2, 3], [4, 5, 6]]
        other = Segment.attach(owner.name)
        assert other.view(16, (2, 3), np.uint8).tolist() == [[1, 2, 3], [4, 5, 6]]
        other.close()


def test_the_owner_removes_it_and_others_do_not() -> None:
    with Segment.create(100) as owner:
        with Segment.attach(owner.name):
            pass
        assert (shm.FOLDER / owner.name).exists()
    assert not (shm.FOLDER / owner.name).exists()


def test_a_process_that_attached_and_died_leaves_the_owners_segment() -> None:
    with Segment.create(100) as owner:
        code = f"from eyeline.inference.shm import Segment; Segment.attach({owner.name!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert (shm.FOLDER / owner.name).exists()


@pytest.mark.parametrize(("offset", "shape"), [(-1, (1,)), (90, (11,)), (0, (101,)), (0, (1 << 40, 1 << 40))], ids=str)
def test_a_view_beyond_the_segment_is_refused(offset: int, shape: tuple[int, ...]) -> None:
    with Segment.create(100) as owner, pytest.raises(ValueError, match="outside"):
        owner.view(offset, shape, np.uint8)


def test_a_view_outlives_the_segments_closing() -> None:
    owner = Segment.create(100)
    view = owner.view(0, (100,), np.uint8)
    owner.close()
    owner.close()
    owner.unlink()
    view[...] = 7
    assert view.sum() == 700


@pytest.mark.parametrize("name", ["../etc/passwd", "a/b", "", ".hidden", "x" * 300, "a\0b"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for shared memory"):
        Segment.attach(name)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = shm.FOLDER / f"{shm.new_name()}-link"
    (tmp_path / "secret").write_bytes(b"secret")
    link.symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(OSError, match="symbolic"):
            Segment.attach(link.name)
    finally:
        link.unlink()


def test_more_memory_than_there_is_is_a_clear_error_and_leaves_nothing() -> None:
    name = shm.new_name()
    with pytest.raises(ConfigError, match=r"cannot reserve .* shared memory"):
        Segment.create(1 << 50, name)
    assert not (shm.FOLDER / name).exists()


def _abandoned() -> str:
    code = (
        "import os, signal; from eyeline.inference.shm import Segment;"
        "print(Segment.create(4096).name, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip()


def test_sweep_removes_what_killed_processes_left_and_nothing_of_the_living() -> None:
    left = _abandoned()
    assert (shm.FOLDER / left).exists()
    with Segment.create(100) as alive:
        swept = shm.sweep()
        assert left in swept
        assert alive.name not in swept
        assert (shm.FOLDER / alive.name).exists()
    assert not (shm.FOLDER / left).exists()


def test_sweep_spares_an_owner_whose_pid_it_cannot_see() -> None:
    """In another PID namespace the number in the name means nothing; the lock does."""
    with Segment.create(100, f"eyeline-{shm.new_name().split('-')[1]}-4194000-0") as alive:
        assert alive.name not in shm.sweep()
