"""The alerts inbox: what is open, grouped by rule and camera, and everything about the one that is chosen.

Every decision is a plain form as well as a key, and goes to the store as the API's do: with who and when, to be undone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast, get_args
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.cases import DECISIONS, Decision, Disposition, State
from eyeline.core.clock import utcnow
from eyeline.core.errors import Conflict, InputError
from eyeline.core.pages import Page, principal_of
from eyeline.core.settings import RuleSettings
from eyeline.core.shifts import shift_end
from eyeline.core.types import Result
from eyeline.dashboard.cases import SEVERITIES, AlertView, Moment, alert_view, alerting, timeline
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.shell import Room, Shell, form_of, unknown
from eyeline.stores.results.base import AlertQuery, AlertRow, DeliveryRow, ResultQuery

PAGE = 100
#: Pictures after the first one that the strip shows, looked for within so many seconds.
STRIP = 11
STRIP_SECONDS = 30.0
LONGEST_NOTE = 2000
LONGEST_NAME = 120
SNOOZES = {"15": timedelta(minutes=15), "60": timedelta(hours=1)}
STATES: Mapping[str, tuple[State, ...]] = {
    "": ("open", "acknowledged"),
    "open": ("open",),
    "acknowledged": ("acknowledged",),
    "resolved": ("resolved",),
}
FILTERS = ("state", "severity", "site", "rule")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Alerts of one rule at one camera. The first is the newest."""

    alerts: Sequence[AlertView]

    @property
    def head(self) -> AlertView:
        """The one that stands for all."""
        return self.alerts[0]

    @property
    def count(self) -> int:
        """Hits of all of them."""
        return sum(alert.count for alert in self.alerts)

    @property
    def first_at(self) -> datetime:
        """When the oldest one was raised."""
        return min(alert.opened_at for alert in self.alerts)


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Everything about one alert."""

    alert: AlertView
    zone: str
    picture: Picture | None
    strip: Sequence[tuple[str, datetime, Picture]]
    rule: RuleSettings | None
    moments: Sequence[Moment]
    deliveries: Sequence[DeliveryRow]
    has_shifts: bool
    detail: str


def _pages(shell: Shell) -> Sequence[Page]:
    page = AlertsPage(shell)
    post = {"room": "alerts", "methods": ("POST",), "right": "operate"}
    return (
        shell.page("/alerts", page.show, room="alerts"),
        shell.page("/alerts/actions", page.decide_many, **post),  # type: ignore[arg-type]
        shell.page("/alerts/{id}/{action}", page.decide, **post),  # type: ignore[arg-type]
    )


ROOM = Room(name="alerts", pages=_pages)


class AlertsPage:
    """GET /alerts, and the forms on it."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources
        self._zones = {site.name: site.timezone for site in shell.sources.settings.sites}

    async def show(self, request: Request) -> Response:
        """The inbox as the address asks for it."""
        who = principal_of(request)
        wanted = {name: request.query_params.get(name, "")[:200] for name in FILTERS}
        cursor = request.query_params.get("cursor")
        found, following = await self._sources.results.find_alerts(_query(wanted, who, cursor))
        groups = grouped([alert_view(row) for row in found])
        chosen = request.query_params.get("alert") or (groups[0].head.id if groups else "")
        detail = await self._detail(chosen, who) if chosen else None
        names = [site.name for site in self._sources.settings.sites if who.sites is None or site.name in who.sites]
        query = {name: value for name, value in wanted.items() if value}
        return await self._shell.render(
            request,
            "alerts.html",
            room="alerts",
            title=self._shell.words.say("alerts.title"),
            script="js/pages/alerts.js",
            data={
                "filters": wanted,
                "alerts": {alert.id: _plain(alert) for group in groups for alert in group.alerts},
                "chosen": chosen,
                "first": cursor is None,
            },
            groups=groups,
            detail=detail,
            wanted=wanted,
            filtered=bool(query),
            query=urlencode(query),
            more=urlencode(query | {"cursor": following}) if following else None,
            sites=names,
            rules=sorted({rule.name for rule in self._sources.settings.alerts.rules} | {row.rule for row in found}),
            severities=SEVERITIES,
            states=[state for state in STATES if state],
            may=who.may("operate"),
            last=await self._last(who) if not groups else None,
        )

    async def _detail(self, id: str, who: Principal) -> Detail | None:  # noqa: A002
        row = await self._sources.results.get_alert(id)
        if row is None or not who.sees(row.site):
            raise unknown("alert", id)
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        alert = alert_view(row)
        marked = alerting([alert], alert.camera)
        result = await self._sources.results.get(row.result_id)
        deliveries = await self._sources.results.list_deliveries(id)
        shown = [
            (each.id, each.captured_at, picture_of(each, labels, marked)) for each in await self._strip(row, result)
        ]
        return Detail(
            alert=alert,
            zone=self._zones.get(row.site, "UTC"),
            picture=picture_of(result, labels, marked) if result else None,
            strip=[(ident, at, picture) for ident, at, picture in shown if picture is not None],
            rule=next((rule for rule in self._sources.settings.alerts.rules if rule.name == row.rule), None),
            moments=timeline(row, await self._sources.results.history(id), deliveries),
            deliveries=deliveries,
            has_shifts=any(site.name == row.site and site.shifts for site in self._sources.settings.sites),
            detail=str((row.body.get("hit") or {}).get("detail") or ""),
        )

    async def _strip(self, row: AlertRow, result: Result | None) -> list[Result]:
        """What the same camera saw next."""
        if result is None or result.camera is None:
            return []
        until = result.captured_at + timedelta(seconds=STRIP_SECONDS)
        query = ResultQuery(
            sites=[row.site], camera=result.camera, since=result.captured_at, until=until, status="completed", limit=500
        )
        found, _ = await self._sources.results.find(query)
        return [each for each in reversed(found) if each.id != result.id][:STRIP]

    async def _last(self, who: Principal) -> AlertView | None:
        """The newest alert of all, as proof that the engine once spoke."""
        found, _ = await self._sources.results.find_alerts(AlertQuery(sites=who.sites, limit=1))
        return alert_view(found[0]) if found else None

    # ---- what people decide
    async def decide(self, request: Request) -> Response:
        """A form about one alert."""
        who = principal_of(request)
        id, action = request.path_params["id"], request.path_params["action"]  # noqa: A001
        form = await form_of(request)
        version = form.get("version", "")
        await self._decide(who, action, {id: int(version) if version.isdecimal() else None}, form)
        return self._shell.see(f"/alerts?{urlencode({'alert': id})}")

    async def decide_many(self, request: Request) -> Response:
        """The form about all alerts that are ticked."""
        form = await form_of(request)
        ids = [name.removeprefix("id.") for name in form if name.startswith("id.")]
        if not ids:
            raise InputError("no alert is ticked; tick one or more, then choose what to do with them")
        await self._decide(principal_of(request), form.get("action", ""), dict.fromkeys(ids), form)
        return self._shell.see("/alerts")

    async def _decide(
        self, who: Principal, action: str, versions: Mapping[str, int | None], form: Mapping[str, str]
    ) -> None:
        what, _, choice = action.partition(".")
        decision = await self._decision(who, what, choice, next(iter(versions)), form)
        done = await self._sources.results.decide(decision, versions, sites=who.sites)
        if len(done) == 1 and done[0].outcome == "unknown":
            raise unknown("alert", done[0].id)
        if len(done) == 1 and done[0].outcome == "conflict":
            raise Conflict(done[0].why)

    async def _decision(self, who: Principal, what: str, choice: str, first: str, form: Mapping[str, str]) -> Decision:
        known = next((each for each in DECISIONS if each == what), None)
        if known is None:
            raise InputError(f"nobody can {what[:40]!r} an alert; there are: {', '.join(DECISIONS)}")
        note = form.get("note", "")[:LONGEST_NOTE]
        if known == "note" and not note.strip():
            raise InputError("the note is empty; write what the next one should know")
        disposition = choice or form.get("disposition", "")
        if known == "resolve" and disposition not in get_args(Disposition):
            raise InputError(f"resolve as one of: {', '.join(get_args(Disposition))}")
        return Decision(
            what=known,
            by=who.name,
            at=utcnow(),
            note=note,
            until=await self._until(choice or form.get("for", ""), first) if known == "snooze" else None,
            to=(form.get("to", "").strip()[:LONGEST_NAME] or None) if known == "assign" else None,
            disposition=cast("Disposition", disposition) if known == "resolve" else None,
        )

    async def _until(self, length: str, first: str) -> datetime:
        """When a snooze ends. Raises InputError."""
        if length in SNOOZES:
            return utcnow() + SNOOZES[length]
        if length != "shift":
            raise InputError(f"snooze for one of: {', '.join(SNOOZES)} (minutes), shift")
        row = await self._sources.results.get_alert(first)
        site = next((each for each in self._sources.settings.sites if row is not None and each.name == row.site), None)
        end = shift_end(site.shifts, ZoneInfo(site.timezone), utcnow()) if site is not None else None
        if end is None:
            raise InputError("this site has no shifts (`shifts` in its [[sites]]); snooze for 15 or 60 minutes")
        return end


def _query(wanted: Mapping[str, str], who: Principal, cursor: str | None) -> AlertQuery:
    if wanted["state"] not in STATES:
        raise InputError(f"no state is called {wanted['state']!r}; there are: {', '.join(filter(None, STATES))}")
    return AlertQuery(
        sites=who.sites,
        states=STATES[wanted["state"]],
        severity=wanted["severity"] or None,
        site=wanted["site"] or None,
        rule=wanted["rule"] or None,
        cursor=cursor,
        limit=PAGE,
    )


def grouped(alerts: Sequence[AlertView]) -> list[Group]:
    """By rule and camera; open and critical first, then the newest. What nobody looks after stays on top."""
    found: dict[tuple[str, str | None, str], list[AlertView]] = {}
    for alert in alerts:
        found.setdefault((alert.rule, alert.camera, alert.site), []).append(alert)
    groups = [Group(alerts=sorted(each, key=lambda alert: alert.last_at, reverse=True)) for each in found.values()]
    groups.sort(key=lambda group: group.head.last_at, reverse=True)
    groups.sort(key=lambda group: (not group.head.is_open, SEVERITIES.index(group.head.severity)))
    return groups


def _plain(alert: AlertView) -> dict[str, Any]:
    kept = ("state", "version", "severity", "camera", "rule")
    return {name: value for name, value in asdict(alert).items() if name in kept}
