"""What is down outside. While anything is, the worker receives nothing: it probes, with longer and longer pauses."""

import asyncio
from collections.abc import Awaitable, Callable

from eyeline.core.errors import BackendError
from eyeline.core.retry import backoff
from eyeline.core.telemetry import logger

log = logger("worker")

Probe = Callable[[], Awaitable[object]]


class Outages:
    """Dependencies that failed, each with a probe that is tried until it no longer raises BackendError."""

    def __init__(self, ended: Callable[[], object], *, base: float = 0.2, cap: float = 5.0) -> None:
        self._ended = ended  # called when a dependency is back
        self._base = base
        self._cap = cap
        self._probing: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> list[str]:
        """What is down now."""
        return sorted(self._probing)

    def report(self, name: str, error: Exception, probe: Probe) -> None:
        """Something failed; stop receiving until `probe` succeeds."""
        if name in self._probing:
            return
        log.warning("waiting for a dependency", dependency=name, error=str(error))
        self._probing[name] = asyncio.create_task(self._until_up(name, probe))

    async def close(self) -> None:
        """Stop probing."""
        tasks = list(self._probing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_up(self, name: str, probe: Probe) -> None:
        attempt = 0
        try:
            while True:
                attempt += 1
                await asyncio.sleep(backoff(attempt, base=self._base, cap=self._cap))
                try:
                    await probe()
                except BackendError:
                    continue
                log.info("the dependency is back", dependency=name)
                return
        finally:
            del self._probing[name]
            self._ended()
