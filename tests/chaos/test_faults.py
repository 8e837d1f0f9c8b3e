"""Every fault of the table on every backend, one after the other, while images flow; then the books are compared.

Of each fault it is told how many images were accepted and recorded from its beginning to the next one's, and how long after
its end both came again at four fifths of the speed of before.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from eyeline.core.errors import QueueError
from eyeline.core.types import Message
from eyeline.gateway.relay import message_of
from eyeline.queues import open_queue
from eyeline.queues.base import Queue
from eyeline.stores.results import open_results
from tests.chaos.backends import BACKENDS, Backend, may_mount, opened, small_disk
from tests.chaos.harness import PIPELINES, RULE, Gauge, Receiver, Sender, Watch, books
from tests.fake_models import write_brightness_bundle
from tests.system import RunningSystem, running_system, settings_for, until

SENDERS = 3
#: Seconds of a lease, of a pause between images, of a server's absence, of its disk without room, of a partition.
LEASE, PAUSE, AWAY, FULL, PARTITION = 3.0, 0.06, 2.0, 10.0, 60.0
#: Messages put at once: Kafka's stand-in writes an object for each.
LOT = 10
#: The promise: seconds until the speed of before is back.
RECOVERY = 10.0


@dataclass
class Place:
    """Where a fault happens."""

    system: RunningSystem
    backend: Backend
    folder: Path
    partition: float


Fault = Callable[[Place], None]  # returns when the fault is over: recovery is counted from there


def killed(role: str) -> Fault:
    """kill -9 of one of our processes."""
    return lambda place: place.system.kill(role)


def frozen(place: Place) -> None:
    """A worker with its hands full sleeps beyond its lease: when it wakes, two hold the same messages."""
    pid = place.system.pids()["worker-1"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * LEASE)
    os.kill(pid, signal.SIGCONT)


def died(part: str) -> Fault:
    """kill -9 of a server, and its return."""
    return lambda place: place.backend.parts[part].killed(AWAY)


def cut(part: str) -> Fault:
    """All connections to a server are reset, and again while they are made anew."""

    def fault(place: Place) -> None:
        for _ in range(5):
            place.backend.parts[part].proxy.reset()
            time.sleep(0.2)

    return fault


def refused(part: str) -> Fault:
    """Nobody listens for a while."""

    def fault(place: Place) -> None:
        place.backend.parts[part].proxy.refuse()
        time.sleep(AWAY)
        place.backend.parts[part].proxy.heal()

    return fault


def partitioned(part: str) -> Fault:
    """A black hole: connections stay and nothing comes through."""

    def fault(place: Place) -> None:
        place.backend.parts[part].proxy.silent()
        time.sleep(place.partition)
        place.backend.parts[part].proxy.heal()

    return fault


def slowed(part: str) -> Fault:
    """Every answer takes a fifth of a second more."""

    def fault(place: Place) -> None:
        place.backend.parts[part].proxy.slow(0.2)
        time.sleep(5.0)
        place.backend.parts[part].proxy.heal()

    return fault


async def _put_again(place: Place) -> None:
    """The newest jobs once more, twice each, in the wrong order and under other ids than the queue knows."""
    store = open_results(place.backend.results_url or _embedded(place))
    queue = open_queue(place.backend.settings.get("queue", {}).get("url") or f"sqlite:///{place.folder}/data/queue.db")
    try:
        events = await store.tail(max(0, await store.last_seq() - 100), 100)
        kept = await store.find_jobs([event.body["id"] for event in events if event.kind == "result"])
        jobs = sorted((row.job for row in kept.values()), key=lambda job: job.id, reverse=True)
        again = [message_of(job) for job in jobs]
        copies = [
            Message(id=f"{one.id}-{n}", topic=one.topic, group=one.group, body=one.body) for one in again for n in "ab"
        ]
        for first in range(0, len(copies), LOT):
            await _put(queue, copies[first : first + LOT])
    finally:
        await queue.close()
        await store.close()


async def _put(queue: Queue, messages: list[Message]) -> None:
    """The server may be slow: that is not what is tried here."""
    for attempt in range(10):
        try:
            await queue.put_many(messages)
        except QueueError:
            assert attempt < 9
        else:
            return


def repeated(place: Place) -> None:
    """Duplicate and reordered delivery of what has its result already."""

    asyncio.run(_put_again(place))


def _embedded(place: Place) -> str:
    return f"sqlite:///{place.folder}/data/results.db"


@contextmanager
def no_byte_left(disk: Path) -> Iterator[None]:
    """The disk is full to the last byte, until the block ends."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    try:
        yield
    finally:
        ballast.unlink()


def full(place: Place) -> None:
    """No byte is left on the disk that holds everything."""
    with no_byte_left(place.folder / "data"):
        time.sleep(3.0)


def disk_full(part: str) -> Fault:
    """No byte is left for a server. Where it gives up, it is started again once there is room, as its keeper would do."""

    def fault(place: Place) -> None:
        server = place.backend.parts[part]
        assert server.disk is not None
        with no_byte_left(server.disk):
            time.sleep(FULL)
        if server.given_up():
            print(f"{part} had given up", flush=True)
            server.killed(away=0.0)

    return fault


def jumped(seconds: float) -> Fault:
    """Every process of ours reads another time of day from now on; the servers, and leases, do not."""

    def fault(place: Place) -> None:
        (place.folder / "clock").write_text(str(seconds))
        time.sleep(1.0)

    return fault


OURS: Mapping[str, Fault] = {
    "worker killed": killed("worker-1"),
    "gateway killed": killed("gateway"),
    "inference killed": killed("inference"),
    "alerts killed": killed("alerts"),
    "worker frozen beyond its lease": frozen,
    "delivered twice more, out of order": repeated,
    "clock an hour ahead": jumped(3600.0),
    "clock right again": jumped(0.0),
    "clock an hour behind": jumped(-3600.0),
    "clock right once more": jumped(0.0),
}


def faults(backend: Backend) -> dict[str, Fault]:
    """What happens on this backend, in order."""
    table = dict(OURS)
    if not backend.parts:
        return table | ({"disk full": full} if may_mount() else {})
    for part, server in backend.parts.items():
        if server.kill is not None:
            table[f"{part} killed"] = died(part)
        if server.disk is not None:
            table[f"{part}: disk full"] = disk_full(part)
        table[f"{part} reset"] = cut(part)
        table[f"{part} refused"] = refused(part)
        table[f"{part} slow"] = slowed(part)
        table[f"{part} partitioned"] = partitioned(part)
    return table


#: What `make test` does of it, on the first choice for many machines.
SHORT = ("worker frozen beyond its lease", "queue killed", "results killed")


def with_clock(folder: Path) -> dict[str, str]:
    """The environment in which `folder/clock` says how far the time of day is off."""
    site = folder / "site"
    site.mkdir()
    shutil.copy(Path(__file__).parent / "jumping_clock.py", site / "sitecustomize.py")
    (folder / "clock").write_text("0")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "CHAOS_CLOCK": str(folder / "clock")}


def _recovered(gauge: Gauge, before: float, patience: float) -> float:
    """Seconds from now until a window of two seconds begins that is as fast as before, four fifths of it."""
    over = time.monotonic()
    while time.monotonic() - over < patience:
        if gauge.seen and gauge.seen[-1][0] > over + 2.0 and gauge.rate(2.2) >= 0.8 * before:
            return max(0.0, time.monotonic() - over - 2.2)
        time.sleep(0.1)
    return patience


def _through(
    scheme: str, folder: Path, receiver: Receiver, only: tuple[str, ...] | None, partition: float
) -> dict[str, float]:
    """All faults of the table (or those of `only`) in one life of one system. Seconds of recovery by fault."""
    write_brightness_bundle(folder / "models", name="brightness")
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        disks = only is None or any("disk full" in name for name in only)
        backend = stack.enter_context(opened(scheme, folder, long=disks, small=disks))
        if disks and not backend.parts and may_mount():
            stack.enter_context(small_disk(folder / "data", 192))
        more = {
            "log_level": "warning",
            "worker": {"replicas": 2},
            "pipelines": PIPELINES,
            "alerts": {"rules": [RULE], "channels": [receiver.channel]},
            **backend.settings,
            "queue": {"lease": LEASE, **backend.settings.get("queue", {})},
        }
        ledgers = [folder / f"ledger{n}" for n in range(SENDERS)]
        settings = settings_for(folder / "data", folder / "models", more)
        system = stack.enter_context(running_system(folder, settings, env=with_clock(folder)))
        place = Place(system, backend, folder, partition)
        url = backend.results_url or _embedded(place)
        senders = [Sender(system.url, ledgers[n], 1_000_000, n + 1, PAUSE) for n in range(SENDERS)]
        for sender in senders:
            sender.start()
        gauge = stack.enter_context(Watch(Gauge(url, lambda: sum(sender.accepted for sender in senders))))
        table = faults(backend)
        time.sleep(5.0)
        until(lambda: gauge.rate(4.0), 60, "images flow")
        for name in only or table:
            before, first = gauge.rate(4.0), gauge.seen[-1]
            table[name](place)
            seconds[name] = _recovered(gauge, before, 60.0)
            last = gauge.seen[-1]
            print(
                f"| {scheme} | {name} | {last[1] - first[1]} | {last[2] - first[2]} | {seconds[name]:.1f} s |",
                flush=True,
            )
        for sender in senders:
            sender.enough.set()
            sender.join(120)
        until(lambda: system.ready() and system.unfinished() == 0, 180, "every accepted image has a result")
        accepted = sum(sender.accepted for sender in senders)
        deadline = time.monotonic() + 60
        found = books(ledgers, url, receiver)
        while (found.missed_alerts or found.untold_alerts) and time.monotonic() < deadline:
            time.sleep(1.0)
            found = books(ledgers, url, receiver)
    print(f"{scheme}: {found}; refused meanwhile {[sender.trouble for sender in senders]}")
    assert found.promised == accepted
    assert found.faults == {}
    return seconds


@pytest.mark.timeout(240)
def test_servers_die_and_workers_freeze_and_nothing_is_lost_or_comes_twice(tmp_path: Path, receiver: Receiver) -> None:
    assert set(_through("redis", tmp_path, receiver, SHORT, 3.0)) == set(SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scheme", BACKENDS)
def test_the_whole_table(scheme: str, tmp_path: Path, receiver: Receiver) -> None:
    seconds = _through(scheme, tmp_path, receiver, None, PARTITION)
    servers = {
        name: value for name, value in seconds.items() if name not in OURS
    }  # ours start as fast as the machine can
    assert not {name: value for name, value in servers.items() if value >= RECOVERY}
