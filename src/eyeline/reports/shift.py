"""The shift report: what was seen, what was raised, what people did about it, and what is handed over to the next shift."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from eyeline.core.clock import isoformat, parse_time
from eyeline.core.errors import InputError
from eyeline.core.settings import SiteSettings
from eyeline.core.shifts import shift_start
from eyeline.core.telemetry import printable
from eyeline.stores.results.base import AlertQuery, AlertRow, CountQuery, HistoryRow, ResultQuery, ResultStore

#: Alerts, notes and changes that one report tells at most.
MOST = 500
#: A camera that said nothing for so long (seconds) before the report is offline.
SILENT = 60.0
#: Without shifts a report is about so long; and never about longer than that.
USUAL, LONGEST = timedelta(hours=8), timedelta(days=7)
#: Actions that changed how the site works: the first word of what was done.
_CHANGES = {"rule", "model", "pipeline", "key", "silence", "channel", "camera"}
#: What a report tells of such an action: the rest of it may be about other places, or nobody's business.
_TOLD = ("what", "by", "at", "name")
SEVERITIES = ("critical", "warning", "info")


def period(site: SiteSettings, since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """The time that is asked for, as RFC 3339; by itself the shift that runs now, or the last eight hours where there are none.

    Raises InputError.
    """
    end = _moment("until", until) or now
    begin = _moment("from", since) or _began(site, end)
    if not begin < end <= begin + LONGEST:
        raise InputError("a report is about a time of up to seven days: `from` lies before `until`")
    return begin, end


def _moment(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name}={printable(str(text), 60)!r} is no time such as 2026-01-31T12:00:00Z") from error


def _began(site: SiteSettings, now: datetime) -> datetime:
    """When the shift began that runs just before `now`: asked at its very beginning, the one that ended then is meant."""
    began = shift_start(site.shifts, ZoneInfo(site.timezone), now - timedelta(seconds=1))
    return now - USUAL if began is None else began.astimezone(UTC)


def chosen(sites: Sequence[SiteSettings], name: str | None) -> SiteSettings:
    """The site of that name, or the first one, among those that may be seen. Raises InputError."""
    found = next((site for site in sites if name in {None, site.name}), None)
    if found is None:
        known = ", ".join(site.name for site in sites) or "none"
        raise InputError(f"no site is called {printable(str(name), 60)!r}; known: {known}", code="unknown_site")
    return found


async def shift_report(
    results: ResultStore,
    site: SiteSettings,
    since: datetime,
    until: datetime,
    now: datetime,
    *,
    sites: Sequence[str] | None,
) -> dict[str, Any]:
    """The report as plain data, for who sees those `sites` (None: all). Raises StoreError."""
    opened, _ = await results.find_alerts(AlertQuery(site=site.name, since=since, until=until, limit=MOST))
    standing, _ = await results.find_alerts(
        AlertQuery(site=site.name, states=["open", "acknowledged"], until=until, limit=MOST)
    )
    history = await results.site_history(site.name, since, until, MOST)
    by_id = {alert.id: alert for alert in (*opened, *standing)}
    return {
        "site": site.name,
        "timezone": site.timezone,
        "from": isoformat(since),
        "until": isoformat(until),
        "made_at": isoformat(now),
        "results": await _counted(results, site.name, since, until),
        "alerts": _summed(opened),
        "rules": _by_rule(opened),
        "open": [_case(alert) for alert in standing],
        "notes": [_note(entry, by_id.get(entry.alert_id)) for entry in history if entry.body.get("note")],
        "offline": offline(await results.cameras(), site.name, now),
        "changes": await _changes(results, site.name, since, until, everything=sites is None),
        "more": len(opened) == MOST or len(standing) == MOST or len(history) == MOST,
    }


def headline(report: Mapping[str, Any]) -> str:
    """The report in two lines of text, times by the clock of the site."""
    zone = ZoneInfo(report["timezone"])
    since, until = (parse_time(report[name]).astimezone(zone) for name in ("from", "until"))
    alerts, results = report["alerts"], report["results"]
    share = alerts["false_share"]
    return (
        f"Shift report {report['site']}, {since:%Y-%m-%d %H:%M} to {until:%H:%M} ({report['timezone']})\n"
        f"{results['completed']} images, {results['failed']} failed; {alerts['opened']} alerts, "
        f"{len(report['open'])} not resolved" + ("" if share is None else f", {share:.0%} false alarms")
    )


async def _counted(results: ResultStore, site: str, since: datetime, until: datetime) -> dict[str, Any]:
    """Images of the site, by camera and by label."""
    found: dict[str, dict[str, int]] = {}
    for by in ("camera", "label"):
        query = CountQuery(by=("site", by), bucket=60, since=since, until=until, sites=[site])
        totals: Counter[str] = Counter()
        for count in await results.count_results(query):
            totals[str(count.by[by] or "none")] += count.count
        found[by] = dict(totals.most_common(50))
    failed, more = await results.find(ResultQuery(site=site, status="failed", since=since, until=until, limit=MOST))
    return {
        "completed": sum(found["camera"].values()),
        "failed": len(failed),
        "more_failed": more is not None,
        "by_camera": found["camera"],
        "by_label": found["label"],
    }


def _summed(opened: Sequence[AlertRow]) -> dict[str, Any]:
    turned_out = Counter(alert.disposition for alert in opened if alert.disposition)
    judged = turned_out["real"] + turned_out["false"]
    return {
        "opened": len(opened),
        "by_severity": {name: sum(alert.severity == name for alert in opened) for name in SEVERITIES},
        "dispositions": {name: turned_out[name] for name in ("real", "false", "test")},
        #: Of those that were judged; tests left out.
        "false_share": round(turned_out["false"] / judged, 4) if judged else None,
    }


def _by_rule(opened: Sequence[AlertRow]) -> list[dict[str, Any]]:
    names = Counter((alert.rule, alert.body.get("camera")) for alert in opened)
    return [
        {"rule": rule, "camera": camera}
        | _summed([alert for alert in opened if (alert.rule, alert.body.get("camera")) == (rule, camera)])
        for (rule, camera), _ in names.most_common()
    ]


def _case(alert: AlertRow) -> dict[str, Any]:
    return {
        "id": alert.id,
        "rule": alert.rule,
        "severity": alert.severity,
        "camera": alert.body.get("camera"),
        "ref": alert.body.get("ref"),
        "state": alert.state,
        "assignee": alert.assignee,
        "opened_at": isoformat(alert.opened_at),
        "last_at": isoformat(alert.last_at),
        "count": alert.count,
    }


def _note(entry: HistoryRow, alert: AlertRow | None) -> dict[str, Any]:
    return {
        "at": isoformat(entry.at),
        "by": entry.by,
        "what": entry.what,
        "note": entry.body["note"],
        "alert": entry.alert_id,
        "rule": alert.rule if alert else None,
    }


def offline(cameras: Mapping[str, Mapping[str, Any]], site: str, now: datetime) -> list[dict[str, Any]]:
    """Cameras of the site that give no frames, as they said themselves or by their silence."""
    found = []
    for name, report in sorted(cameras.items()):
        seen = parse_time(str(report["reported_at"]))
        silent = (now - seen) > timedelta(seconds=SILENT)
        if report.get("site") == site and (silent or report.get("state") != "live"):
            state = "silent" if silent else str(report.get("state", "unknown"))
            found.append({"camera": name, "state": state, "reported_at": isoformat(seen)})
    return found


async def _changes(
    results: ResultStore, site: str, since: datetime, until: datetime, *, everything: bool
) -> list[dict[str, Any]]:
    """Of each only what a report shows. What says of no site where it works is for those alone who see them all."""
    done = await results.actions(since, until, 10_000)
    changes = [action for action in done if str(action["what"]).replace(".", " ").split()[0] in _CHANGES]
    told = [action for action in changes if _about(action, site, everything=everything)]
    return [{word: action[word] for word in _TOLD if word in action} for action in told][:MOST]


def _about(action: Mapping[str, Any], site: str, *, everything: bool) -> bool:
    """A key's sites are text here: keys are the business of those alone who see all sites."""
    sites = action.get("sites") or [action.get("site")]
    return site in sites if isinstance(sites, list) and all(sites) else everything
