"""Figures over time: what every result adds to its minute, and what this gateway measures of itself.

Results are added up from the event log, once, whichever gateway does it: the cursor moves in the transaction that adds
(docs/decisions/0019 names no leader, and needs none). A gateway that was down adds what came meanwhile when it is back.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

from eyeline.core.clock import parse_time
from eyeline.core.errors import BackendError
from eyeline.core.figures import PARTS, added, of_result
from eyeline.core.telemetry import API_SECONDS, logger, metrics_page
from eyeline.core.types import Event
from eyeline.gateway.limits import Admission
from eyeline.stores.results.base import ResultStore, SeriesRow

log = logger("gateway")

PAUSE = 5.0
PAGE = 500
MINUTE, QUARTER, DAY = 60, 900, 86_400
#: Seconds for which buckets of a step are kept: minutes for ranges of up to a day, quarters of an hour for a month.
KEPT = {MINUTE: 2 * DAY, QUARTER: 32 * DAY}
#: The site of what belongs to none.
WHOLE = ""

UTILISATION = "eyeline_accelerator_utilisation{"


class Recorder:
    """One for each gateway."""

    def __init__(self, results: ResultStore, admission: Admission) -> None:
        self._results = results
        self._admission = admission
        self._api: dict[str, float] = {}
        self._looks: list[float] = []

    async def run(self) -> None:
        """Record for ever; a store that is away is waited for, and nothing is lost of what results say."""
        self._api = _api_counts()  # what a longer life of this process brought is not of this minute
        minute = int(time.time()) // MINUTE
        while True:
            self._looks.append(self._admission.waiting())
            try:
                await self.add_results()
                if int(time.time()) // MINUTE != minute:
                    minute = int(time.time()) // MINUTE
                    await self.add_measured(minute * MINUTE - 1)
                    await self._forget(minute * MINUTE)
            except BackendError as error:
                log.warning("figures not kept", error=str(error))
            await asyncio.sleep(PAUSE)

    async def add_results(self) -> None:
        """Add what the event log has since the last time."""
        before = await self._results.series_cursor()
        if before is None:
            await self._results.add_series([], before=None, after=await self._results.last_seq())
            return
        while events := await self._results.tail(before, PAGE):
            rows = await asyncio.to_thread(rows_of, events)
            after = events[-1].seq
            if not await self._results.add_series(rows, before=before, after=after):
                return  # another gateway added these, and goes on
            before = after

    async def add_measured(self, at: float) -> None:
        """Add what this process saw since the last time to the minute of `at`."""
        counts = _api_counts()
        sums = {name: count - self._api.get(name, 0) for name, count in counts.items()}
        self._api = counts
        sums |= {"depth": sum(self._looks), "looks": float(len(self._looks))}
        self._looks.clear()
        sums |= await asyncio.to_thread(_busy)
        await self._results.add_sums(_rows(at, WHOLE, {name: value for name, value in sums.items() if value}))

    async def _forget(self, now: int) -> None:
        for step, seconds in KEPT.items():
            await self._results.prune_series(step, now - seconds)


def rows_of(events: Iterable[Event]) -> list[SeriesRow]:
    """What these events add, by step, minute and site."""
    many: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for event in events:
        if event.kind == "result" and "completed_at" in event.body:  # an erased one has no figures
            at = int(parse_time(str(event.body["completed_at"])).timestamp()) // MINUTE * MINUTE
            many.setdefault((event.site, at), []).append(of_result(event.body))
    rows: dict[tuple[int, int, str], SeriesRow] = {}
    for (site, at), sums in many.items():
        for row in _rows(at, site, added(sums)):
            key = (row.step, row.start, row.site)
            held = rows.get(key)
            rows[key] = row if held is None else _row(*key, added([held.sums, row.sums]))
    return list(rows.values())


def _rows(at: float, site: str, sums: Mapping[str, float]) -> list[SeriesRow]:
    return [_row(step, int(at) // step * step, site, sums) for step in KEPT]


def _row(step: int, start: int, site: str, sums: Mapping[str, float]) -> SeriesRow:
    return SeriesRow(step=step, start=start, site=site, sums=sums)


def _api_counts() -> dict[str, float]:
    """This process's answers so far, by bucket; those that were asked to wait aside."""
    counts = dict.fromkeys((f"api|{part}" for part in PARTS), 0.0)
    for family in API_SECONDS.collect():
        buckets: dict[Any, dict[float, float]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket") and not sample.labels["route"].endswith("?wait"):
                labels = (sample.labels["route"], sample.labels["status"])
                buckets.setdefault(labels, {})[float(sample.labels["le"])] = sample.value
        for cumulative in buckets.values():
            below = 0.0
            for bound in sorted(cumulative):
                counts[f"api|{bound:g}"] += cumulative[bound] - below
                below = cumulative[bound]
    return counts


def _busy() -> dict[str, float]:
    """How busy the accelerators of this installation are, where that is measured. Blocks."""
    shares = [
        float(line.rpartition(" ")[2]) for line in metrics_page().decode().splitlines() if line.startswith(UTILISATION)
    ]
    return {"busy": sum(shares), "busy#": float(len(shares))} if shares else {}
