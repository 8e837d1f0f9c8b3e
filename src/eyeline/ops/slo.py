"""The service level table: what was measured, against what target, and which stage is to blame where it is missed.

Everything comes from the Prometheus histograms of section 12, so a scrape of /metrics gives the same figures.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from eyeline.core.figures import quantile
from eyeline.core.telemetry import metrics_page

Buckets = dict[float, float]  # upper bound -> cumulative count
STARTED = time.monotonic()


@dataclass(frozen=True)
class Row:
    """One line of the table. `verdict` is ok, missed or not measured; `blame` names the slowest stage where it is missed."""

    name: str
    measured: float | None
    unit: str
    target: str
    verdict: str
    blame: str | None = None


@dataclass
class Samples:
    """What one scrape says: histograms by name and labels, counters and gauges by name."""

    histograms: dict[str, dict[tuple[tuple[str, str], ...], Buckets]]
    sums: dict[str, dict[tuple[tuple[str, str], ...], tuple[float, float]]]
    values: dict[str, dict[tuple[tuple[str, str], ...], float]]


def read(page: str) -> Samples:
    """The samples of a Prometheus text page."""
    samples = Samples({}, {}, {})
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key not in ("le", "pid")}
            key = tuple(sorted(labels.items()))
            if sample.name.endswith("_bucket"):
                buckets = samples.histograms.setdefault(family.name, {}).setdefault(key, {})
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
            elif family.type == "histogram" and sample.name.endswith(("_sum", "_count")):
                total, count = samples.sums.setdefault(family.name, {}).get(key, (0.0, 0.0))
                is_sum = sample.name.endswith("_sum")
                samples.sums[family.name][key] = (total + sample.value * is_sum, count + sample.value * (not is_sum))
            else:
                samples.values.setdefault(sample.name, {})[key] = sample.value
    return samples


def merged(groups: Iterable[Buckets]) -> Buckets:
    """Histograms with the same buckets added up (they are mergeable over labels and replicas)."""
    total: Buckets = {}
    for buckets in groups:
        for bound, count in buckets.items():
            total[bound] = total.get(bound, 0.0) + count
    return total


def prompt(groups: dict[tuple[tuple[str, str], ...], Buckets]) -> list[Buckets]:
    """Those of requests that did not ask to be kept waiting (`wait=`)."""
    return [buckets for key, buckets in groups.items() if not dict(key).get("route", "").endswith("?wait")]


def slowest_stage(samples: Samples, stages: tuple[str, ...] | None = None) -> str | None:
    """The stage with the largest mean time, with that mean in words."""
    means = {
        dict(key)["stage"]: total / count
        for key, (total, count) in samples.sums.get("eyeline_stage_seconds", {}).items()
        if count and (stages is None or dict(key)["stage"] in stages)
    }
    if not means:
        return None
    worst = max(means, key=lambda stage: means[stage])
    return f"{worst} ({means[worst] * 1000:.1f} ms on average)"


def table(samples: Samples, elapsed: float) -> list[Row]:
    """The five rows; `elapsed` is the seconds over which the counters ran."""
    api = quantile(merged(prompt(samples.histograms.get("eyeline_api_request_seconds", {}))), 0.99)
    wait = quantile(merged(samples.histograms.get("eyeline_queue_wait_seconds", {}).values()), 0.99)
    images = {dict(key).get("status"): value for key, value in samples.values.get("eyeline_images_total", {}).items()}
    total = sum(images.values())
    errors = images.get("failed", 0.0) / total if total else None
    busy = samples.values.get("eyeline_accelerator_utilisation", {})
    utilisation = sum(busy.values()) / len(busy) if busy else None
    return [
        _row("API response p99", api, "s", "< 0.3", lambda value: value < 0.3, "store (fsync)" if api else None),
        _row("queue wait p99", wait, "s", "< 1", lambda value: value < 1.0, slowest_stage(samples)),
        _row(
            "GPU utilisation",
            utilisation,
            "share",
            "0.70 to 0.85",
            lambda value: value >= 0.70,
            "too few images in flight",
        ),
        _row(
            "error rate",
            errors,
            "share",
            "< 0.01",
            lambda value: value < 0.01,
            "failed results (eyeline results --status failed)",
        ),
        _row("images per second", total / elapsed if total else None, "1/s", "shown", lambda _: True, None),
    ]


def _row(name: str, measured: float | None, unit: str, target: str, good: Any, blame: str | None) -> Row:
    if measured is None:
        return Row(name, None, unit, target, "not measured")
    well = bool(good(measured))
    return Row(name, round(measured, 4), unit, target, "ok" if well else "missed", None if well else blame)


async def slo_report() -> dict[str, Any]:
    """What GET /v1/slo answers: the table over the time since this process started, and the mean of each stage."""
    import asyncio  # noqa: PLC0415 - only this door is async

    page = await asyncio.to_thread(metrics_page)
    samples = await asyncio.to_thread(read, page.decode())
    elapsed = max(time.monotonic() - STARTED, 1e-3)
    stages = {
        dict(key)["stage"]: round(total / count, 6)
        for key, (total, count) in samples.sums.get("eyeline_stage_seconds", {}).items()
        if count
    }
    return {
        "window_seconds": round(elapsed, 1),
        "rows": [vars(row) for row in table(samples, elapsed)],
        "stages": stages,
    }
