"""What the clock does to alerts: escalations, the ends of snoozes, summaries of quiet hours. And the gate of the sender.

Every step is committed only where the alert still is as it was looked at, with the notifications that it owes: done twice, or by
two engines at once, it is told once.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from eyeline.alerts import notification
from eyeline.alerts.policy import Policy
from eyeline.core.cases import Timed
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import BackendError
from eyeline.core.ids import derived_id
from eyeline.core.retry import backoff
from eyeline.core.service import sleep
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import AlertQuery, AlertRow, DeliveryKind, DeliveryRow, HistoryRow, ResultStore

log = logger("alerts")

#: Seconds between two rounds, and for which the silences that people made are remembered.
ROUND, REMEMBER = 1.0, 1.0
#: Alerts and deliveries looked at in one round.
PAGE = 500
#: An alert that nobody acknowledged for so long beyond its last escalation is not escalated any more: at the first start with
#: escalations, old ones are left in peace.
OLDEST = timedelta(days=1)
#: Notifications about no alert, and what is sent whenever it is asked for.
_UNGATED = {"test", "report", "summary", "output"}


class Upkeep:
    """Goes its round over the alerts of `results`; `wake` is called when something became due."""

    def __init__(
        self, policy: Policy, results: ResultStore, wake: Callable[[], None], *, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self._policy = policy
        self._results = results
        self._wake = wake
        self._clock = clock
        self._looked = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        failures = 0
        while not stop.is_set():
            try:
                await self.round()
                failures = 0
            except BackendError as error:
                failures += 1
                log.warning("escalations wait: the result store does not answer", error=str(error))
            except Exception:
                failures += 1
                log.exception("escalations broke")  # a bug here must not end them
            await sleep(stop, max(ROUND, backoff(failures, cap=10.0) if failures else 0.0))

    async def round(self) -> None:
        """One look at everything. Raises StoreError."""
        told = [await self._remind(), await self._escalate(), await self._summarise()]
        if any(told):
            self._wake()

    async def gate(self, row: DeliveryRow) -> DeliveryRow | None:
        """See `sender.Gate`. When in doubt it is sent."""
        alert = None if row.kind in _UNGATED else await self._results.get_alert(row.alert_id)
        if alert is None:
            return None
        await self._remember()
        return self._policy.judged(row, alert, self._clock())

    async def _remember(self) -> None:
        if time.monotonic() - self._looked > REMEMBER:
            self._policy.silences = await self._results.silences(self._clock() - OLDEST * 7)
            self._looked = time.monotonic()

    async def _escalate(self) -> bool:
        """Tell the next tier of alerts that nobody acknowledged in time."""
        soonest = self._policy.soonest
        if soonest is None:
            return False
        await self._remember()
        now = self._clock()
        query = AlertQuery(
            states=["open"],
            snoozed=False,
            now=now,
            since=now - timedelta(seconds=self._policy.latest) - OLDEST,
            until=now - timedelta(seconds=soonest),
            limit=PAGE,
        )
        found, _ = await self._results.find_alerts(query)
        return any([await self._next_tier(alert, now) for alert in found])

    async def _next_tier(self, alert: AlertRow, now: datetime) -> bool:
        tiers = self._policy.tiers(alert)
        if alert.snoozed_until is not None or self._policy.silence_of(alert, alert.opened_at) is not None:
            return False
        if alert.tier >= len(tiers) or now < alert.opened_at + timedelta(seconds=tiers[alert.tier].after):
            return False
        rows = self._told(alert, "escalation", str(alert.tier), tiers[alert.tier].notify, now)
        entry = _entry(alert, "escalate", now, {"tier": alert.tier + 1, "told": list(tiers[alert.tier].notify)})
        return await self._results.step_alert(alert, entry, rows, tier=alert.tier + 1)

    async def _remind(self) -> bool:
        """Tell those again who were told before the snooze."""
        now = self._clock()
        return any([await self._awake(alert, now) for alert in await self._results.waking(now, PAGE)])

    async def _awake(self, alert: AlertRow, now: datetime) -> bool:
        told = [row.channel for row in await self._results.list_deliveries(alert.id) if row.kind == "alert"]
        until = "" if alert.snoozed_until is None else isoformat(alert.snoozed_until)
        rows = self._told(alert, "reminder", until, dict.fromkeys(told), now)
        return await self._results.step_alert(alert, _entry(alert, "wake", now, {}), rows, tier=alert.tier)

    def _told(
        self, alert: AlertRow, kind: DeliveryKind, which: str, channels: Iterable[str], now: datetime
    ) -> list[DeliveryRow]:
        payload = notification.repeated(alert, kind, now)
        return [
            DeliveryRow(
                id=derived_id(now, alert.id, kind, which, channel),
                alert_id=alert.id,
                channel=channel,
                payload=payload,
                captured_at=alert.opened_at,
                next_at=now,
                kind=kind,
            )
            for channel in channels
        ]

    async def _summarise(self) -> bool:
        """One notification for each channel instead of all that its quiet hours held back."""
        now = self._clock()
        held = sorted(await self._results.held_deliveries(now, PAGE), key=lambda row: row.channel)
        for channel, rows in groupby(held, key=lambda row: row.channel):
            await self._summary(channel, list(rows), now)
        return bool(held)

    async def _summary(self, channel: str, rows: Sequence[DeliveryRow], now: datetime) -> None:
        alerts = [alert for row in rows if (alert := await self._results.get_alert(row.alert_id)) is not None]
        first = min(rows, key=lambda row: row.id)
        summary = DeliveryRow(
            id=derived_id(first.next_at, "summary", channel, first.id),
            alert_id="",
            channel=channel,
            payload=notification.summarised(alerts, first.next_at),
            captured_at=min(row.captured_at for row in rows),
            next_at=now,
            kind="summary",
        )
        await self._results.summarise([row.id for row in rows], summary)


def _entry(alert: AlertRow, what: Timed, now: datetime, body: dict[str, object]) -> HistoryRow:
    return HistoryRow(
        id=derived_id(now, alert.id, what, str(alert.tier), str(alert.snoozed_until)),
        alert_id=alert.id,
        at=now,
        by="",
        what=what,
        version=alert.version,
        body=body,
    )
