"""The alerts inbox: what is open, grouped by rule and camera, and everything about the one that is chosen.

Every decision is a plain form as well as a key, and goes to the store as the API's do: with who and when, to be undone.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast, get_args
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.cases import DECISIONS, Decision, Disposition, State
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import BadRule, Conflict, InputError
from eyeline.core.pages import Page, principal_of
from eyeline.core.settings import RuleSettings, rule_of
from eyeline.core.shifts import shift_end
from eyeline.core.types import Result
from eyeline.dashboard.cases import SEVERITIES, AlertView, Moment, alert_view, alerting, measured, timeline
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.rules import sentence
from eyeline.dashboard.shell import Room, Shell, form_of, unknown
from eyeline.dashboard.silences import HOURS, Target, end_silence, silence
from eyeline.inference.bundles import history
from eyeline.stores.results.base import (
    ENGINE_CHECKED,
    Action,
    AlertHour,
    AlertQuery,
    AlertRow,
    DeliveryRow,
    ResultQuery,
    RuleRow,
    SilenceRow,
)

PAGE = 100
#: Pictures after the first one that the strip shows, looked for within so many seconds.
STRIP = 11
STRIP_SECONDS = 30.0
LONGEST_NOTE = 2000
LONGEST_NAME = 120
SNOOZES = {"15": timedelta(minutes=15), "60": timedelta(hours=1)}
#: Seconds without a look of the engine after which the page says that none is at work: another one has taken over long before.
AWAY = 30
#: Hours that the line beside a group goes back.
SPARK = 24
STATES: Mapping[str, tuple[State, ...]] = {
    "": ("open", "acknowledged"),
    "open": ("open",),
    "acknowledged": ("acknowledged",),
    "resolved": ("resolved",),
}
FILTERS = ("state", "severity", "site", "rule")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Alerts of one rule at one camera. The first is the newest. `hours`: how many were opened in each of the last ones."""

    alerts: Sequence[AlertView]
    hours: Sequence[int] = ()

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

    @property
    def day(self) -> int:
        """How many were opened in these hours, also those that are resolved by now."""
        return sum(self.hours)

    @property
    def line(self) -> str:
        """The hours as a line in a picture of 96 x 24."""
        most, step = max(1, *self.hours), 94 / max(1, len(self.hours) - 1)
        return " ".join(f"{1 + step * at:.1f},{22 - 20 * count / most:.1f}" for at, count in enumerate(self.hours))


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Everything about one alert."""

    alert: AlertView
    zone: str
    picture: Picture | None
    strip: Sequence[tuple[str, datetime, Picture]]
    #: In words, as it was when it raised this alert; None where that cannot be told any more.
    rule: str | None
    measured: str
    #: Which of the models that saw it can be rolled back, for those who may do so.
    models: Sequence[str]
    mutes: Sequence[SilenceRow]
    moments: Sequence[Moment]
    deliveries: Sequence[DeliveryRow]
    has_shifts: bool


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
        checked = await self._checked()
        silent = AWAY if checked is None else max(0, int((utcnow() - checked).total_seconds()))
        since = utcnow() - timedelta(hours=SPARK - 1)
        hours = await self._sources.results.alert_hours(since=since, sites=who.sites) if found else []
        groups = grouped([alert_view(row) for row in found], hours, since)
        chosen = request.query_params.get("alert") or (groups[0].head.id if groups else "")
        detail = await self._detail(chosen, who) if chosen else None
        shown = [alert for group in groups for alert in group.alerts] + ([detail.alert] if detail else [])
        sites = [site for site in self._sources.settings.sites if who.sites is None or site.name in who.sites]
        query = {name: value for name, value in wanted.items() if value}
        return await self._shell.render(
            request,
            "alerts.html",
            room="alerts",
            title=self._shell.words.say("alerts.title"),
            script="js/pages/alerts.js",
            data={
                "filters": wanted,
                "alerts": {alert.id: _plain(alert) for alert in shown},
                "chosen": chosen,
                "first": cursor is None,
                "away": AWAY,
            },
            groups=groups,
            detail=detail,
            wanted=wanted,
            filtered=bool(query),
            query=urlencode(query),
            more=urlencode(query | {"cursor": following}) if following else None,
            sites=[site.name for site in sites],
            all_shifts=all(site.shifts for site in sites),
            rules=sorted({rule.name for rule in self._sources.settings.alerts.rules} | {row.rule for row in found}),
            severities=SEVERITIES,
            states=[state for state in STATES if state],
            may=who.may("operate"),
            mutes=HOURS,
            zones=self._zones,
            checked=checked,
            silent=silent,
            alive=silent < AWAY,
            last=await self._last(who) if not groups else None,
        )

    async def _detail(self, id: str, who: Principal) -> Detail | None:  # noqa: A002
        row = await self._seen(who, id)
        labels, now = await asyncio.to_thread(known_labels, self._sources.settings), utcnow()
        alert = alert_view(row)
        marked = alerting([alert], alert.camera)
        result = await self._sources.results.get(row.result_id)
        deliveries = await self._sources.results.list_deliveries(id)
        rule = await self._rule(row)
        shown = [
            (each.id, each.captured_at, picture_of(each, labels, marked)) for each in await self._strip(row, result)
        ]
        return Detail(
            alert=alert,
            zone=self._zones.get(row.site, "UTC"),
            picture=picture_of(result, labels, marked) if result else None,
            strip=[(ident, at, picture) for ident, at, picture in shown if picture is not None],
            rule=sentence(rule, self._shell.words) if isinstance(rule, RuleSettings) else rule,
            measured=measured(row, rule if isinstance(rule, RuleSettings) else None, self._shell.words),
            models=await asyncio.to_thread(self._models, row, result) if who.may("manage") else [],
            mutes=[each for each in await self._sources.results.silences(now) if _mutes(each, row, now)],
            moments=timeline(row, await self._sources.results.history(id), deliveries),
            deliveries=deliveries,
            has_shifts=any(site.name == row.site and site.shifts for site in self._sources.settings.sites),
        )

    async def _rule(self, row: AlertRow) -> RuleSettings | str | None:
        """The rule: that of the settings, or the version of people's making that held then; its condition where it is of
        another release, and cannot be read.
        """
        rule = next((rule for rule in self._sources.settings.alerts.rules if rule.name == row.rule), None)
        if rule is not None:
            return rule
        body = _held(await self._sources.results.rule_versions(row.rule), row.opened_at)
        try:
            return None if body is None else rule_of(body)
        except BadRule:
            return str(body and body.get("when", ""))

    def _models(self, row: AlertRow, result: Result | None) -> list[str]:
        """Of the models that answered, or else of those of its pipeline: those that have a version to go back to."""
        steps = (
            step
            for each in self._sources.settings.pipelines
            if each.name == row.body.get("pipeline")
            for step in each.steps
        )
        names = [model.name for model in (result.models if result else ())] or [step.model for step in steps]
        folder = self._sources.settings.inference.models
        return [name for name in dict.fromkeys(filter(None, names)) if len(history(folder / name)) > 1]

    async def _checked(self) -> datetime | None:
        """When the alert engine looked last."""
        kept = await self._sources.results.load_state(ENGINE_CHECKED)
        return parse_time(kept.decode()) if kept else None

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
        if action == "mute":
            await self._mute(who, [id], form)
        elif action == "unmute":
            await end_silence(self._sources, who, form.get("silence", ""))
        elif action == "resend":
            await self._resend(who, id, form.get("delivery", ""))
        else:
            await self._decide(who, action, {id: int(version) if version.isdecimal() else None}, form)
        return self._shell.see(f"/alerts?{urlencode({'alert': id})}")

    async def _mute(self, who: Principal, ids: Iterable[str], form: Mapping[str, str]) -> None:
        """The rules of these alerts are silent at their cameras (or sites) for a while; what they see is still recorded."""
        rows = [await self._seen(who, id) for id in ids]  # noqa: A001
        targets = [Target(row.site, row.body.get("camera"), row.rule) for row in rows]
        await silence(self._sources, who, targets, form)

    async def _resend(self, who: Principal, id: str, delivery: str) -> None:  # noqa: A002
        """What was given up is sent again, under its id."""
        alert = await self._seen(who, id)
        row = await self._sources.results.get_delivery(delivery)
        if row is None or row.alert_id != alert.id:
            raise unknown("delivery", delivery)
        action = Action(what="delivery.retry", by=who.name, body={"delivery": row.id, "channel": row.channel})
        if not await self._sources.results.retry_delivery(row.id, utcnow(), action):
            raise Conflict(f"the delivery is {row.state}, not failed; only what has failed is sent again")

    async def _seen(self, who: Principal, id: str) -> AlertRow:  # noqa: A002
        """The alert. Raises NotFound where there is none, or none for the caller."""
        row = await self._sources.results.get_alert(id)
        if row is None or not who.sees(row.site):
            raise unknown("alert", id)
        return row

    async def decide_many(self, request: Request) -> Response:
        """The form about all alerts that are ticked."""
        form = await form_of(request)
        ids = [name.removeprefix("id.") for name in form if name.startswith("id.")]
        if not ids:
            raise InputError("no alert is ticked; tick one or more, then choose what to do with them")
        who, action = principal_of(request), form.get("action", "")
        if action == "mute":
            await self._mute(who, ids, form)
        else:
            await self._decide(who, action, dict.fromkeys(ids), form)
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


def _held(versions: Sequence[RuleRow], moment: datetime) -> Mapping[str, Any] | None:
    """What the rule was then. `versions`: the newest first; where all are younger, a picture was late: the first of them."""
    bodies = [(version.at, version.body) for version in versions if version.body is not None]
    return next((body for at, body in bodies if at <= moment), bodies[-1][1] if bodies else None)


def _mutes(silence: SilenceRow, row: AlertRow, now: datetime) -> bool:
    """Whether somebody muted the rule where this alert comes from. Silences of a whole site or camera are other pages' matter."""
    here = silence.rule == row.rule and silence.site in {None, row.site}
    return here and silence.camera in {None, row.body.get("camera")} and not silence.weekly and silence.since <= now


def grouped(alerts: Sequence[AlertView], hours: Sequence[AlertHour], since: datetime) -> list[Group]:
    """By rule and camera; open and critical first, then the newest. What nobody looks after stays on top."""
    first = since.replace(minute=0, second=0, microsecond=0)
    opened: dict[tuple[str, str | None, str], list[int]] = {}
    for hour in hours:
        at = (hour.start - first) // timedelta(hours=1)
        if 0 <= at < SPARK:
            opened.setdefault((hour.rule, hour.camera, hour.site), [0] * SPARK)[at] = hour.count
    found: dict[tuple[str, str | None, str], list[AlertView]] = {}
    for alert in alerts:
        found.setdefault((alert.rule, alert.camera, alert.site), []).append(alert)
    groups = [
        Group(alerts=sorted(each, key=lambda alert: alert.last_at, reverse=True), hours=opened.get(key, ()))
        for key, each in found.items()
    ]
    groups.sort(key=lambda group: group.head.last_at, reverse=True)
    groups.sort(key=lambda group: (not group.head.is_open, SEVERITIES.index(group.head.severity)))
    return groups


def _plain(alert: AlertView) -> dict[str, Any]:
    kept = ("state", "version", "severity", "site", "camera", "rule")
    return {name: value for name, value in asdict(alert).items() if name in kept}
