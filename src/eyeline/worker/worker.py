"""The worker: receives jobs, keeps a bounded number in hand, holds their leases, drains when it is told to stop or to rest.

    receive → [known?] → fetch → decode (child) → steps (inference service) → record → acknowledge

Everything here is I/O and waiting; computing is done by the decoder children, the inference service and a few threads.
"""

import asyncio
import contextlib
import gc
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from eyeline.core.errors import ConfigError, InferenceUnavailable, QueueError
from eyeline.core.retry import backoff
from eyeline.core.service import WorkState
from eyeline.core.settings import Settings
from eyeline.core.telemetry import DRAINED, LOST_LEASES, logger
from eyeline.core.types import Delivery
from eyeline.inference.base import Predictor
from eyeline.inference.shm import sweep
from eyeline.queues.base import Leaving, Queue
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache.base import Cache
from eyeline.stores.results.base import ResultStore
from eyeline.worker.decoders import DecoderPool
from eyeline.worker.doubts import Doubts
from eyeline.worker.flight import Flights
from eyeline.worker.images import Images, InHand, Limits
from eyeline.worker.memory import Memory
from eyeline.worker.near import NearDuplicates
from eyeline.worker.outages import Outages
from eyeline.worker.plans import Plans
from eyeline.worker.saver import Saver
from eyeline.worker.steps import StepRunner

log = logger("worker")

#: Seconds that one receive may wait; a stop is heard at least that often.
WAIT = 0.5
#: Seconds that results still have to be recorded, and jobs to be handed back, after the drain.
RECORDING = 5.0
#: Seconds between two looks at what the inference service serves.
REFRESH = 1.0
#: Seconds to let messages gather while there is enough to do: each receive costs a transaction.
GATHER = 0.02


class Worker:
    """A Service, and Drainable. What it is given (queue, stores, cache, predictor) stays the caller's to close."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        blobs: BlobStore,
        results: ResultStore,
        cache: Cache,
        predictor: Predictor,
    ) -> None:
        self._settings = settings.worker
        self._lease = settings.queue.lease
        self._queue = queue
        self._predictor = predictor
        self._hand: dict[str, InHand] = {}
        self._wake = asyncio.Event()
        self._drained = False  # is wanted to be
        self._rests = False  # and is
        self._failure: BaseException | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="worker")  # short turns; two would only share one GIL
        self._decoders = DecoderPool(settings.worker.decoders or os.cpu_count() or 1)
        self._plans = Plans(settings.pipelines, predictor, cache)
        self._saver = Saver(results, queue, Doubts(results, settings.review), self._busy_beside)
        self._outages = Outages(self._wake.set)
        self._images = Images(
            queue=queue,
            blobs=blobs,
            store=results,
            predictor=predictor,
            plans=self._plans,
            flights=Flights(cache, answer_ttl=settings.cache.ttl, leader_ttl=2 * self._lease),
            decoders=self._decoders,
            saver=self._saver,
            steps=StepRunner(predictor, self._threads),
            outages=self._outages,
            threads=self._threads,
            near=NearDuplicates(settings.cameras),
            limits=Limits(
                max_attempts=settings.worker.max_attempts,
                max_pixels=settings.gateway.max_pixels,
                max_bytes=settings.gateway.max_bytes,
                fresh=self._lease,  # half of what a leader's key lives
            ),
        )

    @property
    def decoder_pids(self) -> list[int]:
        """The decoder children that live."""
        return self._decoders.pids

    @property
    def in_hand(self) -> int:
        """Jobs that it works on now."""
        return len(self._hand)

    @property
    def state(self) -> WorkState:
        """See `Drainable.state`."""
        if not self._drained:
            return "running"
        return "drained" if self._rests else "draining"

    def drain(self, *, wanted: bool) -> None:
        """See `Drainable.drain`."""
        if wanted != self._drained:
            log.info("to be drained" if wanted else "put back to work", in_hand=self.in_hand)
            self._drained = wanted
            DRAINED.labels("worker").set(wanted)
            self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain. Raises ConfigError where decoder children cannot start."""
        sweep()
        gc.freeze()  # what start-up left lives as long as this process: no collection need look at it again
        background = [
            self._in_background(work, stop)
            for work in (self._hear(stop), self._saver.run(), self._hold_leases(), self._keep_plans())
        ]
        try:
            await self._receive_until(stop)
            await self._drain()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._close()
        if self._failure is not None:
            raise self._failure

    def _in_background(self, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> asyncio.Task[None]:
        """A task whose failure ends the worker: half a worker is worse than one that is started again."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._failure = task.exception()
                stop.set()

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

    async def _hear(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    # ------------------------------------------------------------ receiving
    async def _receive_until(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            if self._drained:
                await self._rest(stop)
            elif not self._may_receive():
                await self._woken()
            elif self._memory_is_old():
                await self._renew_memory()
            elif self._room() > 0:
                await self._let_gather()
                if stop.is_set() or self.state != "running" or not self._may_receive():
                    continue
                try:
                    self._take(await self._queue.receive(max(1, self._room()), WAIT, self._lease))
                    failures = 0
                except QueueError as error:
                    failures += 1
                    log.warning("queue not reachable", error=str(error))
                    await asyncio.sleep(backoff(failures, base=0.2, cap=5.0))
            else:
                await self._woken()

    async def _rest(self, stop: asyncio.Event) -> None:
        """Drained, as at the end; but ready to go on."""
        await self._drain()
        if isinstance(self._queue, Leaving):
            try:
                await self._queue.leave()
            except QueueError as error:
                log.warning("others may have to wait for this worker's part of the queue", error=str(error))
        self._rests = True
        while self._drained and not stop.is_set():
            await self._woken()
        self._rests = False

    async def _let_gather(self) -> None:
        """While there is enough to do, several messages are worth one transaction."""
        if 4 * len(self._hand) >= 3 * self._settings.concurrency:
            await asyncio.sleep(GATHER)

    def _may_receive(self) -> bool:
        return not self._outages.names and self._plans.any_ready

    def _room(self) -> int:
        """How many more to take; 0 until it is worth a transaction of the queue."""
        memory = self._images.memory
        most = self._settings.concurrency - (memory.condemned if memory else 0)
        free = most - len(self._hand)
        return free if free >= max(1, most // 4) else 0

    def _busy_beside(self, ready: int) -> bool:
        """Whether much is in hand, and little of it is ready to be recorded."""
        return 2 * len(self._hand) > self._settings.concurrency and 4 * ready < len(self._hand)

    def _take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            held = InHand(delivery)
            self._hand[delivery.receipt] = held
            held.task = asyncio.create_task(self._images.handle(held))
            held.task.add_done_callback(partial(self._let_go, held))

    def _let_go(self, held: InHand, task: asyncio.Task[None]) -> None:
        self._hand.pop(held.delivery.receipt, None)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a job was not seen through", job=held.delivery.id, exc_info=task.exception())

    async def _woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    # ------------------------------------------------------------ memory
    def _memory_is_old(self) -> bool:
        memory = self._images.memory
        return memory is None or memory.layout is not self._plans.layout or memory.worn

    async def _renew_memory(self) -> None:
        """New memory, new children on it; only while nothing is in hand."""
        if self._hand:
            await self._woken()
            return
        await self._close_memory()
        memory = Memory(self._settings.concurrency, self._plans.layout, self._images.limits.max_bytes)
        try:
            await self._decoders.open(memory)
            segment = memory.offered
            if segment is not None and await self._predictor.register(segment.name, segment.size):
                memory.segment_name = segment.name
        except InferenceUnavailable as error:
            memory.close()
            self._outages.report("inference", error, self._images.inference_is_back)
            return
        except ConfigError:
            memory.close()
            raise
        self._images.memory = memory
        log.info("ready", slots=memory.count, shared=memory.segment_name is not None)

    async def _close_memory(self) -> None:
        memory, self._images.memory = self._images.memory, None
        await self._decoders.close()
        if memory is None:
            return
        if memory.segment_name is not None:
            with contextlib.suppress(InferenceUnavailable):
                await self._predictor.unregister(memory.segment_name)
        memory.close()

    # ------------------------------------------------------------ in the background
    async def _hold_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            if not self._hand:
                continue
            try:
                lost = await self._queue.extend([held.delivery for held in self._hand.values()], self._lease)
            except QueueError as error:
                log.warning("leases not extended", error=str(error))
                continue
            for delivery in lost:
                self._lose(delivery)

    def _lose(self, delivery: Delivery) -> None:
        """Another worker has it: drop the work. What is being recorded goes on: the first result wins, and a message that
        was acknowledged meanwhile looks like a lost one.
        """
        held = self._hand.get(delivery.receipt)
        if held is None or held.lost or held.closing:
            return
        LOST_LEASES.inc()
        log.warning("lease lost", job=delivery.id)
        held.lost = True
        if held.task is not None:
            held.task.cancel()

    async def _keep_plans(self) -> None:
        while True:
            await self._plans.refresh()
            if not (self._drained or self._memory_is_old()):  # nobody is told of a plan that it does not carry out
                await self._plans.publish()
            self._wake.set()
            await asyncio.sleep(REFRESH)

    # ------------------------------------------------------------ the end
    async def _drain(self) -> None:
        """Finish what is in hand in time; hand the rest back at once."""
        tasks = {held.task for held in self._hand.values() if held.task is not None}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
        for held in list(self._hand.values()):
            if held.task in late and not held.closing:
                held.task.cancel()
        if late:
            _, stuck = await asyncio.wait(late, timeout=RECORDING)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        log.info("drained", late=len(late))

    async def _close(self) -> None:
        await self._outages.close()
        await self._close_memory()
        self._threads.shutdown(wait=False, cancel_futures=True)
