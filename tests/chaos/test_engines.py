"""Two alert engines at once, the active one killed in the middle: no alert is missed, none comes under a second id."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w

from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.core.types import Classification, Result
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertQuery, ResultStore
from tests.chaos.harness import Receiver
from tests.contract.servers import RESULT_SERVERS


def hits(first: int, count: int) -> list[Result]:
    """One alert each: every camera has one of its own."""
    now = utcnow()
    return [
        Result(
            id=uuid7(),
            status="completed",
            site="north",
            pipeline="parcels",
            camera=f"belt-{number}",
            captured_at=now,
            received_at=now,
            completed_at=now,
            classifications=[Classification("damaged", 0.9, "damage")],
        )
        for number in range(first, first + count)
    ]


async def active(store: ResultStore) -> int:
    """The pid of the engine that holds the name; to be asked when one does, or the asker would have it."""
    return int((await store.hold("alerts", "nobody")).holder.split(":")[1])


async def told(receiver: Receiver, count: int) -> None:
    async with asyncio.timeout(60):
        while len(receiver.alerts) < count:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("scheme", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
async def test_the_one_that_stands_by_goes_on_where_the_active_one_was_killed(
    scheme: str, tmp_path: Path, receiver: Receiver
) -> None:
    url = RESULT_SERVERS[scheme](tmp_path)
    store = open_results(url)
    await store.upgrade()
    rule = {"name": "damaged", "when": "label == 'damaged'", "by": ["camera"], "notify": ["ops"]}
    settings = {
        "data_dir": str(tmp_path / "data"),
        "results": {"url": url},
        "alerts": {"rules": [rule], "channels": [receiver.channel]},
    }
    config = tmp_path / "eyeline.toml"
    config.write_text(tomli_w.dumps(settings))
    words = [sys.executable, "-m", "eyeline", "alerts", "--config", str(config)]
    engines = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        await store.save_many(hits(0, 20))
        await told(receiver, 20)
        first = await active(store)
        saving = asyncio.create_task(_save_on(store, 20, 60))
        await asyncio.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        await saving
        await told(receiver, 80)
        took = time.monotonic() - killed
        second = await active(store)
    finally:
        for engine in engines:
            engine.terminate()
        ended = [engine.wait(20) for engine in engines]
    alerts, _ = await store.find_alerts(AlertQuery(limit=200))
    deliveries = [row for alert in alerts for row in await store.list_deliveries(alert.id)]
    await store.close()
    repeats = len(receiver.got) - len(receiver.alerts)
    print(f"{scheme}: {len(alerts)} alerts, the last one told {took:.1f} s after the kill, {repeats} told again")
    assert {first, second} == {engine.pid for engine in engines}
    assert sorted(ended) == [-signal.SIGKILL, 0]
    assert sorted(alert.body["camera"] for alert in alerts) == sorted(f"belt-{number}" for number in range(80))
    assert {row.state for row in deliveries} == {"delivered"}
    assert len(set(receiver.got)) == len(deliveries) == 80  # what came again came under the same id


async def _save_on(store: ResultStore, first: int, count: int) -> None:
    """One result after the other, before, during and after the kill."""
    for number in range(first, first + count):
        await store.save_many(hits(number, 1))
        await asyncio.sleep(0.01)
