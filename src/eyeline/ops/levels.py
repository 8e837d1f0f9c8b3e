"""Service levels over the last minutes, told to the event log: so that rules can be about them (docs/alerts.md).

The table of slo.py is about all the time since a start; who is to be called needs what is so now.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eyeline.core.errors import BackendError
from eyeline.core.figures import quantile
from eyeline.core.ids import uuid7
from eyeline.core.telemetry import logger, metrics_page
from eyeline.ops.slo import Buckets, Samples, merged, prompt, read
from eyeline.stores.results.base import ResultStore

log = logger("slo")

#: Seconds between measurements, of the short and of the long window.
EVERY, SHORT, LONG = 15.0, 300.0, 3600.0


@dataclass(frozen=True)
class Reading:
    """What one scrape says of the levels; all but `utilisation` only ever grows."""

    at: float
    api: Buckets
    wait: Buckets
    images: Mapping[str, float]
    utilisation: float | None


def reading(samples: Samples, at: float) -> Reading:
    """The part of a scrape that levels are made of."""
    images = {
        dict(key).get("status", ""): value for key, value in samples.values.get("eyeline_images_total", {}).items()
    }
    busy = samples.values.get("eyeline_accelerator_utilisation", {})
    return Reading(
        at,
        merged(prompt(samples.histograms.get("eyeline_api_request_seconds", {}))),
        merged(samples.histograms.get("eyeline_queue_wait_seconds", {}).values()),
        images,
        sum(busy.values()) / len(busy) if busy else None,
    )


class Levels:
    """The readings of the last hour."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()

    def add(self, new: Reading) -> None:
        """Keep it, and forget what no window needs."""
        self._readings.append(new)
        while len(self._readings) > 2 and self._readings[1].at <= new.at - LONG:
            self._readings.popleft()

    def measured(self) -> dict[str, dict[str, float]]:
        """Level → its value over the last five minutes, and over the last hour; only those that were measured."""
        short, long = self._over(SHORT), self._over(LONG)
        return {name: {"value": value, "hour": long[name]} for name, value in short.items() if name in long}

    def _over(self, seconds: float) -> dict[str, float]:
        new = self._readings[-1]
        old = next(
            each for each in reversed(self._readings) if each.at <= new.at - seconds or each is self._readings[0]
        )
        window = [each for each in self._readings if each.at > new.at - seconds]
        images = _grown(new.images, old.images)
        total = sum(images.values())
        busy = [each.utilisation for each in window if each.utilisation is not None]
        found = {
            "api_response": quantile(_grown(new.api, old.api), 0.99),
            "queue_wait": quantile(_grown(new.wait, old.wait), 0.99),
            "error_rate": images.get("failed", 0.0) / total if total else None,
            "utilisation": sum(busy) / len(busy) if busy else None,
        }
        return {name: round(value, 6) for name, value in found.items() if value is not None}


def _grown(new: Mapping[Any, float], old: Mapping[Any, float]) -> dict[Any, float]:
    """How much each count grew. Counts that fell have begun anew: then all of it is new."""
    fell = any(new.get(name, 0.0) < value for name, value in old.items())
    return {name: value - (0.0 if fell else old.get(name, 0.0)) for name, value in new.items()}


class LevelService:
    """Measures every fifteen seconds and appends what it measured. It owns `results` and closes it."""

    def __init__(self, results: ResultStore, every: float = EVERY) -> None:
        self._results = results
        self._every = every
        self._levels = Levels()

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        try:
            while not await _stopped(stop, self._every):
                await self._measure()
        finally:
            await self._results.close()

    async def _measure(self) -> None:
        page = await asyncio.to_thread(metrics_page)
        self._levels.add(reading(await asyncio.to_thread(read, page.decode()), time.monotonic()))
        if not (levels := self._levels.measured()):
            return
        body = {"type": "slo", "id": uuid7(), "seconds": SHORT, "levels": levels}
        try:
            await self._results.add_event("system", "default", body)
        except BackendError as error:
            log.warning("service levels were not told", error=str(error))


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long, but not beyond the stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
