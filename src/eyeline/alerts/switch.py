"""Switches a channel off whose receiver said that it is gone for good (410), and on again when a test arrives there.

Kept in the store, so that it outlives a restart, and audited. It is about the address: another `url` in the settings is tried.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from eyeline.alerts.channels.base import Channel
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import ChannelError, StoreError
from eyeline.core.settings import ChannelSettings
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import Action, DeliveryRow, ResultStore, off_state

log = logger("alerts")


class Switched:
    """A channel behind its switch. Only tests pass while it is off."""

    def __init__(
        self,
        channel: Channel,
        settings: ChannelSettings,
        results: ResultStore,
        *,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._channel = channel
        self._name = settings.name
        self._kept = off_state(settings.name, settings.url)
        self._results = results
        self._clock = clock
        self._turning = asyncio.Lock()

    async def send(self, delivery: DeliveryRow) -> str:
        """See `Channel.send`. Where the store does not answer it is not decided, and tried again."""
        try:
            return await self._send(delivery)
        except StoreError as error:
            raise ChannelError(f"the result store does not answer: {error}") from error

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._channel.close()

    async def _send(self, delivery: DeliveryRow) -> str:
        if delivery.kind != "test" and (why := await self._off()):
            raise ChannelError(why, transient=False)
        try:
            answer = await self._channel.send(delivery)
        except ChannelError as error:
            if not error.gone:
                raise
            raise ChannelError(await self._turn_off(delivery), transient=False) from error
        if delivery.kind == "test":
            await self._turn_on(delivery)
        return answer

    async def _off(self) -> str:
        """Why it is off; empty where it is on."""
        kept = await self._results.load_state(self._kept)
        return str(msgspec.json.decode(kept)["error"]) if kept else ""

    async def _turn_off(self, delivery: DeliveryRow) -> str:
        """Kept before the delivery that heard it is given up; those under way beside it hear the same, and it is kept once."""
        async with self._turning:
            if why := await self._off():
                return why
            at = isoformat(self._clock())
            why = (
                f"the receiver answered 410 Gone ({at}): the channel is switched off, nothing is sent there. Correct its url in "
                "eyeline.toml, or send it a test from the page System: one that arrives switches it on again"
            )
            await self._keep("channel.off", delivery, msgspec.json.encode({"at": at, "error": why}), answer="410 Gone")
            log.error("a channel is switched off", channel=self._name, reason=why)
            return why

    async def _turn_on(self, delivery: DeliveryRow) -> None:
        if await self._off():
            await self._keep("channel.on", delivery, b"")
            log.info("a channel is switched on again", channel=self._name)

    async def _keep(self, what: str, delivery: DeliveryRow, value: bytes, **more: Any) -> None:
        body = {"name": self._name, "delivery": delivery.id, **more}
        await self._results.keep_state(self._kept, value, Action(what=what, body=body))
