"""Running a role: start it, stop it on SIGTERM or SIGINT, give it time to drain."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Literal, Protocol

from eyeline.core.telemetry import claim_metrics, logger

log = logger("service")

_PARENT = "EYELINE_PARENT"

WorkState = Literal["running", "draining", "drained"]


class Service(Protocol):
    """A role. `run` works until `stop` is set, then finishes what is in hand, hands the rest back and returns."""

    async def run(self, stop: asyncio.Event) -> None:
        """Block until stopped and drained. Raises ConfigError where a start makes no sense."""
        ...


class Drainable(Protocol):
    """A role that can be told to take no new work, and to work again, while it goes on running."""

    @property
    def state(self) -> WorkState:
        """Whether it takes work, finishes what it has, or has nothing in hand and takes nothing."""
        ...

    @property
    def in_hand(self) -> int:
        """How much it works on now."""
        ...

    def drain(self, *, wanted: bool) -> None:
        """Take no new work from now on, or work again. Idempotent."""
        ...


async def sleep(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond the stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def _until_signal(make: Callable[[], Service]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    orphan = asyncio.create_task(_stop_when_orphaned(stop))
    try:
        await make().run(stop)
    finally:
        orphan.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await orphan


def tied() -> dict[str, str]:
    """For the environment of a service that this process starts: it ends with this one, however that dies."""
    return {_PARENT: str(os.getpid())}


async def _stop_when_orphaned(stop: asyncio.Event) -> None:
    """Looked at once a second, as not every kernel has a parent-death signal."""
    parent = os.environ.get(_PARENT)
    while parent and not stop.is_set():
        if str(os.getppid()) != parent:
            log.warning("the process that started this one is gone; stopping", parent=parent)
            stop.set()
        await asyncio.sleep(1.0)


def run_service(make: Callable[[], Service]) -> None:
    """Run one role in this process until SIGTERM or SIGINT; a second signal changes nothing."""
    claim_metrics()
    if sys.platform == "win32":
        asyncio.run(_until_signal(make))
        return
    import uvloop  # noqa: PLC0415 - not on every platform

    uvloop.run(_until_signal(make))
