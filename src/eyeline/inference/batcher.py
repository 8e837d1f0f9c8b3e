"""Continuous batching: while a batch runs, requests gather; a free instance takes what waits, and adds no delay of its own.

Requests are handed over on the event loop; each instance has a thread, which also writes the outputs where they belong.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eyeline.core.errors import InferenceError, Overloaded
from eyeline.core.telemetry import BATCH_SIZE, STAGE, logger
from eyeline.inference.base import ModelRuntime, Tensor

log = logger("inference")
#: Seconds after which a caller that was refused may try again.
RETRY_AFTER = 0.5


class Expired(InferenceError):
    """The request's total deadline passed before its turn came; nothing was run."""


@dataclass(eq=False)
class Request:
    """One waiting request of `size` images. `finish` turns its outputs into what the caller is told, in the runtime's thread."""

    inputs: Mapping[str, Tensor]
    size: int
    deadline: float
    finish: Callable[[dict[str, Tensor]], object]
    done: "asyncio.Future[object]"
    cancelled: bool = False
    arrived: float = field(default_factory=time.monotonic)

    def cancel(self) -> None:
        """Nobody waits for it any more: do not run it, and write nothing where its outputs were to go."""
        self.cancelled = True
        if not self.done.done():
            self.done.set_exception(Expired("the caller left"))


@dataclass
class Statistics:
    """Sums since the model was loaded; durations in seconds."""

    requests: int = 0
    failures: int = 0
    images: int = 0
    batches: int = 0
    expired: int = 0
    cancelled: int = 0
    queued: float = 0.0
    computed: float = 0.0
    finished: float = 0.0
    last: float = 0.0
    by_size: dict[int, tuple[int, float]] = field(default_factory=dict)


class Batcher:
    """The line in front of a model's instances. `limit` images at most are run together, `max_queue` requests wait at most."""

    def __init__(
        self, name: str, runtimes: Sequence[ModelRuntime], *, limit: int, max_queue: int, max_delay: float = 0.0
    ) -> None:
        self.name = name
        self.limit = limit
        self.statistics = Statistics()
        self._max_queue = max_queue
        self._max_delay = max_delay
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._runtimes = runtimes
        self._loop = asyncio.get_running_loop()
        self._size = BATCH_SIZE.labels(name)
        self._threads = [
            threading.Thread(target=self._work, args=(runtime,), name=f"{name}-{number}", daemon=True)
            for number, runtime in enumerate(runtimes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._waiting)

    def submit(
        self,
        inputs: Mapping[str, Tensor],
        size: int,
        deadline: float,
        finish: Callable[[dict[str, Tensor]], object],
    ) -> Request:
        """Put a request in the line; await its `done`. Call on the event loop. Raises Overloaded where the line is full."""
        self.check_room()
        request = Request(inputs, size, deadline, finish, self._loop.create_future())
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
        return request

    def check_room(self) -> None:
        """Raises Overloaded where the line is full of requests that somebody still waits for."""
        if len(self._waiting) < self._max_queue and not self._closing:
            return
        with self._changed:
            self._drop_dead()
            if len(self._waiting) < self._max_queue and not self._closing:
                return
        raise Overloaded(
            f"{self._max_queue} requests wait for the model {self.name!r} already; try again later",
            retry_after=RETRY_AFTER,
            status=503,
        )

    def close(self) -> None:
        """Run what waits, then end the threads and free the model. Blocks; idempotent. Nothing is accepted any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for runtime in self._runtimes:
            runtime.close()

    def _work(self, runtime: ModelRuntime) -> None:
        stacks: dict[str, Tensor] = {}
        while batch := self._take():
            try:
                self._run(runtime, batch, stacks)
            except Exception as error:  # a thread that ends would leave its callers waiting
                log.exception("a batch failed unexpectedly", model=self.name)
                self._tell([(request, error) for request in batch])
            batch.clear()

    def _take(self) -> list[Request]:
        """The next batch; empty when there is nothing more to come."""
        with self._changed:
            while True:
                self._drop_dead()
                if self._waiting:
                    wait = self._fill_time()
                    if wait <= 0:
                        return self._pop()
                    self._changed.wait(wait)
                elif self._closing:
                    return []
                else:
                    self._changed.wait()

    def _fill_time(self) -> float:
        """Seconds that the batch may still wait to fill."""
        if not self._max_delay or self._closing or sum(request.size for request in self._waiting) >= self.limit:
            return 0.0
        return self._waiting[0].arrived + self._max_delay - time.monotonic()

    def _pop(self) -> list[Request]:
        batch = [self._waiting.popleft()]
        room = self.limit - batch[0].size
        while self._waiting and self._waiting[0].size <= room:
            batch.append(self._waiting.popleft())
            room -= batch[-1].size
        return batch

    def _drop_dead(self) -> None:
        """Expired and cancelled requests are never run."""
        now = time.monotonic()
        dead = [request for request in self._waiting if request.cancelled or now > request.deadline]
        if not dead:
            return
        alive = [request for request in self._waiting if not request.cancelled and now <= request.deadline]
        self._waiting = deque(alive)
        self.statistics.expired += sum(not request.cancelled for request in dead)
        self.statistics.cancelled += sum(request.cancelled for request in dead)
        error = Expired(f"the deadline passed while the request waited for the model {self.name!r}")
        self._tell([(request, error) for request in dead])

    def _run(self, runtime: ModelRuntime, batch: list[Request], stacks: dict[str, Tensor]) -> None:
        started = time.monotonic()
        try:
            outputs = runtime.infer(_together(batch, stacks, self.limit))
            check_finite(outputs)
        except InferenceError as error:
            self._one_by_one(runtime, batch, error)
            return
        ran = time.monotonic()
        answers: list[tuple[Request, object]] = []
        start = 0
        for request in batch:
            part = {name: value[start : start + request.size] for name, value in outputs.items()}
            answers.append((request, _finished(request, part)))
            start += request.size
        self._tell(answers)
        self._count(batch, started, ran)

    def _one_by_one(self, runtime: ModelRuntime, batch: list[Request], error: InferenceError) -> None:
        """A batch that raises or gives NaN is run again singly, so that one bad request fails alone."""
        if len(batch) == 1:
            self.statistics.failures += 1
            self._tell([(batch[0], error)])
            return
        for request in batch:
            self._run(runtime, [request], {})

    def _tell(self, answers: list[tuple[Request, object]]) -> None:
        if answers and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_resolve, answers)

    def _count(self, batch: list[Request], started: float, ran: float) -> None:
        now = time.monotonic()
        total = self.statistics
        images = sum(request.size for request in batch)
        total.requests += len(batch)
        total.images += images
        total.batches += 1
        total.queued += sum(started - request.arrived for request in batch)
        total.computed += ran - started
        total.finished += now - ran
        total.last = time.time()
        runs, seconds = total.by_size.get(images, (0, 0.0))
        total.by_size[images] = (runs + 1, seconds + ran - started)
        self._size.observe(images)
        _INFER.observe(ran - started)
        _INFER_QUEUE.observe(started - batch[0].arrived)


_INFER = STAGE.labels("infer")
_INFER_QUEUE = STAGE.labels("infer_queue")


def _together(batch: list[Request], stacks: dict[str, Tensor], limit: int) -> Mapping[str, Tensor]:
    """The batch's input: a lone request's own tensor in place, or a copy of all into the instance's own memory."""
    if len(batch) == 1:
        return batch[0].inputs
    together: dict[str, Tensor] = {}
    for name, first in batch[0].inputs.items():
        if name not in stacks:
            stacks[name] = np.empty((limit, *first.shape[1:]), first.dtype)
        total = sum(request.size for request in batch)
        together[name] = stacks[name][:total]
        np.concatenate([request.inputs[name] for request in batch], out=together[name])
    return together


def check_finite(outputs: Mapping[str, Tensor]) -> None:
    """Raises InferenceError where an output holds NaN or infinity."""
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():  # cheaper than a sum
            raise InferenceError(f"the model's output {name!r} holds NaN or infinity for this input")


def _finished(request: Request, outputs: dict[str, Tensor]) -> object:
    if request.cancelled:
        return None  # its room in shared memory may be somebody else's by now
    try:
        return request.finish(outputs)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's alone
        return error


def _resolve(answers: list[tuple[Request, object]]) -> None:
    for request, answer in answers:
        if request.done.done():
            continue
        if isinstance(answer, BaseException):
            request.done.set_exception(answer)
        else:
            request.done.set_result(answer)
