"""Alerts as pages show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from eyeline.core.access import Principal
from eyeline.core.cases import Recorded
from eyeline.core.clock import parse_time
from eyeline.core.settings import RuleSettings
from eyeline.dashboard.sources import Sources
from eyeline.dashboard.words import Words
from eyeline.stores.results.base import AlertQuery, AlertRow, DeliveryRow, HistoryRow

#: Alerts that are read for counts and for the wall; more than these are a flood, and the inbox pages through them all.
MOST = 200
SEVERITIES = ("critical", "warning", "info")

#: What a line of a timeline says; `alerts.what.…` are its words. `other`: a newer release wrote it, beside this one.
Line = Literal[Recorded, "opened", "told", "not_told", "seen", "cleared", "other"]


@dataclass(frozen=True, kw_only=True)
class AlertView:
    """One alert in a list."""

    id: str
    rule: str
    severity: str
    state: str
    site: str
    camera: str | None
    label: str | None
    score: float | None
    opened_at: datetime
    last_at: datetime
    count: int
    result_id: str
    version: int = 0
    assignee: str | None = None
    disposition: str | None = None
    snoozed_until: datetime | None = None
    #: Its cause has ended by itself, and why.
    cleared_at: datetime | None = None
    cleared: str = ""

    @property
    def where(self) -> str:
        """Camera and site, in words."""
        return " · ".join(each for each in (self.camera, self.site) if each)

    @property
    def is_open(self) -> bool:
        """Whether nobody looks after it yet."""
        return self.state == "open"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A line of an alert's timeline."""

    at: datetime
    what: Line
    by: str = ""
    words: str = ""


def alert_view(row: AlertRow) -> AlertView:
    """What a list shows of an alert."""
    hit: Mapping[str, Any] = row.body.get("hit") or {}
    cleared_at = row.body.get("cleared_at")
    return AlertView(
        id=row.id,
        rule=row.rule,
        severity=row.severity,
        state=row.state,
        site=row.site,
        camera=row.body.get("camera"),
        label=hit.get("label") or hit.get("health"),
        score=hit.get("score"),
        opened_at=row.opened_at,
        last_at=row.last_at,
        count=row.count,
        result_id=row.result_id,
        version=row.version,
        assignee=row.assignee,
        disposition=row.disposition,
        snoozed_until=row.snoozed_until,
        cleared_at=None if cleared_at is None else parse_time(cleared_at),
        cleared=str(row.body.get("cleared", "")),
    )


def measured(row: AlertRow, rule: RuleSettings | None, words: Words) -> str:
    """What was counted or measured when the alert was raised, beside the rule's limit; empty where one hit was enough."""
    hit: Mapping[str, Any] = row.body.get("hit") or {}
    of, detail = hit.get("of"), str(hit.get("detail") or "")
    if detail:
        return _limited(detail, rule.absent if rule else "", words)
    if hit.get("share") is not None:
        window = "of" if rule is None else "last" if rule.of is not None else "within"
        within = rule.within if rule else ""
        said = words.say(f"alerts.measured.{window}", share=f"{hit['share'] * 100:.3g} %", of=of, within=within)
        return _limited(said, f"{(rule.share or 0) * 100:g} %" if rule else "", words)
    if rule is None or rule.count == 1:
        return ""
    name = "within" if of is None else "row"
    return words.say(f"alerts.measured.count_{name}", count=rule.count, of=of, within=rule.within)


def _limited(said: str, limit: str, words: Words) -> str:
    return words.say("alerts.measured.limit", said=said, limit=limit) if limit else said


async def open_alerts(sources: Sources, who: Principal, limit: int = MOST) -> list[AlertView]:
    """The open ones that the caller may see, newest first."""
    found, _ = await sources.results.find_alerts(AlertQuery(sites=who.sites, states=("open",), limit=limit))
    return [alert_view(row) for row in found]


async def alerts_of(sources: Sources, who: Principal, result_id: str) -> list[AlertView]:
    """All that this result raised and the caller may see, whatever became of them; newest first."""
    found, _ = await sources.results.find_alerts(AlertQuery(sites=who.sites, result_id=result_id, limit=MOST))
    return [alert_view(row) for row in found]


def alerting(alerts: Sequence[AlertView], camera: str | None) -> set[str]:
    """The labels for which an alert is open at this camera."""
    return {alert.label for alert in alerts if alert.camera == camera and alert.label is not None}


def timeline(alert: AlertRow, history: Sequence[HistoryRow], deliveries: Sequence[DeliveryRow]) -> list[Moment]:
    """Raised, told, done, in the order of time."""
    lines = [Moment(at=alert.opened_at, what="opened", words=alert.rule)]
    lines += [_recorded(entry) for entry in history]
    for row in deliveries:
        if row.delivered_at is not None:
            lines.append(Moment(at=row.delivered_at, what="told", words=row.channel))
        elif row.state == "failed":
            lines.append(Moment(at=row.next_at, what="not_told", words=f"{row.channel}: {row.last_error or ''}"))
    if alert.last_at > alert.opened_at:
        lines.append(Moment(at=alert.last_at, what="seen", words=str(alert.body.get("camera") or "")))
    view = alert_view(alert)
    if view.cleared_at is not None:
        lines.append(Moment(at=view.cleared_at, what="cleared", words=view.cleared))
    return sorted(lines, key=lambda line: line.at)


def _recorded(entry: HistoryRow) -> Moment:
    if entry.what not in get_args(Recorded):
        return Moment(at=entry.at, what="other", by=entry.by, words=str(entry.what))
    return Moment(at=entry.at, what=entry.what, by=entry.by, words=_said(entry))


def _said(entry: HistoryRow) -> str:
    """What a decision changed, and the note that went with it."""
    after = entry.body.get("after") or {}
    said = {
        "assign": after.get("assignee") or "",
        "resolve": after.get("disposition") or "",
        "snooze": after.get("snoozed_until") or "",
    }.get(entry.what, "")
    return ": ".join(part for part in (said, str(entry.body.get("note", ""))) if part)
