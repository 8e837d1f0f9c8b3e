"""The gateway's look at its queue: as often as its broker's prices allow, and at once again while it is away."""

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from eyeline.core.errors import QueueError
from eyeline.core.types import QueueStats
from eyeline.gateway import system
from eyeline.queues.base import Abilities


class Priced:
    """A queue that is away at first, and counts how often it is asked."""

    abilities: ClassVar[Abilities] = Abilities(look_every=3600.0)

    def __init__(self) -> None:
        self.asked = 0

    async def stats(self) -> QueueStats:
        self.asked += 1
        if self.asked < 3:
            raise QueueError("away")
        return QueueStats(depth=1, in_flight=0, oldest_age=None)


async def test_a_look_that_is_paid_for_is_rare_unless_the_queue_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0

    async def nothing(_state: Any) -> list[str]:
        nonlocal rounds
        rounds += 1
        return []

    monkeypatch.setattr(system, "WATCH", 0.0)
    monkeypatch.setattr(system, "_unready_models", nothing)
    monkeypatch.setattr(system, "_look_for_workers", nothing)
    queue = Priced()
    state: Any = SimpleNamespace(queue=queue, troubles={}, known=SimpleNamespace(pipelines={"one"}), unready_models=())
    watching = asyncio.create_task(system.watch(state))
    while rounds < 20:
        await asyncio.sleep(0)
    watching.cancel()
    assert (queue.asked, state.troubles) == (3, {})
