"""Each backend of each room, as fast as one process uses it: `python -m tests.benchmark.backends`.

In batches as the product makes them, and with what the product promises: Valkey and PostgreSQL sync to the disk before they
answer, which the contract suite's do not. ministack and tansu keep everything in memory, whatever they are asked for.
Everything shares this machine, the servers included: the figures compare backends, and promise nothing of another machine.
"""

import argparse
import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol, Self, TypeVar
from uuid import uuid4

from eyeline.core.types import BlobRef, Message
from eyeline.gateway.relay import message_of
from eyeline.queues import open_queue
from eyeline.queues.base import Queue
from eyeline.stores.blobs import open_blobs
from eyeline.stores.cache import open_cache
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob
from tests.contract.servers import BLOB_SERVERS, CACHE_SERVERS, QUEUE_SERVERS, RESULT_SERVERS, Postgres, Valkey
from tests.contract.test_results import make_job
from tests.gateways import result_of

#: Messages and rows of one call, and pictures and entries at once: what a worker has in hand.
BATCH = 16
#: Bytes of a picture, and of an answer in the cache.
PICTURE, ANSWER = 50_000, 1_000

T = TypeVar("T")
S = TypeVar("S", bound="Closing")

#: What this process spent on one that went through all of it.
CPU = "ms of CPU"
#: What was measured: a second, by what was done; and ms of this process's CPU for one that went through all of it.
Figures = dict[str, float]
Measure = Callable[[str, int], Awaitable[Figures]]

ROOMS: Mapping[str, Sequence[str]] = {
    "queue": ("sqlite", "redis", "postgresql", "sqs", "kafka"),
    "results": ("sqlite", "postgresql"),
    "blobs": ("file", "s3"),
    "cache": ("sqlite", "redis"),
}


async def measure_queue(url: str, count: int) -> Figures:
    """Put, received, acknowledged: each a batch at a time."""
    async with _open(open_queue(url)) as queue:
        await _warm(queue)
        jobs = [make_job(number) for number in range(count)]
        clock = Clock()
        for batch in _batches([message_of(job) for job in jobs]):
            await clock.count("put", len(batch), queue.put_many(batch))
        left = {job.id for job in jobs}
        while left:
            got = await clock.count("received", 0, queue.receive(BATCH, 10.0, 60.0))
            assert got, f"{len(left)} of {count} messages did not come back"
            await clock.count("acknowledged", len(got), queue.ack_many(got))
            clock.add("received", len(got))
            left -= {delivery.id for delivery in got}
    return clock.figures(count)


async def _warm(queue: Queue) -> None:
    """Topics, tables and a consumer group are made by the first message."""
    await queue.put_many([Message(id="first", topic="parcels.live", group="north", body=b"")])
    got = await queue.receive(1, 30.0, 60.0)
    assert got, "the first message did not come back"
    await queue.ack_many(got)


async def measure_results(url: str, count: int) -> Figures:
    """Jobs kept, as before a 202, and their results saved, with their events."""
    async with _open(open_results(url)) as store:
        await store.upgrade()
        jobs = [make_job(number) for number in range(count)]
        clock = Clock()
        for batch in _batches(jobs):
            await clock.count("jobs kept", len(batch), store.keep_jobs([NewJob(job=job) for job in batch]))
        for batch in _batches(jobs):
            new = await clock.count("results saved", len(batch), store.save_many([result_of(job) for job in batch]))
            assert len(new) == len(batch)
    return clock.figures(count)


async def measure_blobs(url: str, count: int) -> Figures:
    """Pictures put and got, several at once."""
    pictures = [os.urandom(PICTURE) for _ in range(count)]
    names = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    async with _open(open_blobs(url)) as store:
        clock = Clock()
        refs: list[BlobRef] = []
        for batch in _batches(list(zip(pictures, names, strict=True))):
            puts = asyncio.gather(*(store.put("north", picture, name) for picture, name in batch))
            refs += await clock.count("put", len(batch), puts)
        for some in _batches(refs):
            got = await clock.count("got", len(some), asyncio.gather(*(store.get(ref) for ref in some)))
            assert [hashlib.sha256(data).hexdigest() for data in got] == [ref.sha256 for ref in some]
    return clock.figures(count)


async def measure_cache(url: str, count: int) -> Figures:
    """Answers set and got, several at once."""
    async with _open(open_cache(url)) as cache:
        clock = Clock()
        answers = {f"answer {number}": os.urandom(ANSWER) for number in range(count)}
        for batch in _batches(list(answers.items())):
            sets = asyncio.gather(*(cache.set(key, value, ttl=600.0) for key, value in batch))
            await clock.count("set", len(batch), sets)
        for keys in _batches(list(answers)):
            got = await clock.count("got", len(keys), asyncio.gather(*(cache.get(key) for key in keys)))
            assert got == [answers[key] for key in keys]
    return clock.figures(count)


MEASURES: Mapping[str, Measure] = {
    "queue": measure_queue,
    "results": measure_results,
    "blobs": measure_blobs,
    "cache": measure_cache,
}


class Closing(Protocol):
    """What every backend has."""

    async def close(self) -> None:
        """Give all back."""


class Clock:
    """How long each kind of call took, together."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._seconds: dict[str, float] = {}
        self._done: dict[str, int] = {}

    async def count(self, what: str, many: int, call: Awaitable[T]) -> T:
        """What the call returns; it did so many."""
        begun = time.perf_counter()
        answer = await call
        self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - begun
        self.add(what, many)
        return answer

    def add(self, what: str, many: int) -> None:
        """So many more were done, in the time that is counted already."""
        self._done[what] = self._done.get(what, 0) + many

    def figures(self, count: int) -> Figures:
        """A second, and ms of CPU for each of `count`."""
        rates = {what: self._done[what] / seconds for what, seconds in self._seconds.items()}
        return rates | {CPU: 1e3 * (time.process_time() - self._cpu) / count}


def _batches(all_of_them: Sequence[T]) -> list[Sequence[T]]:
    return [all_of_them[at : at + BATCH] for at in range(0, len(all_of_them), BATCH)]


@asynccontextmanager
async def _open(store: S) -> AsyncIterator[S]:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        yield store


class Servers:
    """URLs of backends. Servers that sync before they answer are started when they are asked for, and end with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, room: str, scheme: str) -> str:
        """A place of its own, but in the results, where rounds add up."""
        if scheme == "redis":
            return f"{self._server(scheme)}?prefix={uuid4().hex}:"
        if scheme == "postgresql":
            return f"{self._server(scheme)}/postgres" + (f"?schema=q{uuid4().hex}" if room == "queue" else "")
        tables: Mapping[str, Mapping[str, Callable[[Path], str]]] = {
            "queue": QUEUE_SERVERS,
            "results": RESULT_SERVERS,
            "blobs": BLOB_SERVERS,
            "cache": CACHE_SERVERS,
        }
        folder = self._folder / uuid4().hex
        folder.mkdir()
        return tables[room][scheme](folder)

    def _server(self, scheme: str) -> str:
        if scheme not in self._urls:
            server = Valkey(self._folder / "valkey") if scheme == "redis" else Postgres()
            words = ("--appendfsync", "always") if scheme == "redis" else ("-c", "fsync=on")
            self._stack.callback(server.stop)
            server.start(*words)
            self._urls[scheme] = server.url
        return self._urls[scheme]


async def run(
    rooms: Mapping[str, Sequence[str]], count: int, rounds: int, folder: Path
) -> dict[str, dict[str, Figures]]:
    """The best of so many rounds by room and scheme, for whatever else the machine did only made it slower; told as it comes."""
    found: dict[str, dict[str, Figures]] = {}
    with Servers(folder) as servers:
        for room, schemes in rooms.items():
            found[room] = {}
            for scheme in schemes:
                seen = [await MEASURES[room](servers.url(room, scheme), count) for _ in range(rounds)]
                found[room][scheme] = {what: _best(what, [one[what] for one in seen]) for what in seen[0]}
            _tell(room, found[room])
    return found


def _best(what: str, values: Sequence[float]) -> float:
    return min(values) if what == CPU else max(values)


def _tell(room: str, found: Mapping[str, Figures]) -> None:
    """As a table for the documentation."""
    whats = list(next(iter(found.values())))
    print(f"| {room} | " + " | ".join(whats) + " |\n|---|" + "--:|" * len(whats))
    for scheme, figures in found.items():
        rates = [f"{figures[what]:.0f}" if what != CPU else f"{figures[what]:.2f}" for what in whats]
        print(f"| {scheme} | " + " | ".join(rates) + " |")
    print(f"load {os.getloadavg()[0]:.1f}\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="messages, rows, pictures, entries of one round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as there:
        asyncio.run(run(ROOMS, given.count, given.rounds, Path(there)))
