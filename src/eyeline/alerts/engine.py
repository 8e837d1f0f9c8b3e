"""The alert engine: reads the event log by cursor, has its rules evaluated, keeps cases and the notifications they owe.

What it remembers, the alerts and the notifications are committed together with the cursor, and ids are derived from
rule, cause and the result that opened the alert. So a crash on any line means that events are read again: nothing is
missed, nothing gets a second id.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from eyeline.alerts import notification
from eyeline.alerts.agents import LOOK_EVERY, AgentWatch
from eyeline.alerts.causes import LATEST, Memory
from eyeline.alerts.drift import DriftWatch
from eyeline.alerts.evaluator import Change, Evaluator
from eyeline.alerts.rules import Rule
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.ids import derived_id
from eyeline.core.telemetry import logger
from eyeline.core.types import Event, Result
from eyeline.stores.results.base import ENGINE_CHECKED, AlertRow, DeliveryRow, ResultStore

log = logger("alerts")

#: Events read at a time, and seconds after which progress without an alert is kept; and, without any, that it looked.
PAGE = 500
KEEP_EVERY, CHECK_EVERY = 1.0, 5.0
#: Seconds after a start in which nothing is missed yet: cameras and workers may be starting, too.
SETTLE = 60.0

Reload = Callable[[], Awaitable[Sequence[Rule]]]

CURSOR = "alerts/cursor"
DRIFT = "alerts/drift"
AGENTS = "alerts/agents"


class AlertEngine:
    """Evaluates `rules` over the events of `results`. One `step` reads one page and commits what must not be lost.

    `cameras`: those that there are, so that agents are missed; None: all that ever reported. `reload`: asked for the rules at
    the start, and whenever the log says that people changed some.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        results: ResultStore,
        *,
        cameras: Collection[str] | None = None,
        reload: Reload | None = None,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._rules = tuple(rules)
        self._results = results
        self._cameras = cameras
        self._reload = reload
        self._stale = reload is not None
        self._clock = clock
        self._evaluator = Evaluator()
        self._cursor = 0
        self._kept_cursor = 0
        self._kept_at = 0.0
        self._history_until: datetime | None = None
        self._began = clock()
        self._ticked = self._looked = 0.0
        self._forgotten: set[str] = set()
        self._alerts: dict[str, AlertRow] = {}
        self._deliveries: list[DeliveryRow] = []
        self._drift: DriftWatch | None = None
        self._agents = AgentWatch(cameras)
        self._told: list[tuple[str, dict[str, Any]]] = []

    async def load(self) -> None:
        """Go on where the last engine stopped. A rule that it did not know counts from now on; one that was made at a known time,
        from then on.
        """
        rules = self._rules if self._reload is None else await self._reload()
        cursor = await self._results.load_state(CURSOR)
        newest = await self._results.last_seq()
        if cursor is None:  # the very first start: what is being recorded while we start counts, older history does not
            self._history_until = self._clock() - timedelta(seconds=LATEST)
        self._cursor = self._kept_cursor = min(int(cursor or 0), newest)
        self._agents = AgentWatch(self._cameras, await self._results.load_state(AGENTS))
        self._began = self._clock()
        await self._take(rules, since=0 if cursor is None else newest)
        self._stale = False
        if not self._rules:
            self._cursor = newest
        await self.keep()

    async def take(self, rules: Sequence[Rule]) -> None:
        """These are the rules from the next event on. What is remembered of those that stay as they are stays."""
        if [(rule.settings, rule.since) for rule in rules] == [(rule.settings, rule.since) for rule in self._rules]:
            return
        await self.keep()
        await self._take(rules, since=self._cursor)
        await self.keep()

    async def _take(self, rules: Sequence[Rule], since: int) -> None:
        """`since` is where rules without a date begin; one that was made at a known time misses nothing after it."""
        known = self._evaluator.memories
        memories, fresh = {}, set()
        for rule in rules:
            memories[rule.digest] = known.get(rule.digest) or await self._remembered(rule, since)
            fresh |= {rule.digest} - known.keys()
        self._forgotten |= known.keys() - memories.keys()
        self._forgotten -= memories.keys()
        self._evaluator.take(rules, memories)
        self._evaluator.dirty |= fresh
        self._rules = tuple(rules)
        if self._drift is None and any(rule.about == "health" for rule in rules):
            self._drift = DriftWatch(await self._results.load_state(DRIFT))

    async def _remembered(self, rule: Rule, since: int) -> Memory:
        kept = await self._results.load_state(_name(rule.digest))
        if kept:
            return msgspec.json.decode(kept, type=Memory)
        return Memory(since=since if rule.since is None else 0)

    async def step(self, wait: float = 0.0) -> tuple[int, bool]:
        """Read on, waiting up to `wait` seconds for something new. Returns how many events there were, and whether
        notifications became due. Raises StoreError.
        """
        events = await self._results.tail(self._cursor, PAGE, wait=wait)
        for part in _up_to_changes(events):
            await self._reload_if_stale()
            await asyncio.to_thread(self._evaluate, part)
        await self._reload_if_stale()
        await self._look_at_agents()
        if len(events) < PAGE:  # before the end of the log, what is missed may be yet to come
            self._look_for_missing()
        await self._tell()
        due = bool(self._deliveries)
        if due or self._time_to_keep():
            await self.keep()
        return len(events), due

    async def _reload_if_stale(self) -> None:
        """A changed rule holds from the very event on that says so."""
        if self._stale and self._reload is not None:
            await self.take(await self._reload())
        self._stale = False

    async def _look_at_agents(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._told += self._agents.look(await self._results.cameras(), now)

    def _look_for_missing(self) -> None:
        """Once a second: what did not come has no event of its own."""
        now = self._clock()
        if now.timestamp() - self._ticked >= 1.0 and (now - self._began).total_seconds() >= SETTLE:
            self._ticked = now.timestamp()
            self._note(self._evaluator.tick(now, self._agents.offline))

    async def _tell(self) -> None:
        """What began or ended to drift, and whose agent fell silent, becomes an event, as other health of cameras is; rules see
        it when it is read.
        """
        for site, body in self._told:
            await self._results.add_event("system", site, body)
        self._told.clear()

    async def keep(self) -> None:
        """Commit cursor, memories, alerts and notifications together. What fails to commit is committed next time."""
        memories = self._evaluator.memories
        state = {_name(digest): msgspec.json.encode(memories[digest]) for digest in self._evaluator.dirty}
        state |= {_name(digest): b"" for digest in self._forgotten}
        state[CURSOR] = str(self._cursor).encode()
        state[ENGINE_CHECKED] = isoformat(self._clock()).encode()
        if self._drift is not None and self._drift.dirty:
            state[DRIFT] = self._drift.kept()
        if self._agents.dirty:
            state[AGENTS] = self._agents.kept()
        await self._results.commit_alerts(
            state=state, alerts=list(self._alerts.values()), deliveries=list(self._deliveries)
        )
        self._evaluator.dirty.clear()
        self._forgotten.clear()
        self._alerts.clear()
        self._deliveries.clear()
        self._kept_cursor = self._cursor
        self._kept_at = asyncio.get_running_loop().time()

    def _time_to_keep(self) -> bool:
        idle = asyncio.get_running_loop().time() - self._kept_at
        news = self._cursor != self._kept_cursor or self._alerts or self._agents.dirty
        return idle >= (KEEP_EVERY if news else CHECK_EVERY)

    def _evaluate(self, events: Sequence[Event]) -> None:
        for event in events:
            if not self._is_history(event):
                self._note(self._evaluator.observe(event))
                self._watch_drift(event)
            self._cursor = event.seq
            self._stale |= _changes_rules(event)
        self._evaluator.tidy(events[-1].at.timestamp())

    def _is_history(self, event: Event) -> bool:
        return self._history_until is not None and event.at < self._history_until

    def _watch_drift(self, event: Event) -> None:
        if self._drift is None or event.kind != "result" or event.body.get("erased"):
            return
        try:
            result = msgspec.convert(event.body, Result)
        except msgspec.ValidationError:
            return  # the evaluator has said so
        if (result.received_at - result.captured_at).total_seconds() <= LATEST:
            self._told += self._drift.observe(result)

    def _note(self, changes: Iterable[Change]) -> None:
        """What is to be committed next."""
        for outcome, rule, alert, result in changes:
            self._alerts[alert.id] = alert
            if outcome == "opened":
                self._deliveries += _deliveries(rule, alert, notification.opened(alert, result), self._clock())
            if outcome != "updated":
                log.info("alert", alert=alert.id, outcome=outcome, rule=rule.name, cause=alert.cause, site=alert.site)


def _changes_rules(event: Event) -> bool:
    return event.kind == "system" and event.body.get("type") == "rule"


def _up_to_changes(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """The events in parts that each end where rules changed."""
    first = 0
    for at, event in enumerate(events):
        if _changes_rules(event) or at == len(events) - 1:
            yield events[first : at + 1]
            first = at + 1


def _deliveries(rule: Rule, alert: AlertRow, payload: bytes, now: datetime) -> list[DeliveryRow]:
    """One notification for each channel; its id comes of the alert's, however often it is made."""
    return [
        DeliveryRow(
            id=derived_id(alert.opened_at, alert.id, channel),
            alert_id=alert.id,
            channel=channel,
            payload=payload,
            captured_at=alert.opened_at,
            next_at=now,
        )
        for channel in rule.notify
    ]


def _name(digest: str) -> str:
    return f"alerts/rule/{digest}"
