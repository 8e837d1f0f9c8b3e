"""Channels and outputs: how each does, a test of a channel, and what has failed sent again; for the API and the page."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import Conflict, NotFound
from eyeline.core.ids import uuid7
from eyeline.core.settings import ChannelSettings, OutputSettings, Settings, place
from eyeline.core.telemetry import printable
from eyeline.gateway.state import unknown_id
from eyeline.stores.results.base import Action, ChannelState, DeliveryRow, ResultStore, off_state

LOG: dict[str, Any] = {"name": "log", "kind": "log", "where": "log:", "to": [], "quiet": [], "off": None}


class Outlets:
    """What leaves the house, and what does not get out."""

    def __init__(self, settings: Settings, results: ResultStore) -> None:
        self._settings = settings
        self._results = results

    async def channels(self, who: Principal) -> list[dict[str, Any]]:
        """The channels of the settings: of each URL only the kind and the host, for the rest may be a secret."""
        told = [LOG] + [
            {
                "name": channel.name,
                "kind": urlsplit(channel.url).scheme,
                "where": place(channel.url),
                "to": list(channel.to),
                "quiet": list(channel.quiet),
                "off": await self._off(channel),
            }
            for channel in self._settings.alerts.channels
        ]
        states = await self._results.channel_states([each["name"] for each in told], sites=who.sites)
        return [each | asdict(states[each["name"]]) for each in told]

    async def _off(self, channel: ChannelSettings) -> dict[str, Any] | None:
        """Since when and why nothing is sent there, where it is switched off."""
        kept = await self._results.load_state(off_state(channel.name, channel.url))
        return msgspec.json.decode(kept) if kept else None

    async def outputs(self, who: Principal) -> list[dict[str, Any]]:
        """The outputs; `lag`: events of which it is not known yet whether they are told. Those wait in the log, not as
        deliveries.
        """
        outputs, newest = self._settings.outputs, await self._results.last_seq()
        states = await self._results.channel_states([output.name for output in outputs], sites=who.sites)
        return [await self._output(output, newest, states[output.name]) for output in outputs]

    async def _output(self, output: OutputSettings, newest: int, state: ChannelState) -> dict[str, Any]:
        cursor = await self._results.load_state(f"outputs/{output.name}/cursor")
        trouble = await self._results.load_state(f"outputs/{output.name}/trouble")
        lag = None if cursor is None else max(0, newest - int(cursor))
        told: dict[str, Any] = {
            "name": output.name,
            "kind": urlsplit(output.url).scheme,
            "where": place(output.url),
            "when": output.when,
            "lag": lag,
            "trouble": msgspec.json.decode(trouble) if trouble else None,
        }
        told |= asdict(state)
        if cursor is not None and lag:
            [*left] = await self._results.tail(int(cursor), 1)
            told["since"] = min((each for each in (state.since, *(event.at for event in left)) if each), default=None)
        return told

    async def test(self, who: Principal, name: str, wait: float) -> DeliveryRow:
        """Send a test to a channel; the delivery after it was tried, or as it is after so many seconds. Raises NotFound."""
        known = ["log", *(channel.name for channel in self._settings.alerts.channels)]
        if name not in known:
            raise NotFound(f"no channel is called {printable(name, 60)!r}; known: {', '.join(known)}")
        row = _test(name, who.name)
        await self._results.commit_alerts(state={}, alerts=[], deliveries=[row])
        body = {"name": name, "delivery": row.id}
        await self._results.record_action(Action(what="channel.test", by=who.name, body=body))
        until = asyncio.get_running_loop().time() + wait
        while row.state == "pending" and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.2)
            row = await self._results.get_delivery(row.id) or row
        return row

    async def again(self, who: Principal, id: str) -> DeliveryRow:  # noqa: A002
        """Send a failed one again, under its id. Raises NotFound for one out of reach, Conflict for one that has not failed."""
        row = await self.delivery(who, id)
        action = Action(what="delivery.retry", by=who.name, body={"delivery": id, "channel": row.channel})
        if not await self._results.retry_delivery(id, utcnow(), action):
            raise Conflict(f"the delivery is {row.state}, not failed; only what has failed is sent again")
        return await self._results.get_delivery(id) or row

    async def delivery(self, who: Principal, id: str) -> DeliveryRow:  # noqa: A002
        """One that this one may see. Raises NotFound."""
        row = await self._results.get_delivery(id)
        if row is None or (who.sites is not None and row.site not in who.sites):
            raise unknown_id("delivery", id)
        return row


def _test(name: str, by: str) -> DeliveryRow:
    now = utcnow()
    text = f"a test of the channel {name}" + (f", asked for by {by}" if by else "")
    told: Mapping[str, Any] = {
        "type": "channel.test",
        "timestamp": isoformat(now),
        "text": text,
        "data": {"channel": name},
    }
    return DeliveryRow(
        id=uuid7(),
        alert_id="",
        channel=name,
        payload=msgspec.json.encode(told),
        captured_at=now,
        next_at=now,
        kind="test",
    )
