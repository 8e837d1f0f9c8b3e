"""Storage as the system page shows it: what is kept for how long, what was let go, what is held, when it is full, and backups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from eyeline.core.access import Principal
from eyeline.core.backups import LAST, LastBackup
from eyeline.core.clock import parse_time
from eyeline.core.settings import RetentionRuleSettings, RetentionSettings, Settings
from eyeline.stores.results.base import ResultStore
from eyeline.stores.results.retaining import Hold

#: Legal holds on the page; `eyeline hold ls` gives the rest.
HOLDS = 50


@dataclass(frozen=True, kw_only=True)
class KeptView:
    """For how long what fits `which` is kept; an empty one is the rest."""

    which: Mapping[str, str]
    originals: str
    evidence: str
    results: str


@dataclass(frozen=True, kw_only=True)
class HoldView:
    """A legal hold: who placed it when and why, and what it names."""

    id: str
    by: str
    placed_at: datetime
    reason: str
    scope: Mapping[str, str | datetime]


@dataclass(frozen=True, kw_only=True)
class BackupView:
    """The last backup. `here`: `eyeline backup` copies these stores; those of a cluster have their own means."""

    here: bool
    at: datetime | None = None
    to: str = ""
    blobs: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class StorageView:
    """All of it. `let_go`: the last day on which retention did something, as the report counts it."""

    kept: Sequence[KeptView]
    reencode: str
    reencode_after: str
    max_bytes: int
    let_go: Mapping[str, Any] | None
    holds: Sequence[HoldView]
    more_holds: int
    counted: bool
    pictures: int
    database: int
    full_on: str | None
    limit_on: str | None
    backup: BackupView


async def storage(settings: Settings, results: ResultStore, report: Mapping[str, Any], who: Principal) -> StorageView:
    """From the settings, the storage report (/v1/storage), and what stands in the store."""
    retention = settings.retention
    holds = [hold for hold in await results.holds() if who.sites is None or (hold.site and who.sees(hold.site))]
    days = [day for day in report.get("days", ()) if day["freed"] or day["removed"]]
    forecast = report.get("forecast", {})
    return StorageView(
        kept=[_kept(rule, retention) for rule in retention.rules] + [_kept(retention, retention)],
        reencode=retention.reencode,
        reencode_after=retention.reencode_after,
        max_bytes=retention.max_bytes,
        let_go=days[-1] if days else None,
        holds=[_hold(hold) for hold in holds[:HOLDS]],
        more_holds=len(holds) - HOLDS,
        counted=report.get("at") is not None,
        pictures=(report.get("pictures") or {}).get("bytes", 0),
        database=report.get("database") or 0,
        full_on=forecast.get("full_on"),
        limit_on=forecast.get("limit_on"),
        backup=_backup(settings, await results.load_state(LAST)),
    )


def _kept(rule: RetentionRuleSettings | RetentionSettings, base: RetentionSettings) -> KeptView:
    which = {}
    if isinstance(rule, RetentionRuleSettings):
        which = {name: getattr(rule, name) for name in ("label", "site", "camera") if getattr(rule, name)}
        which |= {"score": f"{rule.min_score:g}"} if rule.min_score else {}
    terms = {name: getattr(rule, name) or getattr(base, name) for name in ("originals", "evidence", "results")}
    return KeptView(which=which, **terms)


def _hold(hold: Hold) -> HoldView:
    named = {name: value for name, value in hold.scope.items() if value is not None}
    return HoldView(id=hold.id, by=hold.by, placed_at=hold.placed_at, reason=hold.reason, scope=named)


def _backup(settings: Settings, note: bytes | None) -> BackupView:
    here = settings.results.url.startswith("sqlite:") and settings.blobs.url.startswith("file:")
    if note is None:
        return BackupView(here=here)
    last = msgspec.json.decode(note, type=LastBackup)
    return BackupView(here=here, at=parse_time(last.at), to=last.to, blobs=last.blobs, bytes=last.bytes)
