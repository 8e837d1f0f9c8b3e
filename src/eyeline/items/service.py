"""The items role as a service. One at a time: a second one would only do the same again."""

import asyncio

from eyeline.core.errors import BackendError
from eyeline.core.retry import backoff
from eyeline.core.settings import Settings
from eyeline.core.telemetry import logger
from eyeline.items.engine import ItemEngine
from eyeline.stores.results.base import ResultStore

log = logger("items")

#: Seconds between two looks at the event log.
PAUSE = 0.2


class ItemService:
    """Makes items of results until stopped. It owns `results` and closes it."""

    def __init__(self, settings: Settings, results: ResultStore) -> None:
        self._results = results
        self._engine = ItemEngine(settings.pipelines, results, settings.items.reorder)

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        await self._results.upgrade()
        try:
            await self._read_on(stop)
        finally:
            await self._results.close()

    async def _read_on(self, stop: asyncio.Event) -> None:
        """Load, then step, with pauses that grow while the store is away; keep the progress at the end."""
        loaded, failures = False, 0
        while not stop.is_set():
            try:
                if not loaded:
                    await self._engine.load()
                    loaded = True
                count = await self._engine.step()
                failures = 0
            except BackendError as error:
                failures += 1
                log.warning("items wait: the result store does not answer", error=str(error))
                await _sleep(stop, backoff(failures, cap=10.0))
                continue
            if not count:
                await _sleep(stop, PAUSE)
        if loaded:
            await self._engine.keep()


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond the stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
