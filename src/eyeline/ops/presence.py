"""A role says to the result store every few seconds who it is, so that the page of operations can list what runs where."""

import asyncio
import contextlib
import os
import socket
import time

import psutil

from eyeline import __version__
from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import ReplicaRow, ResultStore

log = logger("ops")
PAUSE = 15.0


class Presence:
    """A service beside a role, over the role's own store."""

    def __init__(self, results: ResultStore, role: str) -> None:
        self._results = results
        self._role = os.environ.get("EYELINE_ROLE", role)
        self._host = socket.gethostname()
        self._process = psutil.Process()
        self._since = utcnow()
        self._used = (time.monotonic(), self._seconds())

    async def run(self, stop: asyncio.Event) -> None:
        """Report until stopped."""
        while not stop.is_set():
            try:
                await self._results.report_replica(self.row())
            except BackendError as error:
                log.warning("this process could not report itself", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE)

    def row(self) -> ReplicaRow:
        """Who this is now, and how busy since the last time."""
        now, used = time.monotonic(), self._seconds()
        then, before = self._used
        self._used = (now, used)
        pid = os.getpid()
        share = (
            max(0.0, used - before) / (now - then) if now > then else 0.0
        )  # a child that ended takes its seconds along
        return ReplicaRow(
            id=f"{self._role}@{self._host}:{pid}",
            role=self._role,
            host=self._host,
            pid=pid,
            version=__version__,
            started_at=self._since,
            seen_at=utcnow(),
            body={"cores": round(share, 3), "bytes": self._process.memory_info().rss},
        )

    def _seconds(self) -> float:
        """CPU seconds of the process and of children that it still has (decoders)."""
        total = sum(os.times()[:2])
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += sum(child.cpu_times()[:2])
        return total
