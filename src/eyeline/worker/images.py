"""One image's way through the worker: known already? → fetch → decode → steps → record. Says what became of each job."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from eyeline.core.clock import utcnow
from eyeline.core.dedupe import duplicate
from eyeline.core.errors import BlobError, InferenceUnavailable, QueueError, StoreError, TooLarge
from eyeline.core.retry import backoff
from eyeline.core.telemetry import QUEUE_WAIT, STAGE, logger
from eyeline.core.types import LANES, BlobRef, Delivery, Job, Result
from eyeline.inference.base import ModelChanged, Predictor
from eyeline.queues.base import Queue
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.results.base import ResultStore
from eyeline.worker import results
from eyeline.worker.decoders import DecoderPool
from eyeline.worker.flight import Flights
from eyeline.worker.memory import Memory, Slot
from eyeline.worker.near import NearDuplicates
from eyeline.worker.orders import Order
from eyeline.worker.outages import Outages
from eyeline.worker.outcome import Charge, Drop, Expired, Fail, HandBack, NotServed, Undeliverable, outcome
from eyeline.worker.plans import Plans, ReadyPlan
from eyeline.worker.saver import Saver
from eyeline.worker.steps import StepRunner

log = logger("worker")

T = TypeVar("T")

#: Jobs are written for readers of at least this version.
READER = 2
#: Deliveries of one message after which it is failed although nothing was charged.
SAFETY_NET = 100
#: Seconds after which an image that cannot be read may be the only one.
ALONE = 15.0
#: Images of more bytes than this are copied in a thread.
LARGE = 1_000_000

_jobs = msgspec.json.Decoder(Job)
_STAGES = {
    stage: STAGE.labels(stage=stage) for stage in ("fetch", "decode", "preprocess", "codes", "infer", "postprocess")
}
_QUEUE_WAIT = {lane: QUEUE_WAIT.labels(lane=lane) for lane in LANES}


@dataclass
class InHand:
    """A message that this worker holds."""

    delivery: Delivery
    taken: float = field(default_factory=time.perf_counter)
    lost: bool = False  # its lease went to another worker
    closing: bool = False  # its end is being recorded or handed back
    task: "asyncio.Task[None] | None" = None
    timings: dict[str, float] = field(default_factory=dict)

    def wanted(self) -> bool:
        """Whether a result may still be recorded."""
        return not self.lost


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an image may cost."""

    max_attempts: int
    max_pixels: int
    max_bytes: int
    fresh: float  # seconds after its reception within which the gateway's look for a known answer holds


@dataclass(kw_only=True)
class Images:
    """Handles one message at a time each; holds what all of them share."""

    queue: Queue
    blobs: BlobStore
    store: ResultStore
    predictor: Predictor
    plans: Plans
    flights: Flights
    decoders: DecoderPool
    saver: Saver
    steps: StepRunner
    outages: Outages
    threads: Executor
    limits: Limits
    near: NearDuplicates
    memory: Memory | None = None

    async def handle(self, held: InHand) -> None:
        """See a message through: recorded, handed back, or left to who has its lease now. Never raises but when cancelled."""
        try:
            job = _read(held.delivery)
        except (msgspec.MsgspecError, NotServed) as error:
            await self._unreadable(held, error)
            return
        try:
            await self._see_through(held, job)
        except asyncio.CancelledError:
            if not held.lost:
                await self._hand_back(held, 0.0)
            raise
        except Exception as error:  # noqa: BLE001 - one function decides what each error means
            await self._react(held, job, error)

    # ------------------------------------------------------------ the way
    async def _see_through(self, held: InHand, job: Job) -> None:
        waited = max(0.0, (utcnow() - job.received_at).total_seconds())
        held.timings["queue"] = waited
        _QUEUE_WAIT[job.lane].observe(waited)
        _check_deadline(job)
        if held.delivery.attempt > 1 and await self.store.get(job.id) is not None:
            await self._record(held, None)
            return
        ready = self.plans.get(job.pipeline, job.site if job.aside is None else job.aside)
        await self.plans.check(job)
        if job.replay_of is not None:  # asked for anew: no answer of before will do
            await self._record(held, await self._compute(held, job, ready))
            return
        await self._once_for_all(held, job, ready)

    async def _once_for_all(self, held: InHand, job: Job, ready: ReadyPlan) -> None:
        lead = await self.flights.board(job, ready.fingerprint, fresh=held.timings["queue"] < self.limits.fresh)
        if isinstance(lead, Result):
            await self._record(held, duplicate(lead, job, utcnow(), held.timings))
            return
        try:
            result = await self._compute(held, job, ready)
            await self._record(held, result)
        except BaseException:
            await self.flights.failed(lead)
            raise
        await self.flights.landed(lead, result)

    async def _compute(self, held: InHand, job: Job, ready: ReadyPlan) -> Result:
        memory = self._memory_for(ready)
        start = time.perf_counter()
        data = await self.blobs.get(job.blob)
        held.timings["fetch"] = time.perf_counter() - start
        if held.delivery.attempt > SAFETY_NET:
            raise Undeliverable(f"delivered {held.delivery.attempt} times without a result; look at the workers' logs")
        slot = await memory.take()
        try:
            _check_deadline(job)
            return await self._with_slot(held, job, ready, data, slot)
        finally:
            memory.give(slot)

    async def _with_slot(self, held: InHand, job: Job, ready: ReadyPlan, data: bytes, slot: Slot) -> Result:
        memory = self._memory_for(ready)
        compared = self.near.wanted(job)
        prepared = await self.decoders.decode(await self._order(ready, data, slot, compared))
        held.timings["decode"] = prepared.decode_seconds
        held.timings["preprocess"] = prepared.preprocess_seconds
        if ready.plan.codes is not None:
            held.timings["codes"] = prepared.codes_seconds
        _check_deadline(job)
        signature = slot.signature(prepared.signature) if compared and prepared.signature is not None else None
        match = None if signature is None else await self._in_thread(self.near.look, job, ready.fingerprint, signature)
        if match is not None and match.reuse:
            self.near.reused(job)
            return results.reused(job, prepared, match.result, match.distance, match.limit, held.timings)
        findings = await self.steps.run(ready, memory.layout, prepared, slot, job.id)
        result = results.completed(job, ready, prepared, findings, held.timings)
        if match is not None:
            await self.near.check(self.store, match, result)
        if signature is not None:
            await self._in_thread(self.near.learn, job, ready.fingerprint, signature, result)
        return result

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def _order(self, ready: ReadyPlan, data: bytes, slot: Slot, compared: bool) -> Order:
        if len(data) > self.limits.max_bytes:
            raise TooLarge(f"{len(data):,} bytes; at most {self.limits.max_bytes:,} are accepted")
        if len(data) > LARGE:
            image = await self._in_thread(slot.put_image, data)
        else:
            image = slot.put_image(data)
        plan, layout = ready.plan, self._memory_for(ready).layout
        return Order(
            image,
            tuple(slot.room(step, layout.areas(plan, step)) for step in plan.whole),
            slot.frame_room() if plan.on_crops else None,
            plan.exif,
            self.limits.max_pixels,
            self.limits.max_bytes,
            None if plan.codes is None else plan.codes.formats,
            plan.quality is not None,
            slot.signature_room() if compared else None,
        )

    def _memory_for(self, ready: ReadyPlan) -> Memory:
        """The memory, where it was laid out for this plan; a plan that changed waits for new memory."""
        if self.memory is None or self.memory.layout is not self.plans.layout:
            raise NotServed(f"the pipeline {ready.plan.pipeline!r} changes right now")
        return self.memory

    async def _record(self, held: InHand, result: Result | None) -> None:
        """Saved, then acknowledged; None: it had been saved before."""
        held.closing = True
        await self.saver.save(result, held.delivery, held.wanted)
        for stage, seconds in result.timings.items() if result is not None else ():
            if stage in _STAGES:
                _STAGES[stage].observe(seconds)

    # ------------------------------------------------------------ when it does not go so
    async def _react(self, held: InHand, job: Job, error: Exception) -> None:
        decision = outcome(error, held.delivery.attempt)
        if isinstance(error, ModelChanged):
            await self.plans.refresh()
        else:
            self._report(job, error)
        if isinstance(decision, Charge):
            decision = await self._charge(job, decision)
        if isinstance(decision, Fail):
            decision = await self._fail(held, results.failed(job, decision.reason, held.timings))
        if isinstance(decision, HandBack) and not held.lost:
            log.info(
                "handed back", job=job.id, error=f"{type(error).__name__}: {error}", delay=round(decision.delay, 3)
            )
            await self._hand_back(held, decision.delay)

    async def _charge(self, job: Job, charge: Charge) -> Fail | HandBack:
        """One attempt more for this image; the last one fails it."""
        try:
            attempts = await self.store.charge(job.id)
        except StoreError as error:
            self._report(job, error)
            return HandBack(backoff(1))
        log.warning("attempt charged", job=job.id, attempts=attempts, reason=charge.reason)
        if attempts >= self.limits.max_attempts:
            return Fail(charge.reason)
        return HandBack(backoff(attempts, base=0.2, cap=10.0))

    async def _fail(self, held: InHand, result: Result) -> Drop | HandBack:
        try:
            await self._record(held, result)
        except StoreError as error:
            self.outages.report("results", error, self.store.unfinished)
            return HandBack(backoff(held.delivery.attempt, base=1.0))
        except Exception as error:  # noqa: BLE001 - a lost lease, most likely
            log.warning("a failure is not recorded", job=result.id, error=str(error))
        return Drop()

    async def _unreadable(self, held: InHand, error: Exception) -> None:
        """A message for a newer worker waits for one; what nobody can read is a failed result."""
        if isinstance(error, NotServed):
            await self._hand_back(held, backoff(held.delivery.attempt, base=5.0, cap=60.0))
            return
        log.warning("unreadable job", job=held.delivery.id, error=str(error))
        decision = await self._fail(held, results.unreadable(held.delivery, str(error)))
        if isinstance(decision, HandBack):
            await self._hand_back(held, decision.delay)

    async def _hand_back(self, held: InHand, delay: float) -> None:
        held.closing = True
        try:
            await self.queue.nack(held.delivery, delay=delay)
        except QueueError as error:  # its lease runs out, and then it comes again
            log.warning("not handed back", job=held.delivery.id, error=str(error))

    def _report(self, job: Job, error: Exception) -> None:
        """Stop receiving while what this error tells of is down."""
        if isinstance(error, InferenceUnavailable):
            self.outages.report("inference", error, self.inference_is_back)
        elif isinstance(error, StoreError) and error.transient:
            self.outages.report("results", error, self.store.unfinished)
        elif isinstance(error, BlobError) and error.transient:
            self.outages.report("blobs", error, self._blob_probe(job))

    async def inference_is_back(self) -> None:
        """Raises InferenceUnavailable while the service does not answer."""
        await self.predictor.ready()
        await self.plans.refresh()

    def _blob_probe(self, job: Job) -> Callable[[], Awaitable[object]]:
        """Reads the image that could not be read. It alone may be unreadable: after a while it is enough that the store can
        tell of another that it is not there. A store that does not answer at all is not tried with one image after the other,
        each of which would be handed back for longer and longer.
        """
        until = time.monotonic() + ALONE

        async def probe() -> None:
            try:
                await self._blobs_answer(job.blob)
            except BlobError:
                if time.monotonic() < until:
                    raise
                await self._blobs_answer(BlobRef(f"{job.site}/{os.urandom(32).hex()}", 0, ""))

        return probe

    async def _blobs_answer(self, ref: BlobRef) -> None:
        try:
            await self.blobs.get(ref)
        except BlobError as error:
            if error.transient:
                raise


def _read(delivery: Delivery) -> Job:
    job = _jobs.decode(delivery.body)
    if job.min_reader > READER:
        raise NotServed(f"job {job.id} asks for a reader of version {job.min_reader}; this one is {READER}")
    return job


def _check_deadline(job: Job) -> None:
    if job.deadline is not None and utcnow() > job.deadline:
        raise Expired(f"the deadline {job.deadline.isoformat()} had passed")
