"""A role says to the result store every few seconds who it is, so that the page of operations can list what runs where; and
hears there whether it is to take no new work.
"""

import asyncio
import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import psutil

from eyeline import __version__
from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError
from eyeline.core.service import Drainable, sleep
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import ReplicaRow, ResultStore

log = logger("ops")
PAUSE = 15.0
#: Seconds between two looks at whether it is to take no new work.
LOOK = 2.0


class Presence:
    """A service beside a role, over the role's own store. `work`: what of it can be drained; `more`: what else it says of itself,
    the same every time.
    """

    def __init__(
        self, results: ResultStore, role: str, work: Drainable | None = None, *, more: Mapping[str, Any] | None = None
    ) -> None:
        self._results = results
        self._work = work
        self._more = dict(more or {})
        self._role = os.environ.get("EYELINE_ROLE", role)
        self._host = socket.gethostname()
        self._process = psutil.Process()
        self._since = utcnow()
        self._used = (time.monotonic(), self._seconds())
        self._id = f"{self._role}@{self._host}:{os.getpid()}"
        self._reported = -math.inf
        self._said = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Report until stopped."""
        while not stop.is_set():
            try:
                await self._hear()
                await self._tell()
            except BackendError as error:
                log.warning("this process could not report itself", error=str(error))
                await sleep(stop, PAUSE)
            await sleep(stop, PAUSE if self._work is None else LOOK)

    async def _hear(self) -> None:
        """Not before the first report: until then the word may be for one of the same id that ended."""
        if self._work is not None and self._said:
            self._work.drain(wanted=await self._results.is_drained(self._id))

    async def _tell(self) -> None:
        """Every now and then; more often where somebody waits for it to be drained."""
        state = "running" if self._work is None else self._work.state
        if state == self._said != "draining" and time.monotonic() - self._reported < PAUSE:
            return
        await self._results.report_replica(self.row())
        self._reported, self._said = time.monotonic(), state

    def row(self) -> ReplicaRow:
        """Who this is now, and how busy since the last time."""
        now, used = time.monotonic(), self._seconds()
        then, before = self._used
        self._used = (now, used)
        share = (
            max(0.0, used - before) / (now - then) if now > then else 0.0
        )  # a child that ended takes its seconds along
        work = {} if self._work is None else {"doing": self._work.state, "in_hand": self._work.in_hand}
        return ReplicaRow(
            id=self._id,
            role=self._role,
            host=self._host,
            pid=self._process.pid,
            version=__version__,
            started_at=self._since,
            seen_at=utcnow(),
            body=self._more | {"cores": round(share, 3), "bytes": self._process.memory_info().rss} | work,
        )

    def _seconds(self) -> float:
        """CPU seconds of the process and of children that it still has (decoders)."""
        total = sum(os.times()[:2])
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += sum(child.cpu_times()[:2])
        return total
