"""The alerts role: engine, sender and upkeep side by side."""

import asyncio
from collections.abc import Collection, Sequence

from eyeline.alerts.book import RuleBook
from eyeline.alerts.channels import LOG, open_channel
from eyeline.alerts.channels.base import Channel, Pictures, no_picture
from eyeline.alerts.engine import AlertEngine
from eyeline.alerts.outputs import output_channel
from eyeline.alerts.policy import Policy
from eyeline.alerts.sender import Sender
from eyeline.alerts.switch import Switched
from eyeline.alerts.upkeep import Upkeep
from eyeline.core.errors import BackendError
from eyeline.core.retry import backoff
from eyeline.core.service import sleep
from eyeline.core.settings import AlertSettings, OutputSettings, SiteSettings
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import ResultStore

log = logger("alerts")

#: Seconds that one step may wait for events; a stop is heard at least that often.
WAIT = 0.5


class AlertService:
    """Raises and delivers alerts until stopped. It owns `results` and closes it. `pictures` are shown where a channel can.

    `cameras`: those that are defined, whose agents are missed when they fall silent. Raises ConfigError for a rule or a
    channel that cannot work, naming it.
    """

    def __init__(
        self,
        settings: AlertSettings,
        results: ResultStore,
        *,
        sites: Sequence[SiteSettings] = (),
        cameras: Collection[str] | None = None,
        outputs: Sequence[OutputSettings] = (),
        pictures: Pictures = no_picture,
    ) -> None:
        defined = {channel.name: channel for channel in (LOG, *settings.channels)}
        policy = Policy(sites, settings.channels, settings.escalations, settings.silences)
        self._results = results
        self._book = RuleBook(settings, results)
        self._engine = AlertEngine([], results, cameras=cameras, reload=self._book.rules)
        self._channels: dict[str, Channel] = {
            name: Switched(open_channel(channel, pictures), channel, results) for name, channel in defined.items()
        }
        # what an output set aside is sent again by hand
        self._channels |= {each.name: output_channel(each) for each in outputs if not each.url.startswith("file:")}
        self._upkeep = Upkeep(policy, results, self._wake)
        self._sender = Sender(self._channels, results, gate=self._upkeep.gate)

    def _wake(self) -> None:
        self._sender.wake()

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        await self._results.upgrade()
        beside = [asyncio.create_task(task.run(stop)) for task in (self._sender, self._upkeep)]
        try:
            await self._read_on(stop)
        finally:
            stop.set()
            self._sender.wake()
            await asyncio.gather(*beside)
            await asyncio.gather(*(channel.close() for channel in self._channels.values()))
            await self._results.close()

    async def _read_on(self, stop: asyncio.Event) -> None:
        """Load, then step, with pauses that grow while the store is away; keep the progress at the end."""
        loaded, failures = False, 0
        while not stop.is_set():
            try:
                if not loaded:
                    await self._engine.load()
                    loaded = True
                _, due = await self._engine.step(WAIT)
                failures = 0
            except BackendError as error:
                failures += 1
                log.warning("alerts wait: the result store does not answer", error=str(error))
                await sleep(stop, backoff(failures, cap=10.0))
                continue
            if due:
                self._sender.wake()
        if loaded:
            await self._engine.keep()
