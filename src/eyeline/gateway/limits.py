"""Full is said, not suffered: what is refused before a body is read, and why.

`Admission` bounds the line of unfinished jobs by count and by expected wait; `ByteBudget` bounds the bytes of bodies in
memory. What bounds one key is in rates.py.
"""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from statistics import median

from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError, Overloaded
from eyeline.core.telemetry import QUEUE_AGE, logger
from eyeline.core.types import Lane
from eyeline.stores.results.base import ResultStore, Unfinished

log = logger("gateway")

POLL = 0.2
#: With fewer live jobs than this in the line nothing is refused for its wait: they are worked on, not waiting.
BUSY = 4
#: The share of the workers' time that live jobs get while bulk jobs wait as well (the queue's weights).
LIVE_SHARE = 0.8
#: The share of the line that one pipeline may fill.
PIPELINE_SHARE = 0.5
#: Seconds of busy time from which the completion rate and the usual latency are taken.
WINDOW = 2.0
#: No answer at all for this long, though jobs came in: the workers are gone.
STALLED = 2.0
#: Seconds for which a place is kept for a body that is still on its way; ordinary ones take a few milliseconds.
PATIENCE = 1.0
#: Seconds within which a body may come however little memory is left; after that it needs half of it to be free.
UNHURRIED = 10.0


class Rate:
    """Completions a second while the line was busy; None until that was seen. Idle time does not count as slowness."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()  # seconds, completions

    def add(self, seconds: float, done: int) -> None:
        """One busy interval."""
        self._samples.append((seconds, done))
        while self._seconds() - self._samples[0][0] >= WINDOW:
            self._samples.popleft()

    def value(self) -> float | None:
        """Completions a second over the last busy two seconds; None while less than half a second is known."""
        seconds = self._seconds()
        return sum(done for _, done in self._samples) / seconds if seconds >= WINDOW / 4 else None

    def _seconds(self) -> float:
        return sum(seconds for seconds, _ in self._samples)


class Latency:
    """How long jobs of this gateway took lately, from the 202 to the recorded result, and since when none came back."""

    def __init__(self, clock: Callable[[], float], largest: int) -> None:
        self._clock = clock
        self._largest = largest
        self._open: OrderedDict[str, float] = OrderedDict()
        self._recent: deque[tuple[float, float]] = deque(maxlen=256)  # when seen, seconds
        self._unanswered: float | None = None  # the first job since anything completed

    def began(self, id: str) -> None:  # noqa: A002
        """A job was kept."""
        now = self._clock()
        self._open[id] = now
        if self._unanswered is None:
            self._unanswered = now
        if len(self._open) > self._largest:
            self._open.popitem(last=False)

    def ended(self, id: str) -> None:  # noqa: A002
        """A result was recorded, of this gateway's job or another's."""
        now = self._clock()
        began = self._open.pop(id, None)
        self._unanswered = None
        if began is not None:
            self._recent.append((now, now - began))

    def usual(self) -> float:
        """The median of the last two seconds; 0 where nothing completed."""
        since = self._clock() - WINDOW
        recent = [seconds for seen, seconds in self._recent if seen >= since]
        return median(recent) if recent else 0.0

    def stalled(self) -> bool:
        """Whether jobs came in for two seconds and nothing was answered at all, though something was once."""
        return bool(self._recent) and self._unanswered is not None and self._clock() - self._unanswered > STALLED


class Admission:
    """Whether another job may join the line.

    Count alone would let jobs wait for as long as slow workers need, and a handful of jobs that are being tried again and
    again must not look like a line: so a job is refused for its expected wait only while jobs really come back late.
    """

    def __init__(
        self,
        results: ResultStore,
        *,
        max_unfinished: int,
        max_wait: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._results = results
        self._max_unfinished = max_unfinished
        self._max_wait = max_wait
        self._clock = clock
        self._rate = Rate()
        self._latency = Latency(clock, 2 * max_unfinished)
        self._seen = Unfinished(count=0, oldest=None)
        self._looked_at = clock()
        self._entering: dict[Lane, int] = {"live": 0, "bulk": 0}  # admitted, not kept yet
        self._coming: OrderedDict[Place, float] = OrderedDict()  # of these: not here yet, and since when; oldest first
        self._kept: dict[Lane, int] = {"live": 0, "bulk": 0}  # since the last look
        self._done = 0  # results recorded since the last look
        self._refused = False  # somebody, for the wait, since the last look
        self._by_pipeline: dict[str, int] = {}
        self.error: str | None = "the result store has not answered yet"

    def queued(self, by_topic: Mapping[str, int]) -> None:
        """How many jobs wait in each topic (`<pipeline>.<lane>`) of the queue."""
        counted: dict[str, int] = {}
        for topic, depth in by_topic.items():
            pipeline = topic.rpartition(".")[0]
            counted[pipeline] = counted.get(pipeline, 0) + depth
        self._by_pipeline = counted

    def waiting(self, lane: Lane | None = None) -> int:
        """Unfinished jobs, those included that were kept since the last look or are on their way in."""
        self._pass_on()
        if lane is None:
            return self._seen.count + sum(self._entering.values()) + sum(self._kept.values())
        return self._seen.by_lane.get(lane, 0) + self._entering[lane] + self._kept[lane]

    def expected_wait(self) -> float:
        """Seconds a live job that joins now would wait, as far as is known; 0 where jobs come back at once."""
        ahead, rate = self.waiting("live"), self._rate.value()
        if ahead < BUSY or rate is None:
            return 0.0
        if self._latency.stalled():
            return math.inf
        if self._latency.usual() < self._max_wait / 4:
            return 0.0
        share = LIVE_SHARE if self.waiting("bulk") else 1.0
        return ahead / max(rate * share, 1e-3)

    def enter(self, lane: Lane, pipeline: str = "") -> "Place":
        """Take a place in the line, before what it is for has come. Raises Overloaded."""
        place = Place(self, lane, pipeline)
        self.take(place)
        self._coming[place] = self._clock()
        return place

    def take(self, place: "Place") -> None:
        """Raises Overloaded. One pipeline, whose model may not be ready, fills no more than half of the line."""
        lane, pipeline = place.lane, place.pipeline
        stuck = self._by_pipeline.get(pipeline, 0)
        if stuck > self._max_unfinished * PIPELINE_SHARE:
            raise _full(f"{stuck} jobs wait for the pipeline {pipeline!r}", 1.0)
        share = 0.5 if lane == "bulk" else 1.0  # bulk is refused first
        if self.waiting() + 1 > self._max_unfinished * share:
            raise _full(f"{self.waiting()} jobs are unfinished", 1.0)
        wait = self.expected_wait()
        if wait > self._max_wait * share:
            self._refused = True
            raise _full(f"the expected wait is {min(wait, 999.0):.1f} s", wait - self._max_wait * share)
        self._entering[lane] += 1
        place.held = True

    def here(self, place: "Place") -> None:
        """It waits for nothing any more."""
        self._coming.pop(place, None)

    def give_back(self, place: "Place") -> None:
        """Somebody else may have it."""
        self.here(place)
        self._entering[place.lane] -= place.held
        place.held = False

    def _pass_on(self) -> None:
        """The places of those who let us wait: else a few hundred trickling bodies would keep all others out."""
        late = self._clock() - PATIENCE
        while self._coming and next(iter(self._coming.values())) < late:
            self.give_back(next(iter(self._coming)))

    def kept(self, lane: Lane, id: str) -> None:  # noqa: A002
        """A job is in the store."""
        self._kept[lane] += 1
        self._latency.began(id)

    def completed(self, id: str) -> None:  # noqa: A002
        """A result was recorded, by whichever worker for whichever gateway."""
        self._done += 1
        self._latency.ended(id)

    @property
    def busy(self) -> bool:
        """Whether there is a line that is worth watching closely."""
        return self.waiting() >= BUSY

    async def look(self) -> None:
        """Ask the store how long the line is. Raises StoreError."""
        counted, began, done, refused = dict(self._kept), self._clock(), self._done, self._refused
        self._refused = False
        seen = await self._results.unfinished()
        # a line that is short because it is refused is busy: else a rate that was low once would keep it short for ever
        busy = refused or min(seen.count, self._seen.count) >= BUSY
        if busy and (done or self._rate.value() is not None):
            self._rate.add(began - self._looked_at, done)
        self._seen, self._looked_at, self._done = seen, began, self._done - done
        for lane, count in counted.items():  # these are part of `seen` now
            self._kept[lane] -= count
        age = (utcnow() - seen.oldest).total_seconds() if seen.oldest else 0.0
        QUEUE_AGE.set(max(age, 0.0))

    async def keep_looking(self) -> None:
        """Look for ever, five times a second; an unreachable store is remembered in `error`."""
        while True:
            try:
                await self.look()
                self.error = None
            except BackendError as error:
                self.error = str(error)
            await asyncio.sleep(POLL)


class Place:
    """One request's place in the line, from before its body is read until its job is kept."""

    def __init__(self, admission: Admission, lane: Lane, pipeline: str) -> None:
        self._admission = admission
        self.lane: Lane = lane
        self.pipeline = pipeline
        self.held = False

    def arrived(self) -> None:
        """All of it is here. Raises Overloaded where that took so long that others got the place, and none is left."""
        self._admission.here(self)
        if not self.held:
            self._admission.take(self)

    def leave(self) -> None:
        """Give it back, whatever came of the request."""
        self._admission.give_back(self)


def _full(why: str, wait: float) -> Overloaded:
    return Overloaded(f"full: {why}; try again later", retry_after=min(max(wait, 1.0), 5.0))


class ByteBudget:
    """Bytes of request bodies that may be in memory at once. Slow ones keep others out no more than large ones do."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.free = total
        self._half = total // 2
        self.clock = clock

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator["Hold"]:
        """A share of the budget for a body of `size` bytes, given back at the end. Raises Overloaded (503) where that much
        is not free now. The share grows with what has come: what is only announced takes nobody's room, or a dozen slow
        senders would keep all others out.
        """
        self.check(size)
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.free += hold.size

    def check(self, size: int) -> None:
        """Raises Overloaded where so many bytes are not free."""
        if size > self.free:
            raise Overloaded("too many large uploads at once; try again in a second", status=503)

    def check_slow(self, since: float) -> None:
        """Raises Overloaded where memory is short and that body has been coming for long."""
        seconds = self.clock() - since
        if self.free < self._half and seconds > UNHURRIED:
            raise Overloaded(
                f"many uploads at once, and this one is not here after {seconds:.0f} s; try again", status=503
            )


class Hold:
    """One request's share of the budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._began = budget.clock()
        self.size = 0

    def grow(self, size: int) -> None:
        """Hold at least `size` bytes. Raises Overloaded."""
        more = size - self.size
        self._budget.check(more)
        self._budget.check_slow(self._began)
        if more > 0:
            self._budget.free -= more
            self.size = size
