"""What storage holds, what came and went, what was saved, and what is to be expected, as plain data and as words."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec

from eyeline.core.clock import utcnow
from eyeline.core.settings import RetentionSettings
from eyeline.ops.storage.forecast import DAY, Came, Outlook, Shares, byte_seconds, full_on, outlook
from eyeline.ops.storage.keeper import STOCK
from eyeline.ops.storage.policy import OTHER, Policy
from eyeline.ops.storage.stock import Stock
from eyeline.stores.results.base import ResultStore
from eyeline.stores.results.retaining import Tally

#: Days of the past that are asked for, days ahead that are looked at, and the days between two points of the forecast.
PAST, AHEAD, STEP = 400, 730, 7
#: What pictures leave free on their disk at most (as the store of pictures in a folder does).
RESERVE = 100_000_000
MONTH, YEAR = 30.4 * DAY, 365 * DAY
MILLION, GB = 1e6, 1e9


async def storage_report(
    settings: RetentionSettings, results: ResultStore, today: date | None = None
) -> dict[str, Any]:
    """All of it, from what retention counted; the reckoning takes a twentieth of a second, in a thread. Raises StoreError."""
    today = today or utcnow().date()
    kept = await results.load_state(STOCK)
    stock = None if kept is None else msgspec.json.decode(kept, type=Stock)
    tallies = await results.tallies((today - timedelta(days=PAST)).isoformat())
    holds = len(await results.holds())
    return await asyncio.to_thread(_reckoned, settings, stock, tallies, today) | {"holds": holds}


def _reckoned(
    settings: RetentionSettings, stock: Stock | None, tallies: Sequence[Tally], today: date
) -> dict[str, Any]:
    policy = Policy(settings)
    shares = measured_shares(tallies, stock)
    view = outlook(history(tallies, policy), policy.classes, shares, today, AHEAD)
    return {
        "at": None if stock is None else stock.at,
        "pictures": None if stock is None else {"blobs": stock.blobs, "bytes": stock.bytes, "by_site": stock.by_site},
        "database": None if stock is None else stock.database,
        "disk": None if stock is None or stock.disk is None else {"total": stock.disk.total, "free": stock.disk.free},
        "days": _days(tallies),
        "saved": saved(tallies),
        "per_million": per_million(tallies, policy, shares),
        "forecast": _forecast(view, stock, settings, today),
    }


def history(tallies: Iterable[Tally], policy: Policy) -> dict[date, dict[str, Came]]:
    """What came each day, by the classes of retention there are now: what was counted under another rule is like the rest."""
    known = {terms.name for terms in policy.classes}
    days: dict[date, dict[str, Came]] = defaultdict(dict)
    for row in tallies:
        if row.what in {"received", "reused", "duplicate"}:
            name = row.kind if row.kind in known else OTHER
            day, own = date.fromisoformat(row.day), 0 if row.what == "duplicate" else row.bytes
            before = days[day].get(name, Came())
            days[day][name] = Came(images=before.images + row.count, bytes=before.bytes + own)
    return days


def measured_shares(tallies: Sequence[Tally], stock: Stock | None) -> Shares:
    """How small things became here; what was never done here is guessed."""
    sums = _sums(tallies)
    guess = Shares()
    encoded, evicted = sums["reencoded"], sums["original"]
    came = sums["received"].count + sums["reused"].count + sums["duplicate"].count - sums["result"].count
    return Shares(
        reencoded=1 - encoded.saved / encoded.bytes if encoded.bytes else guess.reencoded,
        evidence=max(0.0, 1 - evicted.saved / evicted.bytes) if evicted.bytes else guess.evidence,
        result=stock.database / came if stock is not None and came > 1000 else guess.result,
    )


def saved(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Bytes that are not kept, and seconds of work that were not done, by what saved them."""
    sums = _sums(tallies)
    computed, reused, same = sums["received"], sums["reused"], sums["duplicate"]
    each = computed.seconds / computed.count if computed.count else 0.0
    encoded = [row for row in _by_kind(tallies, "reencoded") if row.count]
    return {
        "duplicates": {"images": same.count, "bytes": same.saved, "seconds": round(each * same.count, 1)},
        "near_duplicates": {
            "images": reused.count,
            "seconds": round(max(0.0, each * reused.count - reused.seconds), 1),
        },
        "reencoding": [
            {"kind": row.kind, "images": row.count, "before": row.bytes, "after": row.bytes - row.saved}
            for row in encoded
        ],
        "retention": {
            "originals": sums["original"].count,
            "evidence": sums["evidence"].count,
            "results": sums["result"].count,
            "bytes": sums["original"].saved + sums["evidence"].saved,
        },
    }


def per_million(tallies: Sequence[Tally], policy: Policy, shares: Shares) -> dict[str, Any] | None:
    """What a million images like those of the last days take: bytes as they come, and gigabytes times months in a year."""
    days = history(tallies, policy)
    names: dict[str, Came] = {}
    for came in days.values():
        for name, one in came.items():
            before = names.get(name, Came())
            names[name] = Came(images=before.images + one.images, bytes=before.bytes + one.bytes)
    images = sum(each.images for each in names.values())
    if not images:
        return None
    total = 0.0
    for terms in policy.classes:
        one = names.get(terms.name, Came())
        if one.images:
            total += one.images / images * byte_seconds(terms, shares, one.bytes / one.images, YEAR)
    computed = _sums(tallies)["received"]
    return {
        "bytes": round(MILLION * sum(each.bytes for each in names.values()) / images),
        "gigabyte_months": round(MILLION * total / GB / MONTH, 1),
        "seconds": round(MILLION * computed.seconds / images, 1),
    }


def _forecast(view: Outlook, stock: Stock | None, settings: RetentionSettings, today: date) -> dict[str, Any]:
    now = view.on(today)
    actual = now if stock is None else float(stock.bytes + stock.database)
    points = []
    for ahead in range(0, AHEAD + 1, STEP):
        day = today + timedelta(days=ahead)
        points.append({"day": day.isoformat(), "bytes": round(max(0.0, actual + view.on(day) - now))})
    room = math.inf if stock is None or stock.disk is None else stock.disk.free - RESERVE
    limit = settings.max_bytes
    until = None if limit == 0 else full_on(view, today, limit - actual)
    full = None if math.isinf(room) or (until is not None and limit - actual <= room) else full_on(view, today, room)
    return {
        "full_on": None if full is None else full.isoformat(),
        "limit_on": None if until is None else until.isoformat(),
        "known_days": (today - view.first).days,
        "points": points,
    }


def _days(tallies: Iterable[Tally]) -> list[dict[str, Any]]:
    """One row a day: what came and what went."""
    days: dict[str, dict[str, Any]] = {}
    for row in tallies:
        day = days.setdefault(
            row.day, {"day": row.day, "images": 0, "bytes": 0, "duplicates": 0, "freed": 0, "removed": 0}
        )
        if row.what in {"received", "reused", "duplicate"}:
            day["images"] += row.count
        if row.what in {"received", "reused"}:
            day["bytes"] += row.bytes
        if row.what == "duplicate":
            day["duplicates"] += row.count
        if row.what in {"original", "evidence", "reencoded"}:
            day["freed"] += row.saved
        if row.what == "result":
            day["removed"] += row.count
    return [days[day] for day in sorted(days)]


def _sums(tallies: Iterable[Tally]) -> Mapping[str, Tally]:
    sums: dict[str, Tally] = defaultdict(lambda: Tally(day="", what=""))
    for row in tallies:
        sums[row.what] = _added(sums[row.what], row)
    return sums


def _by_kind(tallies: Iterable[Tally], what: str) -> list[Tally]:
    sums: dict[str, Tally] = {}
    for row in tallies:
        if row.what == what:
            sums[row.kind] = _added(sums.get(row.kind, Tally(day="", what=what, kind=row.kind)), row)
    return sorted(sums.values(), key=lambda row: row.kind)


def _added(one: Tally, other: Tally) -> Tally:
    return Tally(
        day="",
        what=one.what,
        kind=one.kind,
        count=one.count + other.count,
        bytes=one.bytes + other.bytes,
        saved=one.saved + other.saved,
        seconds=one.seconds + other.seconds,
    )
