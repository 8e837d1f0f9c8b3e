"""One at work, the others standing by: for a service of which two at once would only do the same twice.

All of them may be started, on as many machines as there are. One holds the service's name in the results database and works;
the others watch it, and one goes on in its place some seconds after it died. A holder that was only away (frozen, cut off)
commits nothing more once it was replaced: see `ResultStore.hold`.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from eyeline.core.errors import BackendError, Superseded
from eyeline.core.ids import uuid7
from eyeline.core.retry import backoff
from eyeline.core.service import Service
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import Holding, ResultStore

log = logger("standby")

#: Seconds between two signs of life, and without one until who stands by takes over.
BEAT, PATIENCE = 2.0, 6.0


class OneActive:
    """A service that works in one process at a time. `make` builds it on a result store from `open_`, which it closes at its
    end: what it writes there is refused once another process has taken over.
    """

    def __init__(
        self,
        name: str,
        open_: Callable[[], ResultStore],
        make: Callable[[ResultStore], Service],
        *,
        beat: float = BEAT,
        patience: float = PATIENCE,
    ) -> None:
        self._name = name
        self._open = open_
        self._make = make
        self._beat = beat
        self._patience = patience

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        while not stop.is_set():
            results = self._open()
            try:
                service = self._make(results)  # before the wait: settings that cannot work are told at the start
                await results.upgrade()
                turn = _Turn(results, self._name, self._beat, self._patience)
                if await turn.comes(stop):
                    log.info("active", service=self._name, holder=turn.holder)
                    await turn.serve(service, stop)
            except Superseded as error:
                log.warning("stands by again", service=self._name, why=str(error))
            finally:
                await results.close()


class _Turn:
    """One wait for the name, and the work while it is held."""

    def __init__(self, results: ResultStore, name: str, beat: float, patience: float) -> None:
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid7()}"
        self._results = results
        self._name = name
        self._beat = beat
        self._patience = patience

    async def comes(self, stop: asyncio.Event) -> bool:
        """Stand by until the name is ours; False where the stop came first."""
        clock = asyncio.get_running_loop().time
        seen, since, failures = None, clock(), 0
        while not stop.is_set():
            silent = clock() - since >= self._patience
            pause = self._beat
            try:
                found: Holding | None = await self._results.hold(self._name, self.holder, seen if silent else None)
                failures = 0
            except BackendError as error:  # nobody could give a sign: the watch begins anew afterwards
                failures += 1
                found, pause = None, max(self._beat, backoff(failures, cap=10.0))
                log.warning("stands by: the result store does not answer", service=self._name, error=str(error))
            if found is not None and found.holder == self.holder:
                return True
            if found != seen:
                seen, since = found, clock()
            await _sleep(stop, pause)
        return False

    async def serve(self, service: Service, stop: asyncio.Event) -> None:
        """Run the service until the stop, or until another holds the name. Raises what the service raises."""
        ended = asyncio.Event()
        working = asyncio.create_task(service.run(ended))
        others = [asyncio.create_task(self._keep()), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait([working, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.set()
            try:
                await working
            finally:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)

    async def _keep(self) -> None:
        """Give signs of life; ends when another one has taken over."""
        while True:
            await asyncio.sleep(self._beat)
            try:
                await self._results.hold(self._name, self.holder)
            except Superseded:
                return
            except BackendError as error:
                log.warning("no sign of life: the result store does not answer", service=self._name, error=str(error))


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond the stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
