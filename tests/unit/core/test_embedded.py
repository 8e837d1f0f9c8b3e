"""One file, one writing thread: calls share a transaction and fail alone; network file systems are refused."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eyeline.core.embedded import Embedded, checkpoint, path_of, require_local
from eyeline.core.errors import CacheError, ConfigError

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/nas nfs4 rw 0 0
me@host:/ /mnt/my\\040files fuse.sshfs rw 0 0
tmpfs /mnt/nas/fast tmpfs rw 0 0
host /mnt/shared 9p rw 0 0
"""


def insert(n: int) -> Any:
    return lambda db: db.execute("INSERT INTO t VALUES (?)", (n,))


async def count(file: Embedded) -> int:
    return int(await file.run(lambda db: db.execute("SELECT count(*) FROM t").get, write=False))


async def test_a_call_that_fails_fails_alone(tmp_path: Path) -> None:
    file = Embedded(tmp_path / "a.db", SCHEMA, CacheError)
    answers = await asyncio.gather(*(file.run(insert(n)) for n in (1, 2, 2, 3)), return_exceptions=True)
    assert [isinstance(answer, CacheError) for answer in answers] == [False, False, True, False]
    assert await count(file) == 3
    await file.close()


async def test_concurrent_calls_share_their_commits(tmp_path: Path) -> None:
    file = Embedded(tmp_path / "a.db", SCHEMA, CacheError)
    groups: list[int] = []
    run_group = file._run_group

    def spy(tasks: list[Any]) -> None:
        groups.append(len(tasks))
        run_group(tasks)

    file._run_group = spy  # type: ignore[method-assign]
    await asyncio.gather(*(file.run(insert(n)) for n in range(50)))
    assert sum(groups) == 50
    assert max(groups) > 1
    await file.close()


async def test_a_cancelled_call_is_skipped_or_undone(tmp_path: Path) -> None:
    file = Embedded(tmp_path / "a.db", SCHEMA, CacheError)
    undone: list[str] = []

    def work(db: Any) -> str:
        insert(1)(db)
        return "done"

    task = asyncio.create_task(file.run(work, undo=undone.append))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    written = await count(file)
    assert undone == ["done"] * written
    await file.close()


async def test_what_was_asked_before_the_close_is_done(tmp_path: Path) -> None:
    file = Embedded(tmp_path / "a.db", SCHEMA, CacheError)
    tasks = [asyncio.create_task(file.run(insert(n))) for n in range(100)]
    await asyncio.sleep(0)
    await file.close()
    await asyncio.gather(*tasks)
    again = Embedded(tmp_path / "a.db", SCHEMA, CacheError)
    assert await count(again) == 100
    await again.close()


async def test_only_checkpoint_copies_the_wal(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    file = Embedded(path, SCHEMA, CacheError)
    for n in range(20):
        await file.run(insert(n))
    before = path.stat().st_size
    await file.close()
    assert path.stat().st_size == before
    checkpoint(path)
    assert path.stat().st_size > before


def test_checkpoint_of_no_file_does_nothing(tmp_path: Path) -> None:
    assert checkpoint(tmp_path / "none.db") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:////var/x.db", "sqlite:///x.db"])
def test_a_url_names_a_file(url: str) -> None:
    assert path_of(url) == Path("/var/x.db" if "////" in url else "x.db")


@pytest.mark.parametrize("place", ["/mnt/nas/data/q.db", "/mnt/my files/q.db", "/mnt/shared/q.db"])
def test_a_network_file_system_is_refused_by_name(tmp_path: Path, place: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    with pytest.raises(ConfigError, match="network file system"):
        require_local(Path(place), mounts)


@pytest.mark.parametrize("place", ["/var/q.db", "/mnt/nas/fast/q.db", "/mnt/q.db"])
def test_a_local_disk_is_accepted(tmp_path: Path, place: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    require_local(Path(place), mounts)


def test_a_sandbox_whose_only_disk_comes_from_its_host_is_accepted(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("none / 9p rw 0 0\n")
    require_local(Path("/var/q.db"), mounts)
