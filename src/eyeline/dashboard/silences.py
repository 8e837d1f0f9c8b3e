"""What is recorded and not sent, as pages show, make and end it: as /v1/silences does, with the same records of the audit."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError
from eyeline.core.ids import uuid7
from eyeline.core.settings import Settings, SilenceSettings
from eyeline.core.weekly import covered_until, span
from eyeline.dashboard.shell import unknown
from eyeline.dashboard.sources import Sources
from eyeline.stores.results.base import Action, SilenceRow

#: Hours for which something may be silent.
HOURS = (1, 8, 24, 168)
LONGEST_REASON = 500


class Target(NamedTuple):
    """What is silent; None: any."""

    site: str | None
    camera: str | None = None
    rule: str | None = None


@dataclass(frozen=True, kw_only=True)
class SilenceView:
    """One silence in a list. `id` None: it stands in eyeline.toml; `now`: at this moment nobody is told."""

    id: str | None
    target: Target
    reason: str
    by: str
    since: datetime | None
    until: datetime | None
    weekly: tuple[str, ...]
    zone: str
    now: bool
    may_end: bool


async def silence(sources: Sources, who: Principal, targets: Iterable[Target], form: Mapping[str, str]) -> None:
    """Each of them for the form's `hours`, in its `weekly` times, for its `reason`. Raises InputError."""
    now = utcnow()
    reason, until, weekly = _reason(form), _until(form, now), _weekly(form)
    if until is None and not weekly:
        raise InputError("a silence has an end: say for how long, or in which times of the week")
    for target in dict.fromkeys(targets):
        if who.sites is not None and target.site not in who.sites:
            raise InputError(f"you look after some sites alone; name one of them: {', '.join(who.sites)}")
        row = SilenceRow(
            id=uuid7(), reason=reason, by=who.name, since=now, until=until, weekly=weekly, **target._asdict()
        )
        told: dict[str, object] = msgspec.to_builtins(asdict(row))
        await sources.results.add_silence(row, Action(what="silence", by=who.name, body=told))


async def end_silence(sources: Sources, who: Principal, id: str) -> None:  # noqa: A002
    """From now on alerts are sent again. Raises NotFound."""
    now = utcnow()
    row = next((each for each in await sources.results.silences(now) if each.id == id), None)
    if row is None or not _reaches(who, row.site):
        raise unknown("silence", id)
    ended = Action(what="silence.end", by=who.name, body={"id": id, "reason": row.reason, "site": row.site})
    await sources.results.end_silence(id, now, ended)


async def silences_of(sources: Sources, who: Principal) -> list[SilenceView]:
    """All that are not over, the made ones first; of sites that the caller may see."""
    now, settings = utcnow(), sources.settings
    zones = {site.name: site.timezone for site in settings.sites}
    every: list[SilenceRow | SilenceSettings] = [*await sources.results.silences(now)]
    every += [each for each in settings.alerts.silences if each.until is None or each.until > now]
    return [_view(each, who, zones, now) for each in every if each.site is None or who.sees(each.site)]


def _view(each: SilenceRow | SilenceSettings, who: Principal, zones: Mapping[str, str], now: datetime) -> SilenceView:
    ident = each.id if isinstance(each, SilenceRow) else None
    clocks = list(zones.values()) if each.site is None else [zones.get(each.site, "UTC")]
    spans = [span(text) for text in each.weekly]
    within = not spans or any(covered_until(spans, ZoneInfo(zone), now) is not None for zone in clocks or ["UTC"])
    return SilenceView(
        id=ident,
        target=Target(each.site, each.camera, each.rule),
        reason=each.reason,
        by=each.by if isinstance(each, SilenceRow) else "eyeline.toml",
        since=each.since,
        until=each.until,
        weekly=tuple(each.weekly),
        zone="UTC" if each.site is None else clocks[0],
        now=within and (each.since is None or each.since <= now),
        may_end=ident is not None and who.may("operate") and _reaches(who, each.site),
    )


def target_of(settings: Settings, who: Principal, form: Mapping[str, str]) -> Target:
    """What the form names: a camera stands at its site. Raises InputError for a name that there is not, or not for the caller."""
    site, camera, rule = (form.get(name, "").strip()[:120] or None for name in ("site", "camera", "rule"))
    stands = {each.name: each.site for each in settings.cameras if who.sees(each.site)}
    if camera is not None and camera not in stands:
        raise InputError(f"no camera is called {camera!r}; known: {', '.join(stands)}")
    here = site or (stands[camera] if camera is not None else None)
    if camera is not None and here != stands[camera]:
        raise InputError(f"the camera {camera} stands at {stands[camera]}, not at {here}")
    if here is not None and (here not in sites_of(settings, who)):
        raise InputError(f"no site is called {here!r}; known: {', '.join(sites_of(settings, who))}")
    return Target(here, camera, rule)


def sites_of(settings: Settings, who: Principal) -> list[str]:
    """Sites by name, as far as the caller may see them."""
    known = {site.name for site in settings.sites} | {camera.site for camera in settings.cameras}
    return sorted(site for site in known or {"default"} if who.sees(site))


def _reason(form: Mapping[str, str]) -> str:
    reason = " ".join(form.get("reason", "").split())[:LONGEST_REASON]
    if not reason:
        raise InputError("say why nobody is to be told; it stands in the delivery record")
    return reason


def _until(form: Mapping[str, str], now: datetime) -> datetime | None:
    hours = form.get("hours", "")
    if hours not in {"", *map(str, HOURS)}:
        raise InputError(f"silent for one of: {', '.join(map(str, HOURS))} (hours)")
    return now + timedelta(hours=int(hours)) if hours else None


def _weekly(form: Mapping[str, str]) -> tuple[str, ...]:
    weekly = tuple(text for part in form.get("weekly", "").split(",") if (text := part.strip()))
    try:
        for text in weekly:
            span(text)
    except ValueError as error:
        raise InputError(str(error)) from error
    return weekly


def _reaches(who: Principal, site: str | None) -> bool:
    """Whether the caller may decide for that site; None: for all of them."""
    return who.sites is None or site in who.sites
