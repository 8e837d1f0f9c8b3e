"""The doorbell: who waits is woken by whoever writes, in this process or another, and the dead leave nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eyeline.core.bell import Bell


@pytest.fixture(autouse=True)
def bells(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie, for this process and its children."""
    folder = tmp_path_factory.mktemp("bells")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


async def heard(event: asyncio.Event, seconds: float = 5.0) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def test_a_ring_wakes_every_listener(tmp_path: Path, bells: Path) -> None:
    events = [asyncio.Event(), asyncio.Event()]
    listeners = [Bell(tmp_path / "queue.db") for _ in events]
    for bell, event in zip(listeners, events, strict=True):
        assert bell.listen(event.set)
    await asyncio.to_thread(Bell(tmp_path / "queue.db").ring)
    assert [await heard(event) for event in events] == [True, True]
    for bell in listeners:
        bell.close()
    assert list(bells.iterdir()) == []


async def test_a_listener_does_not_hear_itself(tmp_path: Path) -> None:
    event = asyncio.Event()
    bell = Bell(tmp_path / "queue.db")
    bell.listen(event.set)
    bell.ring()
    assert not await heard(event, 0.1)
    bell.close()


async def test_a_ring_comes_from_another_process(tmp_path: Path) -> None:
    event = asyncio.Event()
    bell = Bell(tmp_path / "queue.db")
    bell.listen(event.set)
    ring = "import sys; from pathlib import Path; from eyeline.core.bell import Bell; Bell(Path(sys.argv[1])).ring()"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", ring, str(tmp_path / "queue.db")], check=True)
    assert await heard(event)
    bell.close()


def test_what_a_killed_listener_left_is_removed_by_the_next_ring(tmp_path: Path, bells: Path) -> None:
    listen = (
        "import asyncio, sys; from pathlib import Path; from eyeline.core.bell import Bell\n"
        "async def main():\n"
        "    print(Bell(Path(sys.argv[1])).listen(print), flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    words = [sys.executable, "-c", listen, str(tmp_path / "queue.db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (folder,) = bells.iterdir()
    assert len(list(folder.iterdir())) == 1
    Bell(tmp_path / "queue.db").ring()
    assert list(folder.iterdir()) == []


async def test_a_listener_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    event = asyncio.Event()
    bell = Bell(tmp_path / "queue.db")
    bell.listen(event.set)
    other = Bell(tmp_path / "queue.db")
    for _ in range(70_000):  # more than a FIFO holds
        other.ring()
    assert await heard(event)
    bell.close()


async def test_where_no_fifo_can_be_made_nobody_listens_and_ringing_is_harmless(tmp_path: Path, bells: Path) -> None:
    first = Bell(tmp_path / "queue.db")
    first.listen(print)
    (folder,) = bells.iterdir()
    first.close()
    folder.symlink_to(tmp_path)  # someone else's trap
    bell = Bell(tmp_path / "queue.db")
    assert not bell.listen(lambda: None)
    bell.ring()
    Bell(tmp_path / "nothing.db").ring()
    bell.close()
