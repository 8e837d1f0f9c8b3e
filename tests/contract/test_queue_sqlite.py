"""What the embedded queue promises beyond the contract: death of processes, other boots, broken files."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.types import Message
from eyeline.queues.sqlite import SqliteQueue

LONG = 60.0

PUTTER = """
import asyncio, sys
from eyeline.core.types import Message
from eyeline.queues.sqlite import SqliteQueue

async def main() -> None:
    queue = SqliteQueue(sys.argv[1])
    for start in range(0, 1_000_000, 5):
        batch = [Message(id=str(n), topic="p.live", group="g", body=b"x" * 4096) for n in range(start, start + 5)]
        await queue.put_many(batch)
        print(start, flush=True)

asyncio.run(main())
"""

TAKER = """
import asyncio, sys
from eyeline.queues.sqlite import SqliteQueue

async def main() -> None:
    queue = SqliteQueue(sys.argv[1])
    while got := await queue.receive(5, 1.0, 60.0):
        await queue.ack_many(got)
        for delivery in got:
            print(delivery.id, flush=True)

asyncio.run(main())
"""


class Clock:
    """Seconds since boot, as a test says."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def a_message(id: str = "one", **more: Any) -> Message:  # noqa: A002
    return Message(**{"id": id, "topic": "p.live", "group": "g", "body": b"x", **more})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


async def test_messages_and_leases_outlive_a_close(url: str) -> None:
    first = SqliteQueue(url)
    await first.put_many([a_message("leased"), a_message("waits")])
    taken = await first.receive(1, 0, LONG)
    await first.close()
    second = SqliteQueue(url)
    assert [delivery.id for delivery in await second.receive(5, 0, LONG)] == ["waits"]
    assert await second.ack_many(taken) == []
    await second.close()


async def test_what_was_put_survives_the_kill_of_its_putter(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PUTTER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout]
    queue = SqliteQueue(url)
    kept = set[int]()
    while got := await queue.receive(50, 0, LONG):
        kept.update(int(delivery.id) for delivery in got)
    await queue.close()
    assert {start + n for start in said for n in range(5)} <= kept
    assert len(kept) % 5 == 0  # a batch is there whole or not at all


async def test_two_processes_never_hold_the_same_message(url: str) -> None:
    queue = SqliteQueue(url)
    await queue.put_many([a_message(str(n), group=f"g{n % 5}") for n in range(300)])
    takers = [subprocess.Popen([sys.executable, "-c", TAKER, url], stdout=subprocess.PIPE, text=True) for _ in "ab"]
    said = [await asyncio.to_thread(taker.communicate) for taker in takers]
    taken = [line for output, _ in said for line in output.split()]
    assert sorted(taken, key=int) == [str(n) for n in range(300)]
    assert (await queue.stats()).depth == 0
    await queue.close()


async def test_processes_that_start_at_once_share_one_new_file(url: str) -> None:
    takers = [subprocess.Popen([sys.executable, "-c", TAKER, url], stderr=subprocess.PIPE) for _ in range(4)]
    said = [(await asyncio.to_thread(taker.communicate))[1] for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0, 0, 0], said


async def test_a_put_of_another_process_wakes_a_waiting_receiver(url: str) -> None:
    queue = SqliteQueue(url)
    waiting = asyncio.create_task(queue.receive(1, 30, LONG))
    putter = subprocess.Popen([sys.executable, "-c", PUTTER, url], stdout=subprocess.DEVNULL)
    assert await waiting
    putter.kill()
    await asyncio.to_thread(putter.wait)
    await queue.close()


async def test_a_lease_ends_by_the_clock_it_was_given(url: str) -> None:
    clock = Clock(100.0)
    queue = SqliteQueue(url, clock=clock, boot="a")
    await queue.put_many([a_message()])
    await queue.receive(1, 0, 30)
    clock.now += 29.9
    assert await queue.receive(1, 0, 30) == []
    clock.now += 0.2
    assert [delivery.attempt for delivery in await queue.receive(1, 0, 30)] == [2]
    await queue.close()


async def test_leases_and_delays_of_another_boot_are_void(url: str) -> None:
    before = SqliteQueue(url, clock=Clock(9_000.0), boot="a")
    await before.put_many([a_message("leased")])
    await before.receive(1, 0, LONG)
    await before.put_many([a_message("delayed", delay=500.0)])
    await before.close()
    after = SqliteQueue(url, clock=Clock(5.0), boot="b")
    assert (await after.stats()).in_flight == 0
    assert {delivery.id for delivery in await after.receive(5, 0, LONG)} == {"leased", "delayed"}
    await after.close()


async def test_the_age_of_what_waits_goes_on_over_a_boot(url: str) -> None:
    clock = Clock(9_000.0)
    before = SqliteQueue(url, clock=clock, boot="a")
    await before.put_many([a_message()])
    await before.close()
    clock.now = 9_040.0
    await SqliteQueue(url, clock=clock, boot="a").close()
    after = SqliteQueue(url, clock=Clock(5.0), boot="b")
    assert (await after.stats()).oldest_age == pytest.approx(40.0)
    await after.close()


async def test_the_oldest_age_is_that_of_what_waits(url: str) -> None:
    clock = Clock(100.0)
    queue = SqliteQueue(url, clock=clock, boot="a")
    assert (await queue.stats()).oldest_age is None
    await queue.put_many([a_message("first")])
    clock.now = 110.0
    await queue.put_many([a_message("second")])
    clock.now = 130.0
    assert (await queue.stats()).oldest_age == 30.0
    await queue.receive(1, 0, LONG)
    assert (await queue.stats()).oldest_age == 20.0
    await queue.close()


async def test_a_full_disk_is_said_and_puts_nothing(url: str) -> None:
    queue = SqliteQueue(url)
    await queue.put_many([a_message("fits")])
    await queue._file.run(lambda db: db.execute("PRAGMA max_page_count = 20"), write=False)
    with pytest.raises(QueueError, match="disk is full") as caught:
        await queue.put_many([a_message(str(n), body=os.urandom(4000)) for n in range(50)])
    assert caught.value.transient
    assert (await queue.stats()).depth == 1
    await queue.close()


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"once upon a time " * 1000)
    with pytest.raises(QueueError, match="no SQLite database") as caught:
        SqliteQueue(f"sqlite:///{tmp_path}/queue.db")
    assert not caught.value.transient


async def test_a_damaged_file_is_said_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queue = SqliteQueue(f"sqlite:///{path}")
    await queue.put_many([a_message(str(n), body=os.urandom(2000)) for n in range(200)])
    await queue.close()
    from eyeline.core.embedded import checkpoint

    checkpoint(path)
    path.with_name("queue.db-wal").unlink(missing_ok=True)
    path.with_name("queue.db-shm").unlink(missing_ok=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    with pytest.raises(QueueError, match=r"damaged.*eyeline restore"):
        await SqliteQueue(f"sqlite:///{path}").receive(1, 0, LONG)


def test_a_url_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no file"):
        SqliteQueue("sqlite://queue.db")


async def test_a_lock_that_another_holds_too_long_is_transient(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.core.embedded.PATIENCE", 0.1)
    holder, queue = SqliteQueue(url), SqliteQueue(url)
    await holder._file.run(lambda db: db.execute("BEGIN IMMEDIATE"), write=False)
    with pytest.raises(QueueError, match="another process") as caught:
        await queue.put_many([a_message()])
    assert caught.value.transient
    await holder._file.run(lambda db: db.execute("ROLLBACK"), write=False)
    await queue.put_many([a_message()])
    await holder.close()
    await queue.close()


async def test_a_claim_among_many_waiting_reads_only_what_it_takes(url: str) -> None:
    queue = SqliteQueue(url)
    await queue.put_many([a_message(str(n), group=f"g{n % 50}") for n in range(5000)])
    plan = await queue._file.run(
        lambda db: db.execute(
            "EXPLAIN QUERY PLAN SELECT seq, topic, turn FROM messages WHERE state = 0 AND topic = 'p.live' "
            "ORDER BY turn, seq LIMIT 5"
        ).fetchall(),
        write=False,
    )
    assert "USING COVERING INDEX waiting" in str(plan) or "USING INDEX waiting" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
    sites = [delivery.group for delivery in await queue.receive(50, 0, LONG)]
    assert len(set(sites)) == 50
    await queue.close()
