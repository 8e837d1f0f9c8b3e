"""One reader of the event log for a whole process: it wakes those who wait for a job and feeds the live streams."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from eyeline.core.errors import BackendError
from eyeline.core.telemetry import logger
from eyeline.core.types import ASIDE, Event
from eyeline.gateway.answers import ANSWERED
from eyeline.stores.results.base import ResultStore

log = logger("gateway")

PAGE = 500
PATIENCE = 0.25  # seconds for which the store waits for events while somebody waits for them here
STEADY = 0.05  # seconds between looks while there is a line
IDLE = 0.25
BUFFER = 500  # events a slow reader of a live stream may be behind
FURTHEST = 10_000  # events a returning reader may have missed and still be given one by one


class Subscriber:
    """A reader's place in the live stream. Falling behind by more than the buffer loses events and says so once.

    An `idle` one does not make the store look more often: it hears of things when others wait, or within IDLE seconds.
    """

    def __init__(self, wanted: Callable[[Event], bool], *, idle: bool = False) -> None:
        self._wanted = wanted
        self.idle = idle
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._taken = 0.0
        self._lost = False

    def feed(self, events: Sequence[Event]) -> None:
        """Take what came; never blocks."""
        self._events.extend(event for event in events if self._wanted(event))
        if len(self._events) > BUFFER:
            self._events.clear()
            self._lost = True
        if self._events or self._lost:
            self._wake.set()
        if any(event.kind == "alert" for event in events):
            self._urgent.set()

    async def take(self, seconds: float, *, after: float = 0.0) -> tuple[list[Event], bool]:
        """What has come since, waiting up to `seconds` for something; and whether events were lost before it.

        Not sooner than `after` seconds since the last time, for one who takes what came meanwhile together; but alerts
        do not wait.
        """
        await _until(self._wake, seconds)
        if self._wake.is_set():
            await _until(self._urgent, self._taken + after - time.monotonic())
            self._taken = time.monotonic()
        self._wake.clear()
        self._urgent.clear()
        events, lost = list(self._events), self._lost
        self._events.clear()
        self._lost = False
        return events, lost


async def _until(happened: asyncio.Event, seconds: float) -> None:
    """Wait for it, but not longer."""
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await happened.wait()


class Follower:
    """Reads the event log by cursor and tells everyone in this process who waits for something in it."""

    def __init__(self, results: ResultStore, completed: Callable[[str], None], busy: Callable[[], bool]) -> None:
        self._results = results
        self._completed = completed
        self._busy = busy
        self._waiters: dict[str, set[asyncio.Future[dict[str, Any]]]] = {}
        self._subscribers: set[Subscriber] = set()
        self._wake = asyncio.Event()
        self._cursor = 0
        self.stopping = asyncio.Event()

    # ---- those who wait for one job
    def expect(self, id: str) -> asyncio.Future[dict[str, Any]]:  # noqa: A002
        """A future of the job's result as plain data. Register first, look whether it is there already second."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(id, set()).add(future)
        self._wake.set()
        return future

    def forget(self, id: str, future: asyncio.Future[dict[str, Any]]) -> None:  # noqa: A002
        """Nobody waits on this future any more."""
        waiting = self._waiters.get(id)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiters[id]
        future.cancel()

    async def wait(self, id: str, future: asyncio.Future[dict[str, Any]], seconds: float) -> dict[str, Any] | None:  # noqa: A002
        """The result, or None after `seconds` or when the process stops. Forgets the future."""
        try:
            await asyncio.wait({future}, timeout=seconds)
            return future.result() if future.done() and not future.cancelled() else None
        finally:
            self.forget(id, future)

    def stop(self) -> None:
        """Let everyone go who waits; live streams end."""
        self.stopping.set()
        for future in [future for waiting in self._waiters.values() for future in waiting]:
            future.cancel()

    # ---- those who follow everything
    def subscribe(self, wanted: Callable[[Event], bool], *, idle: bool = False) -> Subscriber:
        """A place in the live stream from now on."""
        subscriber = Subscriber(wanted, idle=idle)
        self._subscribers.add(subscriber)
        if not idle:
            self._wake.set()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Leave the live stream."""
        self._subscribers.discard(subscriber)

    @property
    def cursor(self) -> int:
        """The number of the last event that was told."""
        return self._cursor

    async def missed(self, after: int, until: int) -> AsyncIterator[Event]:
        """The events after `after`, up to `until`, from the store."""
        while after < until:
            page = await self._results.tail(after, PAGE)
            for event in page:
                if event.seq <= until:
                    yield event
            if not page:
                return
            after = page[-1].seq

    # ---- the reader
    async def begin(self) -> None:
        """Take the newest event as the start: what came before was never waited for here. Raises StoreError."""
        self._cursor = await self._results.last_seq()

    async def run(self) -> None:
        """Read for ever."""
        full = True
        while True:
            try:
                full = await self._look(0.0 if full or not self._watched else PATIENCE)
            except BackendError as error:
                log.warning("event log not readable", error=str(error))
                await asyncio.sleep(1.0)
                continue
            if not full:
                await self._rest()

    @property
    def _watched(self) -> bool:
        return bool(self._waiters) or any(not subscriber.idle for subscriber in self._subscribers)

    async def _look(self, wait: float) -> bool:
        """One page, at once or after up to `wait` seconds. Whether there may be more."""
        events = await self._results.tail(self._cursor, PAGE, wait=wait)
        if events:
            self._cursor = events[-1].seq
            self._tell(events)
        return len(events) == PAGE

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            id = str(event.body.get("id", ""))  # noqa: A001
            if event.kind == "result":
                if ANSWERED not in event.body.get("timings", ()):
                    self._completed(id)
                for future in self._waiters.get(id, ()):
                    if not future.done():
                        future.set_result(event.body)
            elif event.body.get("type") == ASIDE:
                self._completed(id)
                for future in self._waiters.get(id, ()):
                    future.cancel()  # the event does not hold it: whoever waits looks it up
        for subscriber in self._subscribers:
            subscriber.feed(events)

    async def _rest(self) -> None:
        """Sleep where nobody waits, for then the store does not wait either; a new waiter ends an idle sleep."""
        if self._watched:
            return
        if self._busy():
            await asyncio.sleep(STEADY)
        else:
            self._wake.clear()
            try:
                async with asyncio.timeout(IDLE):
                    await self._wake.wait()
            except TimeoutError:
                pass
