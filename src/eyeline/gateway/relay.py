"""From the jobs table to the queue: at once for what this process kept, and by a sweep for what a crash left behind."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from eyeline.core.errors import BackendError, QueueError
from eyeline.core.retry import backoff
from eyeline.core.telemetry import logger
from eyeline.core.types import Job, Message, topic_of
from eyeline.queues.base import Queue
from eyeline.stores.results.base import ResultStore

log = logger("gateway")

BATCH = 500
SWEEP = 1.0
GATHER = 0.01  # seconds for which jobs are gathered while there is a line anyway
LEFT_BEHIND = 5.0  # seconds after which a kept job that nobody marked is taken to be left behind
LOST = 60.0  # seconds after which a job that was enqueued and has no result may have been lost by the queue
LOOK = 30.0  # seconds between two looks for those
MOST_WAITING = 10_000  # jobs held in memory while the queue is away; the sweep finds the others


class Relay:
    """Puts kept jobs on the queue and marks them. A job put twice is harmless: queues deliver at least once anyway.

    Each transaction costs as much as many jobs in it: so jobs join one while the line is `busy`, and marks gather for a
    second, which is well before a sweep takes their jobs to be left behind.
    """

    def __init__(self, queue: Queue, results: ResultStore, busy: Callable[[], bool]) -> None:
        self._queue = queue
        self._results = results
        self._busy = busy
        self._waiting: list[Job] = []
        self._in_hand: list[Job] = []
        self._unmarked: list[str] = []
        self._wake = asyncio.Event()
        self._looked_at = -LOOK
        self._looked_to = ""
        self._was_empty = self._may_be_lost = False
        self.error: str | None = None

    def offer(self, jobs: Sequence[Job]) -> None:
        """Have these jobs enqueued soon. Never blocks; what does not fit is found by the sweep."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.extend(jobs)
        self._wake.set()

    async def forward(self) -> None:
        """Enqueue what is offered, for ever, in batches of what has gathered meanwhile."""
        failures = 0
        while True:
            await self._wake.wait()
            if self._busy():
                await asyncio.sleep(GATHER)
            self._in_hand, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._wake.clear()
            failures = 0 if not self._in_hand or await self._pass_on(self._in_hand) else failures + 1
            if failures:
                self.offer(self._in_hand)
                await asyncio.sleep(backoff(failures, cap=2.0))
            self._in_hand = []

    async def sweep(self) -> None:
        """Mark what was enqueued, and look for what was kept and never was, by this process or one that died; each second.

        What is there at the start was left by a process that died a moment ago: it waits no longer.
        """
        age = 0.0
        while True:
            await self._mark()
            try:
                left = await self._results.unqueued(age, BATCH)
            except BackendError as error:
                log.warning("sweep failed", error=str(error))
                left = []
            passed_on = bool(left) and await self._pass_on(left)
            if passed_on:
                log.info("enqueued what was left behind", jobs=len(left))
            await self._look_for_lost()
            more = passed_on and len(left) == BATCH and await self._mark()
            if not more:
                age = LEFT_BEHIND
                await asyncio.sleep(SWEEP)

    async def _look_for_lost(self) -> None:
        """Put on the queue again what has waited long for a result: a broker that dies may lose what it was given. Page by page
        over all of them, then anew after a while.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < LOOK and not self._looked_to:
            return
        self._looked_at = now
        try:
            old = await self._results.long_queued(LOST, self._looked_to, BATCH)
            if not self._looked_to:
                self._may_be_lost = bool(old) and await self._is_suspect()
            if old and self._may_be_lost:
                await self._queue.put_many([message_of(job) for job in old])
                log.info("put on the queue once more, for they waited long", jobs=len(old))
            self._looked_to = old[-1].id if len(old) == BATCH else ""
        except BackendError as error:
            log.warning("not looked for what the queue lost", error=str(error))

    async def _is_suspect(self) -> bool:
        """A queue that keeps an id once takes what it has as a no-op. Any other is asked first: it lost what waits for a result
        if it is empty, at this look and at the one before.
        """
        if "ids" not in self._queue.abilities.cannot:
            return True
        stats = await self._queue.stats()
        empty, self._was_empty = self._was_empty, stats.depth + stats.in_flight == 0
        return empty and self._was_empty

    async def drain(self) -> None:
        """Pass on what is still in memory, what was cut off among it; what fails stays for the next process's sweep."""
        self._waiting = self._in_hand + self._waiting
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not await self._pass_on(batch):
                break
        await self._mark()

    async def _pass_on(self, jobs: Sequence[Job]) -> bool:
        try:
            await self._queue.put_many([message_of(job) for job in jobs])
        except QueueError as error:
            self.error = str(error)
            log.warning("jobs not enqueued yet", jobs=len(jobs), error=self.error)
            return False
        self.error = None
        if len(self._unmarked) < MOST_WAITING:
            self._unmarked.extend(job.id for job in jobs)
        return True

    async def _mark(self) -> bool:
        """Whether all is marked. What stays unmarked is only put on the queue once more, by a sweep."""
        marks = list(self._unmarked)
        try:
            if marks:
                await self._results.mark_enqueued(marks)
            del self._unmarked[: len(marks)]
        except BackendError as error:
            log.warning("jobs not marked as enqueued", jobs=len(marks), error=str(error))
            return False
        return True


def message_of(job: Job) -> Message:
    """The job as it rides the queue."""
    return Message(id=job.id, topic=topic_of(job.pipeline, job.lane), group=job.site, body=msgspec.json.encode(job))
