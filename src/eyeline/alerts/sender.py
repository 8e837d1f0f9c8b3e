"""Sends the notifications that are due, each channel on its own, and keeps what came of each attempt."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from eyeline.alerts.channels.base import Channel
from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError, ChannelError
from eyeline.core.retry import backoff
from eyeline.core.telemetry import ALERT_DELIVERY, logger, printable
from eyeline.stores.results.base import DeliveryRow, ResultStore

log = logger("alerts")

#: Seconds before each next attempt, as Standard Webhooks suggests: three days and a half in all.
SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
#: Attempts of one channel at the same time; others have their own.
AT_ONCE = 4
#: Notifications to unknown channels that are looked at together.
PAGE = 100
#: Seconds between two looks at the table when nothing is announced.
PAUSE = 0.5
#: Seconds that attempts under way are given at the stop.
DRAIN = 5.0

#: Says what is kept of a notification instead of sending it now; None: send it.
Gate = Callable[[DeliveryRow], Awaitable[DeliveryRow | None]]


async def always(_: DeliveryRow) -> None:
    """The gate that is always open."""


class Sender:
    """Delivers from the table of `results` through `channels`; `wake()` announces new ones."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        results: ResultStore,
        *,
        gate: Gate = always,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._channels = dict(channels)
        self._results = results
        self._gate = gate
        self._clock = clock
        self._sending: dict[str, dict[str, asyncio.Task[None]]] = {name: {} for name in channels}
        self._hungry = set(channels)
        self._news = asyncio.Event()

    def wake(self) -> None:
        """There is something new to deliver."""
        self._hungry.update(self._channels)
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set. An attempt that does not end soon then is made again, with its id, by the next run."""
        failures = 0
        while not stop.is_set():
            try:
                await self.look(self._take_hungry())
                failures = 0
                pause = PAUSE
            except BackendError as error:
                failures += 1
                pause = backoff(failures, cap=10.0)
                log.warning("notifications wait: the result store does not answer", error=str(error))
            await self._pause(pause)
        await self._drain()

    def _take_hungry(self) -> set[str]:
        self._news.clear()
        hungry, self._hungry = self._hungry, set()
        return hungry

    async def look(self, channels: Collection[str] | None = None) -> None:
        """Start an attempt for each notification that is due and not under way, as many as each of these channels (all, where
        none are named) has hands for.
        """
        for name in sorted(self._channels if channels is None else channels):
            under_way = self._sending[name]
            busy = set(under_way)  # one that ends while the table is read may stand in it as due
            if len(under_way) < AT_ONCE:
                for row in await self._results.due_deliveries(self._clock(), AT_ONCE, name):
                    if row.id not in busy and len(under_way) < AT_ONCE:
                        under_way[row.id] = task = asyncio.create_task(self._deliver(row))
                        task.add_done_callback(partial(self._sent, name, row.id))
        if channels is None or len(channels) == len(self._channels):
            await self._fail_unknown()

    def _sent(self, channel: str, ident: str, _task: asyncio.Task[None]) -> None:
        """A hand is free: the channel is looked at again at once, and it alone."""
        del self._sending[channel][ident]
        self._hungry.add(channel)
        self._news.set()

    async def settled(self) -> None:
        """Wait until no attempt is under way."""
        while tasks := self._under_way():
            await asyncio.wait(tasks)

    def _under_way(self) -> list[asyncio.Task[None]]:
        return [task for tasks in self._sending.values() for task in tasks.values()]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            self._hungry.update(self._channels)

    async def _drain(self) -> None:
        """Let attempts under way end, for a while."""
        tasks = self._under_way()
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fail_unknown(self) -> None:
        """What goes to a channel that is not defined (any more) will never be sent."""
        known = sorted(self._channels)
        for row in await self._results.due_deliveries(self._clock(), PAGE, but=known):
            why = f"no channel {row.channel!r}; there are: {', '.join(known)}"
            await self._record(replace(row, state="failed", last_error=why))

    async def _deliver(self, row: DeliveryRow) -> None:
        try:
            instead = await self._gate(row)
        except BackendError as error:
            log.warning("a notification waits: the result store does not answer", delivery=row.id, error=str(error))
            await asyncio.sleep(PAUSE)
            return  # it is still due
        await self._record(instead or await self._attempt(self._channels[row.channel], row))

    async def _attempt(self, channel: Channel, row: DeliveryRow) -> DeliveryRow:
        """One attempt; the row as it is afterwards."""
        tried = replace(row, attempts=row.attempts + 1)
        try:
            answer = await channel.send(row)
        except ChannelError as error:
            return self._after_failure(tried, str(error), again=error.transient)
        except Exception as error:
            log.exception("a channel broke", channel=row.channel)  # its bug must not stop the others
            return self._after_failure(tried, repr(error), again=True)
        now = self._clock()
        if row.kind == "alert":
            ALERT_DELIVERY.labels(row.channel).observe(max(0.0, (now - row.captured_at).total_seconds()))
        return replace(tried, state="delivered", delivered_at=now, last_error=None, answer=printable(answer, 500))

    def _after_failure(self, row: DeliveryRow, error: str, *, again: bool) -> DeliveryRow:
        failed = replace(row, last_error=error, answer=None)
        log.warning("not delivered", delivery=row.id, channel=row.channel, attempt=row.attempts, error=error)
        if not again or row.kind == "test" or row.attempts > len(SCHEDULE):
            return replace(failed, state="failed")
        return replace(failed, next_at=self._clock() + timedelta(seconds=pause_after(row.attempts)))

    async def _record(self, row: DeliveryRow) -> None:
        """Keep the outcome, however long the store takes: an outcome forgotten is a notification repeated."""
        failures = 0
        while True:
            try:
                await self._results.update_delivery(row)
            except BackendError as error:
                failures += 1
                log.warning("an outcome waits to be kept", delivery=row.id, error=str(error))
                await asyncio.sleep(backoff(failures, cap=10.0))
            else:
                return


def pause_after(attempts: int) -> float:
    """Seconds before the attempt after `attempts` failed ones (from 1), up to a fifth longer, so that many do not meet."""
    return SCHEDULE[attempts - 1] * random.uniform(1.0, 1.2)
