"""What a rule would have done: the evaluator of the engine over what the event log holds, within limits."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from eyeline.alerts.causes import LATEST, Memory
from eyeline.alerts.evaluator import Change, Evaluator
from eyeline.alerts.rules import Rule
from eyeline.core.clock import parse_time
from eyeline.core.types import Event
from eyeline.stores.results.base import AlertRow, ResultStore

#: Events that are looked at, and seconds spent on them, at most; where there are more events, the newest ones.
MOST_EVENTS, LONGEST = 200_000, 20.0
PAGE = 500
#: Cases told in full, and cases compared with what was raised before.
FIRST, MOST_CASES = 14, 5000
HOUR = 3600.0


class Trial:
    """One rule, fresh, over events that are given to it in order."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._evaluator = Evaluator()
        self._evaluator.take([rule], {rule.digest: Memory()})
        self._hour: deque[float] = deque()
        self._ticked = 0.0
        self.events = 0
        self.fired = 0
        self.peak = 0
        self.cases: dict[str, AlertRow] = {}

    def see(self, events: Sequence[Event]) -> None:
        """Evaluate these. What is missed is looked for once a second, as the engine does."""
        for event in events:
            self.events += 1
            if event.kind == "alert":  # what people said of other cases
                continue
            self.tick(event.at)
            self._note(list(self._evaluator.observe(event)))
        if events:
            self._evaluator.tidy(events[-1].at.timestamp())

    def tick(self, now: datetime) -> None:
        """Time has come to here."""
        if self._rule.kind == "absence" and now.timestamp() - self._ticked >= 1.0:
            self._ticked = now.timestamp()
            self._note(list(self._evaluator.tick(now)))

    def _note(self, changes: Sequence[Change]) -> None:
        for outcome, _, alert, _ in changes:
            if outcome == "opened":
                self.fired += 1
                self._count(alert.opened_at.timestamp())
            if alert.id in self.cases or len(self.cases) < MOST_CASES:
                self.cases[alert.id] = alert

    def _count(self, moment: float) -> None:
        self._hour.append(moment)
        while self._hour[0] <= moment - HOUR:
            self._hour.popleft()
        self.peak = max(self.peak, len(self._hour))

    def would_raise(self, past: AlertRow) -> bool:
        """Whether a case of this trial stands where and when a past alert stood."""
        slack = LATEST + self._rule.within
        return any(
            case.site == past.site
            and case.body.get("camera") == past.body.get("camera")
            and case.opened_at.timestamp() <= past.last_at.timestamp() + slack
            and case.last_at.timestamp() >= past.opened_at.timestamp() - slack
            for case in self.cases.values()
        )


async def dry_run(
    rule: Rule, results: ResultStore, *, since: datetime, until: datetime, sites: Sequence[str] | None
) -> tuple[Trial, dict[str, Any]]:
    """Run the rule over the events of that time. `complete` is false where a limit cut it short: then `since` or `until` say
    what was looked at.
    """
    trial = Trial(rule)
    began = time.monotonic()
    first = await _first_after(results, since)
    cursor = max(first, await results.last_seq() - MOST_EVENTS)
    seen_from, seen_to, complete = since, until, cursor == first
    while events := await results.tail(cursor, PAGE):
        if cursor != first and not trial.events:
            seen_from = events[0].at
        cursor = events[-1].seq
        wanted = [event for event in events if event.at < until and (sites is None or event.site in sites)]
        await asyncio.to_thread(trial.see, wanted)
        if events[-1].at >= until:
            break
        if time.monotonic() - began > LONGEST:
            seen_to, complete = events[-1].at, False
            break
    await asyncio.to_thread(trial.tick, seen_to)
    told = [_told(case) for case in list(trial.cases.values())[:FIRST]]
    return trial, {
        "since": seen_from,
        "until": seen_to,
        "complete": complete,
        "events": trial.events,
        "fired": trial.fired,
        "peak_per_hour": trial.peak,
        "first": told,
    }


async def _first_after(results: ResultStore, since: datetime) -> int:
    """The number before the first event from `since` on, found by halves: numbers and times grow together."""
    low, high = 0, await results.last_seq()
    while low < high:
        middle = (low + high) // 2
        found = await results.tail(middle, 1)
        if not found or found[0].at >= since:
            high = middle
        else:
            low = found[0].seq
    return low


def _told(case: AlertRow) -> dict[str, Any]:
    return {
        "opened_at": case.opened_at,
        "site": case.site,
        "cause": case.body.get("group", {}),
        "count": case.count,
        "result_id": case.result_id,
        "captured_at": parse_time(str(case.body["captured_at"])),
        "hit": case.body.get("hit"),
    }
