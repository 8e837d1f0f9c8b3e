"""One camera at work: frames from its source to the gateway, to the spool while the gateway is away, and books over all of it."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from eyeline.cameras import open_camera, open_trigger
from eyeline.cameras.base import CameraSource, Frame
from eyeline.cameras.captures import Capture, Captures
from eyeline.cameras.delivery import Answer, Delivery
from eyeline.cameras.pump import DROPPED_NEWEST_FIRST
from eyeline.cameras.spool import ACCEPTED, Held, Spool
from eyeline.cameras.watch import Watch
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.retry import backoff
from eyeline.core.settings import CameraSettings
from eyeline.core.telemetry import FRAMES, logger
from eyeline.core.types import Lane

T = TypeVar("T")
log = logger("cameras")

#: Frames that wait for a sender; beyond it a live camera drops the oldest, any other waits.
BUFFER = 8
SENDERS = 4
#: Spooled frames sent at once, beside the live ones.
REPLAYED = 4
REPORT_EVERY = 1.0
DRAIN = 5.0
#: Longer than it takes to let go of a camera and a broker, which a second cancellation would cut short.
CANCEL_AGAIN = 10.0
_FPS_WINDOW = 10.0

DROPPED_SPOOL_FULL = "spool_full"
DROPPED_REJECTED = "rejected"
DROPPED_DISK_FULL = "disk_full"
DROPPED_DAMAGED = "damaged"
DROPPED_NO_CHANGE = "no_change"
#: The meta field that ties a frame to the capture that asked for it.
CAPTURE = "capture"


class CameraAgent:
    """The service of one camera.

    A lossless source (drop "never", or "auto" with a source that can wait) is never dropped from: it waits, with at most
    the spool filled, until the gateway takes more. A live one spools what cannot be sent, and drops (`spool_full`) beyond.
    """

    def __init__(
        self, settings: CameraSettings, gateway_url: str, spool_dir: Path, api_key: str | None, mqtt_url: str = ""
    ) -> None:
        self._settings = settings
        self._gateway_url = gateway_url
        self._spool_dir = spool_dir
        self._api_key = api_key
        self._mqtt_url = mqtt_url
        self._buffer: deque[tuple[Held, bytes]] = deque()
        self._changed = asyncio.Condition()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")  # one thread: the books are kept in order
        self._times: deque[float] = deque()
        self._away_until = 0.0
        self._failures = 0
        self._lossless = False
        self._state = "starting"

    async def run(self, stop: asyncio.Event) -> None:
        """As `Service` says. Raises ConfigError for an unknown scheme, or where another agent has this camera's books."""
        self._spool = await self._on_disk(partial(Spool, self._spool_dir, self._settings.spool_bytes))
        self._delivery = Delivery(self._settings, self._gateway_url, self._api_key)
        self._watch = await self._on_disk(partial(Watch, self._settings, self._spool_dir))
        self._captures = Captures(self._settings.name, self._delivery, self._spool_dir)
        self._memory = replace(self._spool.memory, dropped=self._source_dropped)
        try:
            await self._recover()
            open_camera(self._settings, self._memory)  # an unknown scheme is said at once
            self._trigger = open_trigger(self._settings, self._mqtt_url, self._captures.add)
            await self._work(stop)
        finally:
            await self._on_disk(self._watch.keep)
            await self._on_disk(self._spool.close)
            await self._delivery.report(self._spool.counts(), "stopped", 0.0)
            await self._delivery.close()
            self._disk.shutdown()

    async def _work(self, stop: asyncio.Event) -> None:
        capture = asyncio.create_task(self._capture())
        senders = [asyncio.create_task(self._send_live()) for _ in range(SENDERS)]
        others = [asyncio.create_task(each) for each in (self._replay(), self._report(), self._captures.ask())]
        if self._trigger is not None:
            others.append(asyncio.create_task(self._trigger.listen()))
        tasks = [capture, *senders, *others]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            await _end([capture])
            if stop.is_set():
                await self._drain()
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()  # a task that broke ends the service, and the supervisor starts it anew
        finally:
            await _end([stopped, *tasks])

    async def _drain(self) -> None:
        """Give what is in hand a last chance; the rest goes to the spool when the books are closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN), self._changed:
                await self._changed.wait_for(lambda: not self._spool.in_hand)

    # ------------------------------------------------------------ capture

    async def _capture(self) -> None:
        """Read the source for ever; open it again where it breaks, and rest where it ends."""
        attempt = 0
        while True:
            source = open_camera(self._settings, self._memory)
            self._lossless = self._settings.drop == "never" or (self._settings.drop == "auto" and not source.live)
            taken = len(self._times)
            try:
                await self._read(source)
                self._state = "finished"
                log.info("the source has ended", camera=self._settings.name)
                await asyncio.Event().wait()
            except CameraError as error:
                attempt = 1 if len(self._times) > taken else attempt + 1
                self._state = "offline"
                self._watch.health.broke(str(error))
                log.warning("camera offline", camera=self._settings.name, reason=str(error))
                await asyncio.sleep(backoff(attempt, base=1.0, cap=10.0))
            finally:
                await source.close()

    async def _read(self, source: CameraSource) -> None:
        """Frame after frame. A live source that gives none for too long has stalled, whatever it thinks itself."""
        if source.live:
            self._watch.health.began(time.monotonic())
        async with contextlib.aclosing(source.frames()) as frames:
            while True:
                try:
                    async with asyncio.timeout(self._patience if source.live else None):
                        frame = await anext(frames)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise CameraError(f"no frame for {self._patience:g} s: stalled") from error
                self._state = "live"
                self._count_time()
                if source.live:
                    self._watch.frame(frame)
                await self._admit(frame, live=source.live)

    @property
    def _patience(self) -> float:
        """Seconds within which a live source must give a frame; a slow rate is no stall."""
        return max(self._settings.stall_seconds, 3 / self._settings.fps if self._settings.fps else 0.0)

    async def _admit(self, frame: Frame, *, live: bool) -> None:
        """A frame for whoever asked for it; any other by the gate. A folder has no health: its pictures may be anything."""
        captures = self._captures.take(frame, live=live)
        work = self._watch.work(gate=not captures and not self._settings.only_triggered, health=live)
        passes = await self._on_disk(partial(self._watch.see, frame, work)) if work else True
        if captures:
            for capture in captures:
                await self._take(_triggered(frame, capture))
        elif self._settings.only_triggered:
            return
        elif passes:
            await self._take(frame)
        else:
            await self._on_disk(partial(self._spool.lost, DROPPED_NO_CHANGE, frame.origin))
            FRAMES.labels(self._settings.name, DROPPED_NO_CHANGE).inc()

    def _source_dropped(self, reason: str) -> None:
        """The source had to drop a frame itself; called from its thread."""
        with contextlib.suppress(RuntimeError):  # the books are closed already
            self._disk.submit(self._spool.lost, reason)
            FRAMES.labels(self._settings.name, reason).inc()

    async def _take(self, frame: Frame) -> None:
        """Into the books and the buffer. Where the buffer is full the source waits, or the oldest frame goes."""
        if self._lossless:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._buffer) < BUFFER)
        held = await self._book(frame)
        if held is None:
            return
        self._buffer.append((held, frame.data))
        if len(self._buffer) > BUFFER:
            oldest, _ = self._buffer.popleft()
            await self._settle(oldest, DROPPED_NEWEST_FIRST)
        await self._notify()

    async def _book(self, frame: Frame) -> Held | None:
        """The frame in the books. While the disk is full a source that can wait does; of any other the frame is lost."""
        while True:
            try:
                return await self._on_disk(partial(self._spool.capture, frame))
            except CameraError as error:
                log.warning("no room for a frame", camera=self._settings.name, reason=str(error))
            if not self._lossless:
                await self._on_disk(partial(self._spool.lost, DROPPED_DISK_FULL))
                FRAMES.labels(self._settings.name, DROPPED_DISK_FULL).inc()
                return None
            await asyncio.sleep(1.0)

    def _count_time(self) -> None:
        now = time.monotonic()
        self._times.append(now)
        while self._times[0] < now - _FPS_WINDOW:
            self._times.popleft()

    # ------------------------------------------------------------ sending

    async def _send_live(self) -> None:
        """Send what is captured, newest policy aside in the order of capture."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._buffer))
                held, data = self._buffer.popleft()
                self._changed.notify_all()
            await self._place(held, data)

    async def _place(self, held: Held, data: bytes) -> None:
        """Until the frame is settled or spooled."""
        while True:
            if self._seconds_away() > 0:
                if await self._keep(held):
                    return
                if not self._lossless:
                    await self._settle(held, DROPPED_SPOOL_FULL)
                    return
                await asyncio.sleep(self._seconds_away())
            answer = await self._offer(held, data, "live")
            if answer.verdict in {"kept", "refused"}:
                return
            if answer.verdict == "busy" and self._lossless:
                await asyncio.sleep(answer.wait)
            elif answer.verdict == "busy":
                if not await self._keep(held):
                    await self._settle(held, DROPPED_SPOOL_FULL)
                return

    async def _replay(self) -> None:
        """Send spooled frames, oldest first, on the bulk lane; the first one alone while the gateway is away."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._spool.spooled))
            await asyncio.sleep(self._seconds_away())
            batch = self._spool.oldest(REPLAYED)
            if (
                self._failures
            ):  # one at a time, in turn: a single frame that breaks the gateway does not hold up the others
                batch = [batch[self._failures % len(batch)]]
            answers = await asyncio.gather(*(self._replay_one(held) for held in batch))
            await asyncio.sleep(max((answer.wait for answer in answers), default=0.0))

    async def _replay_one(self, held: Held) -> Answer:
        try:
            data = await self._on_disk(partial(self._spool.data, held))
        except CameraError as error:
            log.warning("spooled frame lost", camera=self._settings.name, reason=str(error))
            await self._settle(held, DROPPED_DAMAGED)
            return Answer("refused")
        return await self._offer(held, data, "bulk")

    async def _offer(self, held: Held, data: bytes, lane: Lane) -> Answer:
        """Send once and book what the answer settles."""
        answer = await self._delivery.send(held, data, lane)
        if answer.verdict == "away":
            self._failures += 1
            self._away_until = time.monotonic() + backoff(self._failures, base=0.5, cap=5.0)
            if self._failures == 1:
                log.warning("the gateway is away", camera=self._settings.name, reason=answer.detail)
            return answer
        if self._failures:
            log.info("the gateway is back", camera=self._settings.name)
        self._failures, self._away_until = 0, 0.0
        if answer.verdict == "kept":
            await self._settle(held, ACCEPTED)
            if self._trigger is not None and answer.job is not None and CAPTURE in held.meta:
                await self._trigger.tell(held.meta[CAPTURE], held.ref, answer.job)
        elif answer.verdict == "refused":
            log.warning("frame refused", camera=self._settings.name, reason=answer.detail)
            await self._settle(held, DROPPED_REJECTED)
        return answer

    def _seconds_away(self) -> float:
        return max(0.0, self._away_until - time.monotonic())

    # ------------------------------------------------------------ books

    async def _recover(self) -> None:
        """What an earlier run left in hand goes to the spool, to be sent again under its own key."""
        for held in list(self._spool.in_hand.values()):
            if not await self._keep(held):
                self._buffer.append((held, await self._on_disk(partial(self._spool.data, held))))

    async def _keep(self, held: Held) -> bool:
        kept = await self._on_disk(partial(self._spool.keep, held))
        await self._notify()
        return kept is not None

    async def _settle(self, held: Held, outcome: str) -> None:
        await self._on_disk(partial(self._spool.settle, held, outcome))
        FRAMES.labels(self._settings.name, outcome).inc()
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _report(self) -> None:
        while True:
            rate = len([moment for moment in self._times if moment > time.monotonic() - _FPS_WINDOW]) / _FPS_WINDOW
            state = "gateway away" if self._failures else self._state
            counts = await self._on_disk(self._spool.counts)
            theirs = await self._delivery.report(counts, state, rate, self._health())
            if theirs is not None:
                self._watch.health.clock("gateway", (theirs - utcnow()).total_seconds())
            await asyncio.sleep(REPORT_EVERY)

    def _health(self) -> dict[str, Any] | None:
        """What is reported; None while nothing is known, so that a restart does not look like a recovery."""
        health = self._watch.health
        conditions = health.conditions(time.monotonic(), time.time())
        if health.looks is None and not conditions:
            return None
        looks = health.looks
        return {
            "conditions": conditions,
            "brightness": None if looks is None else round(looks.brightness, 1),
            "sharpness": None if looks is None else round(looks.sharpness, 4),
            "clocks": {whose: round(skew, 1) for whose, skew in health.skews.items()},
        }

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Run `work` in the one thread of the books; once begun it is finished, whatever becomes of the caller."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._disk, work))


def _triggered(frame: Frame, capture: Capture) -> Frame:
    """The frame as the answer to a trigger. It has no origin: the same file may answer several."""
    return replace(frame, ref=capture.ref, meta={**frame.meta, CAPTURE: capture.id}, origin=None)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancelled until they have ended: `asyncio.wait_for`, on which the MQTT client stands, loses a cancellation that comes in
    the moment in which what it waits for is done (Python before 3.12).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
