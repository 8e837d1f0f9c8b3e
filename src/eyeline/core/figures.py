"""Figures that add up: sums by name, histograms among them, over minutes, sites and processes (docs/metrics.md).

A histogram is a name with its bounds, `queue|0.3`: how many were above the bound before and not above this one. A sum of
seconds is `stage.decode+`, the number of them `stage.decode#`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from eyeline.core.clock import parse_time
from eyeline.core.telemetry import LATENCY

Sums = Mapping[str, float]
BOUNDS = (*LATENCY, float("inf"))
PARTS = {f"{bound:g}": bound for bound in BOUNDS}

Range = Literal["15m", "1h", "6h", "24h", "7d", "30d"]


@dataclass(frozen=True)
class Window:
    """A range of time: how long, from buckets of which step, each point how long. Never over 600 points."""

    seconds: int
    step: int
    point: int


WINDOWS: dict[Range, Window] = {
    "15m": Window(900, 60, 60),
    "1h": Window(3600, 60, 60),
    "6h": Window(21_600, 60, 60),
    "24h": Window(86_400, 60, 180),
    "7d": Window(604_800, 900, 1800),
    "30d": Window(2_592_000, 900, 7200),
}


@dataclass(frozen=True)
class Objective:
    """A promise that can be counted: of `total`, at least the share `aim` is good."""

    name: str
    aim: float
    words: str


API = Objective("api", 0.99, "99 % of requests answered within 0.3 s")
QUEUE = Objective("queue", 0.99, "99 % of images in a worker's hand within 1 s")
TOOK = Objective("latency", 0.99, "99 % of images with their result within 2 s")
ERRORS = Objective("errors", 0.99, "99 % of images completed")


def observed(name: str, seconds: float) -> str:
    """The bucket into which this one falls."""
    return f"{name}|{BOUNDS[bisect_left(BOUNDS, seconds)]:g}"


def of_result(result: Mapping[str, Any]) -> dict[str, float]:
    """What one result, as the API tells it, adds to its site's figures."""
    timings: Mapping[str, float] = result.get("timings") or {}
    sums: dict[str, float] = {"images": 1, observed("end_to_end", _took(result)): 1}
    if result.get("status") == "failed":
        sums["failed"] = 1
    if result.get("duplicate_of") is not None:
        sums["duplicates"] = 1
    if "queue" in timings:
        sums[observed("queue", timings["queue"])] = 1
    for stage, seconds in timings.items():
        sums[f"stage.{stage}+"] = seconds
        sums[f"stage.{stage}#"] = 1
    return sums


def _took(result: Mapping[str, Any]) -> float:
    return max(0.0, (_moment(result["completed_at"]) - _moment(result["received_at"])).total_seconds())


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else parse_time(str(value))


def added(many: Iterable[Sums]) -> dict[str, float]:
    """All of them together."""
    total: dict[str, float] = {}
    for sums in many:
        for name, value in sums.items():
            total[name] = total.get(name, 0) + value
    return total


def histogram(sums: Sums, name: str) -> dict[float, float]:
    """Upper bound → how many were not above it, as Prometheus has it; empty where nothing was observed."""
    counts = {bound: sums.get(f"{name}|{part}", 0.0) for part, bound in PARTS.items()}
    if not any(counts.values()):
        return {}
    total = 0.0
    return {bound: (total := total + count) for bound, count in counts.items()}


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The value below which `share` of the observations lie, linear within its bucket as Prometheus' histogram_quantile."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] == 0:
        return None
    rank = share * buckets[bounds[-1]]
    below, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return lower
            width = buckets[bound] - below
            return lower + (bound - lower) * ((rank - below) / width if width else 1.0)
        below, lower = buckets[bound], bound
    return lower


def within(sums: Sums, name: str, seconds: float) -> tuple[float, float]:
    """(how many took no longer, how many there were); `seconds` is one of the bounds."""
    buckets = histogram(sums, name)
    return (buckets[seconds], buckets[float("inf")]) if buckets else (0.0, 0.0)


def counted(objective: Objective, sums: Sums) -> tuple[float, float]:
    """(good ones, all of them)."""
    if objective is API:
        return within(sums, "api", 0.3)
    if objective is QUEUE:
        return within(sums, "queue", 1.0)
    if objective is TOOK:
        return within(sums, "end_to_end", 2.0)
    images = sums.get("images", 0.0)
    return images - sums.get("failed", 0.0), images


def budget(objective: Objective, sums: Sums) -> dict[str, Any]:
    """How much of what may fail has failed: `left` is 1 at the start, 0 when the promise is just kept, below when it is not."""
    good, total = counted(objective, sums)
    allowed = total * (1 - objective.aim)
    return {
        "objective": objective.words,
        "aim": objective.aim,
        "good": good,
        "total": total,
        "left": None if not total else round(1 - (total - good) / allowed, 4),
    }


def measures(sums: Sums, seconds: float) -> dict[str, float | None]:
    """Everything that can be drawn, by name, from the sums of one point of so many seconds."""
    images, looks, busy = sums.get("images", 0.0), sums.get("looks", 0.0), sums.get("busy#", 0.0)
    found: dict[str, float | None] = {
        "throughput": images / seconds if images else None,
        "errors": sums.get("failed", 0.0) / images if images else None,
        "depth": sums.get("depth", 0.0) / looks if looks else None,  # a sum of nothing is not written down
        "utilisation": sums.get("busy", 0.0) / busy if busy else None,
    }
    for name in ("end_to_end", "queue", "api"):
        buckets = histogram(sums, name)
        found |= {f"{name}.{part}": quantile(buckets, share) for part, share in PERCENTILES.items()}
    return {name: None if value is None else round(value, 6) for name, value in found.items()}


PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def stages(sums: Sums) -> dict[str, float]:
    """The mean seconds of each stage."""
    names = (name[6:-1] for name in sums if name.startswith("stage.") and name.endswith("#"))
    return {name: round(sums[f"stage.{name}+"] / sums[f"stage.{name}#"], 6) for name in sorted(names)}


def points(
    buckets: Sequence[tuple[int, Sums]], window: Window, until: float
) -> list[tuple[int, dict[str, float], float]]:
    """The buckets joined to points: (its start, its sums, its seconds so far). Where nothing was, there is no point."""
    joined: dict[int, list[Sums]] = {}
    for start, sums in buckets:
        joined.setdefault(start - start % window.point, []).append(sums)
    return [
        (start, added(many), max(1.0, min(float(window.point), until - start)))
        for start, many in sorted(joined.items())
        if start < until
    ]
