"""Outputs: results that fit a condition, told to a webhook or MQTT one by one, or written to CSV files.

Each output has its own cursor in the event log and its own task. What was accepted is recorded together with the cursor, so a
crash on any line means that some results are told again, each under the id that it had; none is left out. While the other side
is away the cursor waits: nothing piles up but the log itself.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from eyeline.alerts import notification
from eyeline.alerts.channels import open_channel
from eyeline.alerts.channels.base import Channel
from eyeline.alerts.drop import CsvDrop
from eyeline.alerts.expression import Condition, compile_condition
from eyeline.alerts.rules import hits_of
from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError, ChannelError, ConfigError
from eyeline.core.ids import derived_id
from eyeline.core.retry import backoff
from eyeline.core.service import sleep
from eyeline.core.settings import ChannelSettings, OutputSettings
from eyeline.core.telemetry import OUTPUT_LAG, OUTPUTS, logger, printable
from eyeline.core.types import Classification, Detection, Event, Result
from eyeline.stores.results.base import DeliveryRow, ResultStore

log = logger("alerts")

#: Events read at a time, and results told before they are recorded.
PAGE, BATCH = 500, 50
#: Seconds that one step waits for events, and after which a cursor that passed nothing of interest is kept.
WAIT, KEEP_EVERY = 0.5, 1.0
#: Tries of one result that the other side refuses (not: does not answer) before it is set aside, to be sent again by hand.
REFUSALS = 5
#: For how long what was delivered is kept in the record, and seconds between two looks at it.
KEPT, TIDY_EVERY = timedelta(days=7), 3600.0
#: Seconds that the pause between two tries grows to.
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Pick:
    """A result that fits, and the number of its event."""

    seq: int
    result: Result


class Target(Protocol):
    """Where an output goes."""

    #: How many picks it takes at once, and for how long (seconds) it may wait for more of them.
    most: int
    patience: float

    async def put(self, rows: Sequence[DeliveryRow], picks: Sequence[Pick]) -> list[DeliveryRow]:
        """Bring them there in their order; the rows as they are afterwards, delivered or failed for good. At least one.

        Raises ChannelError where not even the first could be brought.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class Told:
    """One by one over a channel."""

    most, patience = BATCH, 0.0

    def __init__(self, channel: Channel, clock: Callable[[], datetime]) -> None:
        self._channel = channel
        self._clock = clock
        self._refusals: tuple[str, int] = ("", 0)

    async def put(self, rows: Sequence[DeliveryRow], _picks: Sequence[Pick]) -> list[DeliveryRow]:
        """See `Target.put`."""
        done: list[DeliveryRow] = []
        for row in rows:
            try:
                answer = await self._channel.send(row)
            except ChannelError as error:
                if self._given_up(row, error):
                    done.append(replace(row, state="failed", attempts=REFUSALS, last_error=str(error)))
                elif not done:
                    raise
                break
            now = self._clock()
            said = printable(answer, 500)
            done.append(replace(row, state="delivered", attempts=1, delivered_at=now, answer=said, payload=b""))
        return done

    def _given_up(self, row: DeliveryRow, error: ChannelError) -> bool:
        """Whether this very result was refused often enough. One that gets no answer is tried for as long as it takes."""
        if not error.refused:
            return False
        ident, count = self._refusals
        self._refusals = (row.id, count + 1 if ident == row.id else 1)
        return self._refusals[1] >= REFUSALS

    async def close(self) -> None:
        """See `Target.close`."""
        await self._channel.close()


class Output:
    """One output. `step` reads on and brings what it can."""

    def __init__(
        self, settings: OutputSettings, results: ResultStore, *, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self.name = settings.name
        self._condition = _condition(settings)
        self._results = results
        self._clock = clock
        self._target = _target(settings, clock)
        self._picks: list[Pick] = []
        self._cursor: int | None = None  # read up to here
        self._kept = 0  # and committed up to here
        self._since = 0.0  # when the oldest pick came
        self._kept_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. What is in hand is not lost: it is read again. Why it waits is kept for people to see."""
        failures = 0
        while not stop.is_set():
            try:
                if await self.step(WAIT) or failures == 0:
                    failures = await self._well(failures)
            except BackendError as error:
                failures += 1
                log.warning("an output waits", output=self.name, attempt=failures, error=str(error))
                with contextlib.suppress(BackendError):
                    await self._trouble(failures, str(error))
                await sleep(stop, backoff(failures, cap=LONGEST_PAUSE))
            except Exception:
                failures += 1
                log.exception("an output broke", output=self.name)  # its bug must not stop the others
                await sleep(stop, backoff(failures, cap=LONGEST_PAUSE))
        await self._target.close()

    async def _trouble(self, failures: int, error: str) -> None:
        await self._lag()
        told = {"attempts": failures, "error": printable(error, 500), "at": self._clock()}
        await self._results.commit_alerts(
            state={f"outputs/{self.name}/trouble": msgspec.json.encode(told)}, alerts=[], deliveries=[]
        )

    async def _well(self, failures: int) -> int:
        """It goes on: no failures any more."""
        if failures:
            await self._results.commit_alerts(state={f"outputs/{self.name}/trouble": b""}, alerts=[], deliveries=[])
        return 0

    async def step(self, wait: float = 0.0, *, flush: bool = False) -> int:
        """Read on unless enough is in hand, and bring it where it is time to. Returns how many were told.

        Raises ChannelError where the other side does not take it now, StoreError.
        """
        if self._cursor is None:
            await self._load()
        if len(self._picks) < self._target.most:
            await self._read(0.0 if self._picks and not self._target.patience else wait)
        now = asyncio.get_running_loop().time()
        due = len(self._picks) >= self._target.most or now - self._since >= self._target.patience or flush
        if self._picks and due:
            return await self._bring()
        if not self._picks and self._cursor != self._kept and now - self._kept_at >= KEEP_EVERY:
            await self._keep([], self._cursor or 0)
            await self._lag()
        return 0

    async def _load(self) -> None:
        """Go on where it stopped; a new output begins with what is recorded from now on."""
        kept = await self._results.load_state(self._state)
        newest = await self._results.last_seq()
        self._cursor = self._kept = newest if kept is None else min(int(kept), newest)
        await self._keep([], self._cursor)

    async def _read(self, wait: float) -> None:
        events = await self._results.tail(self._cursor or 0, PAGE, wait=wait)
        if not events:
            return
        fresh = await asyncio.to_thread(self._fitting, events)
        if fresh and not self._picks:
            self._since = asyncio.get_running_loop().time()
        self._picks += fresh
        self._cursor = events[-1].seq

    def _fitting(self, events: Sequence[Event]) -> list[Pick]:
        """In a thread."""
        picks = []
        for event in events:
            if event.kind == "result":
                try:
                    result = msgspec.convert(event.body, Result)
                except msgspec.ValidationError:
                    continue  # it was erased since
                if any(self._condition(hit) for hit in hits_of(result)):
                    picks.append(Pick(event.seq, result))
        return picks

    async def _bring(self) -> int:
        picks = self._picks[: self._target.most]
        done = await self._target.put([self._row(pick) for pick in picks], picks)
        rest = self._picks[len(done) :]
        await self._keep(done, self._cursor or 0 if not rest else picks[len(done) - 1].seq)
        self._picks = rest
        self._since = asyncio.get_running_loop().time()
        for row in done:
            OUTPUTS.labels(self.name, row.state).inc()
        await self._lag()
        return len(done)

    def _row(self, pick: Pick) -> DeliveryRow:
        result = pick.result
        label = f"{result.camera or result.site}: " + (", ".join(_labels(result)) or result.status)
        return DeliveryRow(
            id=derived_id(result.received_at, "output", self.name, result.id),
            alert_id="",
            channel=self.name,
            payload=notification.recorded(result.completed_at, printable(label, 200), msgspec.to_builtins(result)),
            captured_at=result.captured_at,
            next_at=self._clock(),
            kind="output",
            site=result.site,
        )

    async def _keep(self, done: Sequence[DeliveryRow], cursor: int) -> None:
        """The record and the cursor in one transaction."""
        await self._results.commit_alerts(state={self._state: str(cursor).encode()}, alerts=[], deliveries=done)
        self._kept, self._kept_at = cursor, asyncio.get_running_loop().time()

    async def _lag(self) -> None:
        newest = await self._results.last_seq()
        OUTPUT_LAG.labels(self.name).set(max(0, newest - self._kept))

    @property
    def _state(self) -> str:
        return f"outputs/{self.name}/cursor"


class OutputService:
    """All outputs, each in its own task. It owns `results` and closes it. Raises ConfigError for one that cannot work."""

    def __init__(self, settings: Sequence[OutputSettings], results: ResultStore) -> None:
        self._outputs = [Output(each, results) for each in settings]
        self._results = results

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        await self._results.upgrade()
        try:
            await asyncio.gather(self._tidy(stop), *(output.run(stop) for output in self._outputs))
        finally:
            await self._results.close()

    async def _tidy(self, stop: asyncio.Event) -> None:
        """Forget what was delivered long ago: one row for each result would outgrow everything else."""
        while not stop.is_set():
            try:
                await self._results.forget_deliveries("output", utcnow() - KEPT)
            except BackendError as error:
                log.warning("old deliveries of outputs are not forgotten yet", error=str(error))
            await sleep(stop, TIDY_EVERY)


def _condition(settings: OutputSettings) -> Condition:
    try:
        return compile_condition(settings.when) if settings.when else lambda _hit: True
    except ConfigError as error:
        raise ConfigError(f"outputs {settings.name!r}: {error}") from error


def _target(settings: OutputSettings, clock: Callable[[], datetime]) -> Target:
    if urlsplit(settings.url).scheme == "file":
        return CsvDrop(settings, clock)
    return Told(output_channel(settings), clock)


async def check_output(settings: OutputSettings) -> None:
    """Raises ConfigError where it cannot work."""
    _condition(settings)
    await _target(settings, utcnow).close()


def output_channel(settings: OutputSettings) -> Channel:
    """The channel behind an output; that of CSV files takes only what is sent again by hand. Raises ConfigError."""
    scheme = urlsplit(settings.url).scheme
    if scheme not in {"http", "https", "mqtt", "mqtts"}:
        raise ConfigError(
            f"outputs {settings.name!r}: {scheme!r} is no output; there are file, http, https, mqtt and mqtts"
        )
    asked = ChannelSettings(name=settings.name, url=settings.url, secret=settings.secret, allow=settings.allow)
    return open_channel(asked)


def _labels(result: Result) -> list[str]:
    found: list[Detection | Classification] = [*result.detections, *result.classifications]
    return sorted({each.label for each in found})
