"""Channels and outputs as the system page shows them: how each does, what failed last, and what came of a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from eyeline.core.access import Principal
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import NotFound
from eyeline.stores.results.base import DeliveryQuery, DeliveryRow, ResultStore

#: Failed deliveries on the page; the API gives the rest.
FAILED = 10
#: Seconds after which what waits is a warning: somebody has not been told for so long.
LATE = 300.0


class Outlets(Protocol):
    """What the page knows of channels and outputs; the API tells the same."""

    async def channels(self, who: Principal) -> list[dict[str, Any]]:
        """All channels, each with how it does."""
        ...

    async def outputs(self, who: Principal) -> list[dict[str, Any]]:
        """All outputs, each with how far it is behind, and why."""
        ...

    async def test(self, who: Principal, name: str, wait: float) -> DeliveryRow:
        """Send a test to a channel. Raises NotFound."""
        ...

    async def again(self, who: Principal, id: str) -> DeliveryRow:  # noqa: A002
        """Send a failed one again. Raises NotFound, Conflict."""
        ...

    async def delivery(self, who: Principal, id: str) -> DeliveryRow:  # noqa: A002
        """One that this one may see. Raises NotFound."""
        ...


@dataclass(frozen=True, kw_only=True)
class OutletView:
    """A channel, or an output. `waiting`: deliveries; `lag`: an output's events that it did not get to yet."""

    name: str
    output: bool
    where: str
    state: str
    waiting: int
    held: int
    lag: int
    since: datetime | None
    failed: int
    delivered_at: datetime | None
    error: str
    error_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class DeliveryView:
    """A delivery: to whom, what about, and what came of it."""

    id: str
    channel: str
    kind: str
    state: str
    made_at: datetime
    attempts: int
    words: str


async def outlets(source: Outlets, who: Principal) -> list[OutletView]:
    """Channels, then outputs."""
    channels = [_outlet(each, output=False) for each in await source.channels(who)]
    return channels + [_outlet(each, output=True) for each in await source.outputs(who)]


async def failed(results: ResultStore, who: Principal) -> tuple[list[DeliveryView], bool]:
    """The newest that failed, and whether there are more."""
    found, following = await results.find_deliveries(DeliveryQuery(sites=who.sites, state="failed", limit=FAILED))
    return [_delivery(row) for row in found], following is not None


async def settled(source: Outlets, who: Principal, id: str | None) -> DeliveryView | None:  # noqa: A002
    """What came of the delivery that was just sent."""
    try:
        return _delivery(await source.delivery(who, id)) if id else None
    except NotFound:
        return None


def _outlet(told: Mapping[str, Any], *, output: bool) -> OutletView:
    trouble = told.get("trouble") or told.get("off") or {}
    error = trouble.get("error") or told["error"] or ""
    late = told["since"] is not None and (utcnow() - told["since"]).total_seconds() > LATE
    return OutletView(
        name=told["name"],
        output=output,
        where=told["where"],
        state="warning" if error or late else "unused" if told["delivered_at"] is None else "ok",
        waiting=told["waiting"],
        held=told["held"],
        lag=told.get("lag") or 0,
        since=told["since"],
        failed=told["failed"],
        delivered_at=told["delivered_at"],
        error=error,
        error_at=parse_time(trouble["at"]) if "at" in trouble else None,
    )


def _delivery(row: DeliveryRow) -> DeliveryView:
    return DeliveryView(
        id=row.id,
        channel=row.channel,
        kind=row.kind,
        state=row.state,
        made_at=row.captured_at,
        attempts=row.attempts,
        words=row.last_error or row.answer or "",
    )
