"""What people may do with an alert after it was opened: one pure step from a case and a decision to the case after it.

    open ──acknowledge──▶ acknowledged ──resolve──▶ resolved (real, false or test)
      └───────────────────────resolve──────────────────▲ │
      ◀────────────────────────reopen────────────────────┘

Snoozing and assigning go with any case that is not resolved; a note goes with all. `undo` brings back what stood before the
last change, as one more entry of the history: nothing is erased.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

State = Literal["open", "acknowledged", "resolved"]
Disposition = Literal["real", "false", "test"]
Decisive = Literal["acknowledge", "snooze", "assign", "note", "resolve", "reopen", "undo"]

#: What the clock does with an alert by itself: it tells the next tier, or the end of a snooze.
Timed = Literal["escalate", "wake"]
#: All that the history of an alert can say.
Recorded = Literal[Decisive, Timed]

DECISIONS: tuple[Decisive, ...] = ("acknowledge", "snooze", "assign", "note", "resolve", "reopen", "undo")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What people decided on an alert. `disposition`: what it turned out to be, once resolved."""

    state: State = "open"
    disposition: Disposition | None = None
    assignee: str | None = None
    snoozed_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What somebody wants done. `until` goes with snooze, `to` with assign, `disposition` with resolve; `note` with all."""

    what: Decisive
    by: str
    at: datetime
    note: str = ""
    until: datetime | None = None
    to: str | None = None
    disposition: Disposition | None = None


class Refused(Exception):
    """The decision does not fit the case as it is; the message says why, and what would do."""


def decided(case: Case, decision: Decision, before: Case | None = None) -> Case:
    """The case afterwards; the same one where it is so already. `before`: what stood before its last change, for undo.

    Raises Refused.
    """
    if decision.what == "note":
        return case
    if decision.what == "undo":
        if before is None:
            raise Refused("nothing was decided on this alert yet, so there is nothing to undo")
        return before
    if decision.what == "reopen":
        return replace(case, state="open", disposition=None, snoozed_until=None)
    if case.state == "resolved":
        return _on_resolved(case, decision)
    if decision.what == "acknowledge":
        return replace(case, state="acknowledged")
    if decision.what == "snooze":
        return replace(case, snoozed_until=decision.until)
    if decision.what == "assign":
        return replace(case, assignee=decision.to)
    return replace(case, state="resolved", disposition=decision.disposition, snoozed_until=None)


def _on_resolved(case: Case, decision: Decision) -> Case:
    if decision.what == "resolve" and decision.disposition == case.disposition:
        return case
    raise Refused(f"the alert is resolved as {case.disposition or 'over'}; reopen it first")
