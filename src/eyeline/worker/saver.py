"""Records results and then acknowledges their messages, as many together as are ready while the last ones are written."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eyeline.core.clock import utcnow
from eyeline.core.errors import QueueError, StoreError
from eyeline.core.retry import backoff
from eyeline.core.telemetry import (
    CACHE_HITS,
    END_TO_END,
    IMAGES,
    LATE_RESULTS,
    LOST_LEASES,
    SAVER_FAULTS,
    STAGE,
    logger,
)
from eyeline.core.types import Delivery, Result
from eyeline.queues.base import Queue
from eyeline.stores.results.base import ResultStore
from eyeline.worker.doubts import Doubts
from eyeline.worker.outcome import LeaseLost

log = logger("worker")

#: Results written in one transaction.
BATCH = 64
#: Seconds between looks at a batch that gathers while the worker is busy, and looks at most: each batch costs two
#: transactions, one of them synced.
LOOK, LOOKS = 0.01, 5
#: Tries before a batch is handed back; the store has then been away for some seconds.
TRIES = 4

_STORE = STAGE.labels(stage="store")
_IMAGES = {status: IMAGES.labels(status=status) for status in ("completed", "failed")}


@dataclass(frozen=True)
class Finished:
    """A result to record, the message to acknowledge after it, and who waits for that."""

    result: Result | None  # None: recorded already, only to be acknowledged
    delivery: Delivery
    wanted: Callable[[], bool]  # False once the lease is lost: another worker has the job
    done: "asyncio.Future[None]"


class Saver:
    """Exactly one result a job: the store keeps the first, and only then is the message forgotten."""

    def __init__(self, results: ResultStore, queue: Queue, doubts: Doubts, busy: Callable[[int], bool]) -> None:
        self._results = results
        self._doubts = doubts
        self._queue = queue
        self._busy = busy  # given how many results are ready: whether waiting for more costs nobody anything
        self._line: asyncio.Queue[Finished] = asyncio.Queue()

    async def save(self, result: Result | None, delivery: Delivery, wanted: Callable[[], bool]) -> None:
        """Returns once the result is recorded and its message acknowledged. Raises StoreError, LeaseLost, and any error that
        nobody foresaw: it is this job's own then, or of all that were to be recorded with it.
        """
        item = Finished(result, delivery, wanted, asyncio.get_running_loop().create_future())
        self._line.put_nowait(item)
        await item.done

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            batch = [await self._line.get()]
            try:
                await self._gather()
                while len(batch) < BATCH and not self._line.empty():
                    batch.append(self._line.get_nowait())
                await self._record([item for item in batch if _still_wanted(item)])
            except Exception as error:  # noqa: BLE001 - who waits here would wait for ever, and all who come after
                _noted(error, len(batch))
                for item in batch:
                    _settle(item, error)

    async def _gather(self) -> None:
        for _ in range(LOOKS):
            if not self._busy(1 + self._line.qsize()):
                return
            await asyncio.sleep(LOOK)

    async def _record(self, batch: Sequence[Finished]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            new = await self._save([item.result for item in batch if item.result is not None])
        except Exception as error:  # noqa: BLE001 - one of them may be at fault, whatever the error is
            await self._apart(batch, error)
            return
        _count(batch, new, loop.time() - start)
        await self._acknowledge([item.delivery for item in batch])
        for item in batch:
            _settle(item, None)

    async def _apart(self, batch: Sequence[Finished], error: Exception) -> None:
        """A store that refuses a batch for good may refuse only one of it; so may a fault that nobody foresaw lie in one."""
        if not isinstance(error, StoreError):
            _noted(error, len(batch))
        if len(batch) == 1 or (isinstance(error, StoreError) and error.transient):
            for item in batch:
                _settle(item, error)
            return
        for item in batch:
            await self._record([item])

    async def _save(self, results: Sequence[Result]) -> set[str]:
        for attempt in range(1, TRIES):
            try:
                return await self._keep(results) if results else set()
            except StoreError as error:
                if not error.transient:
                    raise
                log.warning("results are not recorded yet", error=str(error), count=len(results))
                await asyncio.sleep(backoff(attempt, base=0.2))
        return await self._keep(results)

    async def _keep(self, results: Sequence[Result]) -> set[str]:
        return await self._results.save_many(results, await self._doubts.of(results))

    async def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """A message that cannot be acknowledged now comes again, finds its result, and is acknowledged then."""
        try:
            lost = await self._queue.ack_many(deliveries)
        except QueueError as error:
            log.warning("recorded, not acknowledged", error=str(error), count=len(deliveries))
            return
        LOST_LEASES.inc(len(lost))


def _still_wanted(item: Finished) -> bool:
    if item.done.done():
        return False
    if not item.wanted():
        item.done.set_exception(LeaseLost(f"the lease of job {item.delivery.id} was lost"))
        return False
    return True


def _noted(error: Exception, count: int) -> None:
    SAVER_FAULTS.inc()
    log.error("results are not recorded, by a fault of ours", count=count, exc_info=error)


def _settle(item: Finished, error: Exception | None) -> None:
    if item.done.done():
        return
    if error is None:
        item.done.set_result(None)
    else:
        item.done.set_exception(error)


def _count(batch: Sequence[Finished], new: set[str], seconds: float) -> None:
    now = utcnow()
    for item in batch:
        result = item.result
        if result is None:
            continue
        if result.id not in new:
            LATE_RESULTS.inc()
            continue
        _STORE.observe(seconds)
        END_TO_END.observe((now - result.received_at).total_seconds())
        _IMAGES[result.status].inc()
        if result.duplicate_of is not None:
            CACHE_HITS.inc()
