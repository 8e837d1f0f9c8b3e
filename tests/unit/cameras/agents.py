"""Running an agent in a test, and its books."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from eyeline.cameras.agent import CameraAgent
from eyeline.cameras.spool import Counts, Spool
from eyeline.core.settings import CameraSettings
from tests.system import patience
from tests.unit.cameras.gateway import SmallGateway


@contextlib.asynccontextmanager
async def running_agent(
    folder: Path, gateway: SmallGateway, url: str, *, mqtt: str = "", **camera: Any
) -> AsyncIterator[CameraAgent]:
    settings = CameraSettings(name="belt", url=url, **camera)
    agent = CameraAgent(settings, gateway.url, folder / "spool", None, mqtt)
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    try:
        await until(lambda: task.done() or hasattr(agent, "_trigger"), 20)
        yield agent
    finally:
        stop.set()
        await task
        _tell(folder, gateway)


def _tell(folder: Path, gateway: SmallGateway) -> None:
    """A row of the table of camera faults (pytest -s): fault, what was said of the camera, how its frames add up."""
    fault = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition(" ")[0]
    said = {name for each in gateway.reports if each["health"] for name in each["health"]["conditions"]}
    said |= {"offline" for each in gateway.reports if each["state"] == "offline"}
    counts = books(folder)
    print(
        f"| {fault} | {', '.join(sorted(said)) or 'nothing'} | {counts.captured} = {counts.accepted} accepted + "
        f"{counts.dropped or 'none'} dropped + {counts.spooled + counts.in_hand} kept here | {closes(counts)} |"
    )


@contextlib.asynccontextmanager
async def small_gateway() -> AsyncIterator[SmallGateway]:
    small = SmallGateway()
    await small.start()
    try:
        yield small
    finally:
        await small.stop()


async def until(condition: Callable[[], Any], seconds: float, said: Callable[[], object] = lambda: "") -> None:
    try:
        async with asyncio.timeout(patience(seconds)):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {said()}") from None


def books(folder: Path) -> Counts:
    """Read when no agent runs."""
    spool = Spool(folder / "spool", 10**9)
    counts = spool.counts()
    spool.close()
    return counts


def closes(counts: Counts) -> bool:
    return counts.captured == counts.accepted + sum(counts.dropped.values()) + counts.spooled + counts.in_hand
