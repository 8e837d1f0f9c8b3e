"""What engineers watch: figures over time, error budgets, cost, the processes of the system; for the API and the page."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from eyeline.core import figures
from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import InputError
from eyeline.core.figures import WINDOWS, Objective, Range, Sums, Window
from eyeline.core.settings import Settings
from eyeline.core.telemetry import printable
from eyeline.gateway.costs import Costs, cost, per_million
from eyeline.gateway.recorder import MINUTE, QUARTER, WHOLE
from eyeline.inference.servers import Servers
from eyeline.stores.results.base import ReplicaRow, ResultQuery, ResultStore

#: A process that has not reported for so long is silent.
SILENT = 45.0
#: Over how long the error budgets run.
BUDGET_DAYS = 30
#: A budget of which less is left than this is at risk.
LITTLE = 0.1

Metric = Literal["throughput", "errors", "latency", "queue", "api", "utilisation", "depth"]
#: What each metric draws, and in which unit.
LINES: dict[str, tuple[tuple[str, ...], str]] = {
    "throughput": (("throughput",), "images/s"),
    "errors": (("errors",), "share"),
    "latency": (("end_to_end.p50", "end_to_end.p95", "end_to_end.p99"), "s"),
    "queue": (("queue.p50", "queue.p95", "queue.p99"), "s"),
    "api": (("api.p50", "api.p95", "api.p99"), "s"),
    "utilisation": (("utilisation",), "share"),
    "depth": (("depth",), "jobs"),
}
#: These belong to the system, not to a site.
SYSTEM = {"api", "utilisation", "depth"}


@dataclass(frozen=True)
class Tile:
    """A service level as the page shows it: what is drawn, its target, how far it is kept."""

    name: str
    metric: Metric | Literal["cost"]
    line: str
    unit: str
    target: float | None
    better: Literal["below", "above", "shown"]
    objective: Objective | None = None


TILES = (
    Tile("throughput", "throughput", "throughput", "images/s", None, "shown"),
    Tile("queue_wait_p95", "queue", "queue.p95", "s", 1.0, "below", figures.QUEUE),
    Tile("latency_p99", "latency", "end_to_end.p99", "s", 2.0, "below", figures.TOOK),
    Tile("error_rate", "errors", "errors", "share", 0.01, "below", figures.ERRORS),
    Tile("utilisation", "utilisation", "utilisation", "share", 0.70, "above"),
    Tile("cost_per_million", "cost", "cost", "", None, "shown"),
    Tile("api_p99", "api", "api.p99", "s", 0.3, "below", figures.API),
)


#: When, what is drawn, the sums behind it.
Point = tuple[str, dict[str, float | None], Sums]


class Operations:
    """Reads the figures."""

    def __init__(self, settings: Settings, results: ResultStore, servers: Servers | None = None) -> None:
        self._settings = settings
        self._results = results
        self._servers = servers
        self.costs = Costs(settings.cost, results)

    async def series(self, who: Principal, metric: Metric, over: Range, site: str | None) -> dict[str, Any]:
        """One metric over a range. Raises InputError for a site out of reach."""
        lines, unit = LINES[metric]
        drawn = await self._points(who, over, site, whole=metric in SYSTEM)
        return {
            "metric": metric,
            "range": over,
            "site": site,
            "step": WINDOWS[over].point,
            "unit": unit,
            "lines": lines,
            "points": [{"at": at, **{line: values[line] for line in lines}} for at, values, _ in drawn],
        }

    async def report(self, who: Principal, over: Range, site: str | None) -> dict[str, Any]:
        """Everything on the page of operations."""
        rate = await self.costs.rate()
        own, system = await self._both(who, over, site, rate["machines_per_hour"])
        hour = (own, system) if over == "1h" else await self._both(who, "1h", site, rate["machines_per_hour"])
        budgets = await self._budgets(who, site)
        total = figures.added(sums for _, _, sums in own)
        looked = _Looked(over, own, system, *hour, budgets, rate)
        return {
            "range": over,
            "site": site,
            "seconds": WINDOWS[over].seconds,
            "tiles": [_tile(tile, looked) for tile in TILES],
            "images": int(total.get("images", 0)),
            "failed": int(total.get("failed", 0)),
            "stages": figures.stages(total),
            "cost": cost(rate, WINDOWS[over].seconds, total.get("images", 0)),
            "queue": [row for row in await self._results.line() if who.sees(row.site)],
            "replicas": await self.replicas(),
            "slowest": await self._slowest(who, over, site),
        }

    async def replicas(self) -> dict[str, Any]:
        """The processes that report to the store, and the inference servers that answer."""
        now = utcnow()
        rows = [_replica(row, now) for row in await self._results.replicas()]
        servers = await self._servers.about() if self._servers else []
        told = [asdict(server) | {"drainable": bool(server.state)} for server in servers]
        return {"processes": rows, "inference": told}

    async def _both(
        self, who: Principal, over: Range, site: str | None, rate: float
    ) -> tuple[list[Point], list[Point]]:
        """Of the sites, and of the system."""
        own = await self._points(who, over, site, whole=False, rate=rate)
        return own, await self._points(who, over, None, whole=True)

    async def _points(
        self, who: Principal, over: Range, site: str | None, *, whole: bool, rate: float = 0.0
    ) -> list[Point]:
        """Each point in which anything was."""
        window, now = WINDOWS[over], time.time()
        since = int(now - window.seconds) // window.point * window.point
        sites = [WHOLE] if whole else _sites(who, site)
        rows = await self._results.series(window.step, since, sites)
        buckets = [(row.start, row.sums) for row in rows if whole or row.site != WHOLE]
        return await asyncio.to_thread(_drawn, buckets, window, now, rate)

    async def _budgets(self, who: Principal, site: str | None) -> dict[str, dict[str, Any]]:
        """How much of what may fail in thirty days has failed."""
        since = int(time.time()) // QUARTER * QUARTER - BUDGET_DAYS * 86_400
        own = await self._results.series(QUARTER, since, _sites(who, site))
        whole = await self._results.series(QUARTER, since, [WHOLE])
        return await asyncio.to_thread(_budgets, [row.sums for row in own if row.site], [row.sums for row in whole])

    async def _slowest(self, who: Principal, over: Range, site: str | None) -> dict[str, Any] | None:
        """Of the newest hundred results of the range, the one that took longest: its record shows where the time went."""
        since = datetime.fromtimestamp(time.time() - WINDOWS[over].seconds, UTC)
        found, _ = await self._results.find(ResultQuery(sites=who.sites, site=site, since=since, limit=100))
        took = {result.id: (result.completed_at - result.received_at).total_seconds() for result in found}
        if not took:
            return None
        slow = next(result for result in found if result.id == max(took, key=lambda id_: took[id_]))
        return {"id": slow.id, "seconds": round(took[slow.id], 6), "timings": slow.timings, "of": len(found)}


def _drawn(buckets: Sequence[tuple[int, Sums]], window: Window, now: float, rate: float) -> list[Point]:
    return [
        (_at(start), _measures(sums, seconds, rate), sums)
        for start, sums, seconds in figures.points(buckets, window, now)[-600:]
    ]


def _budgets(own: Sequence[Sums], whole: Sequence[Sums]) -> dict[str, dict[str, Any]]:
    own_sums, whole_sums = figures.added(own), figures.added(whole)
    return {
        one.name: figures.budget(one, whole_sums if one is figures.API else own_sums)
        for one in (figures.API, figures.QUEUE, figures.TOOK, figures.ERRORS)
    }


def _measures(sums: Sums, seconds: float, rate: float) -> dict[str, float | None]:
    return figures.measures(sums, seconds) | {"cost": per_million(rate, seconds, sums.get("images", 0))}


def _sites(who: Principal, site: str | None) -> Sequence[str] | None:
    if site is None:
        return who.sites
    if not who.sees(site) or site == WHOLE:
        raise InputError(f"no site is called {printable(site, 60)!r}", code="unknown_site")
    return [site]


def _at(start: float) -> str:
    return isoformat(datetime.fromtimestamp(start, UTC))


@dataclass(frozen=True)
class _Looked:
    """What tiles are made of: the points of the range and of the last hour, of the sites and of the system."""

    over: Range
    own: Sequence[Point]
    system: Sequence[Point]
    own_hour: Sequence[Point]
    system_hour: Sequence[Point]
    budgets: dict[str, dict[str, Any]]
    rate: dict[str, Any]


def _tile(tile: Tile, looked: _Looked) -> dict[str, Any]:
    """The value is of the whole range; the line beside it is of the last hour, whatever the range."""
    whole = tile.metric in SYSTEM
    drawn, hour = (looked.system, looked.system_hour) if whole else (looked.own, looked.own_hour)
    total = figures.added(sums for _, _, sums in drawn)
    value = _measures(total, WINDOWS[looked.over].seconds, looked.rate["machines_per_hour"])[tile.line]
    budget = looked.budgets[tile.objective.name] if tile.objective else None
    return {
        "name": tile.name,
        "metric": tile.metric,
        "line": tile.line,
        "value": value,
        "unit": tile.unit or looked.rate["currency"],
        "target": tile.target,
        "better": tile.better,
        "verdict": _verdict(tile, value, budget),
        "budget": budget,
        "kept": _kept(tile, [values[tile.line] for _, values, _ in drawn]),
        "spark": _minutes(hour, tile.line, time.time()),
    }


def _within(tile: Tile, value: float) -> bool:
    return tile.target is None or (value < tile.target if tile.better == "below" else value >= tile.target)


def _verdict(tile: Tile, value: float | None, budget: dict[str, Any] | None) -> str:
    """At risk is what is within its target now, while its budget is nearly spent."""
    if value is None:
        return "not measured"
    if not _within(tile, value):
        return "missed"
    left = budget["left"] if budget else None
    return "ok" if left is None or left >= LITTLE else "at risk"


def _kept(tile: Tile, values: Sequence[float | None]) -> float | None:
    """The share of the points that were measured and within the target."""
    known = [value for value in values if value is not None]
    if tile.target is None or not known:
        return None
    return round(sum(_within(tile, value) for value in known) / len(known), 4)


def _minutes(hour: Sequence[Point], line: str, now: float) -> list[float | None]:
    """Each of the last sixty minutes; None where nothing was."""
    known = {at: values[line] for at, values, _ in hour}
    last = int(now) // MINUTE * MINUTE
    return [known.get(_at(last - MINUTE * ago)) for ago in range(59, -1, -1)]


def _replica(row: ReplicaRow, now: datetime) -> dict[str, Any]:
    """`drained_at` is what people want of it, `state` what it says that it does."""
    names = ("id", "role", "host", "pid", "version", "started_at", "seen_at", "drained_at")
    body = dict(row.body)
    state = "draining" if body.pop("doing", "running") != "drained" else "drained"
    if row.drained_at is None:
        state = "running"
    if (now - row.seen_at).total_seconds() > SILENT:
        state = "silent"
    return {name: getattr(row, name) for name in names} | body | {"state": state, "drainable": "in_hand" in body}
