"""Retention as a service: when it may work, how fast, and that it is one at a time."""

import asyncio
import contextlib
import os
import socket
import time

from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError
from eyeline.core.ids import uuid7
from eyeline.core.retry import backoff
from eyeline.core.telemetry import logger
from eyeline.ops.storage.keeper import WHO, Keeper
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache.base import Cache
from eyeline.stores.results.base import ResultStore

log = logger("retention")

#: Seconds between two looks where there is nothing to do, rests after each batch as a multiple of its time, and for how long a
#: keeper that says nothing keeps its turn.
IDLE, REST, LEASE = 5.0, 2.0, 300.0
#: Seconds that a job may wait before retention gives way to it, and for how long it does.
WAITING, PATIENCE = 2.0, 600.0


class KeeperService:
    """Retention as a service, one at a time over all machines. It owns what it is given and closes it."""

    def __init__(self, keeper: Keeper, blobs: BlobStore, results: ResultStore, cache: Cache) -> None:
        self._keeper = keeper
        self._results = results
        self._owned = (blobs, results, cache)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid7()}"

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        try:
            await self._results.upgrade()
            await self._work_on(stop)
        finally:
            for each in self._owned:
                await each.close()

    async def _work_on(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            pause = IDLE
            try:
                if await self._results.take_turn(WHO, self._holder, LEASE) and await self._step(stop):
                    pause = 0.0
                failures = 0
            except BackendError as error:
                failures += 1
                pause = max(IDLE, backoff(failures, cap=60.0))
                log.warning("retention waits", error=str(error))
            await _sleep(stop, pause)

    async def _step(self, stop: asyncio.Event) -> bool:
        """A batch of each work, with a rest after each that leaves most of the time to others."""
        more = False
        for work in self._keeper.works():
            await self._wait_for_quiet(stop)
            if stop.is_set():
                return False
            began = time.monotonic()
            more |= await work()
            await _sleep(stop, min(IDLE, REST * (time.monotonic() - began)))
        return more

    async def _wait_for_quiet(self, stop: asyncio.Event) -> None:
        """While jobs wait, the database is theirs; but not for ever, or a system that is always full never lets anything go."""
        until = time.monotonic() + PATIENCE
        while not stop.is_set() and time.monotonic() < until:
            oldest = (await self._results.unfinished()).oldest
            if oldest is None or (utcnow() - oldest).total_seconds() < WAITING:
                return
            await _sleep(stop, 1.0)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond the stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
