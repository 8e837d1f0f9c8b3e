"""Whom of several inference servers a request goes to, and that a second one is asked the very same."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from eyeline.core.errors import InferenceUnavailable
from eyeline.core.types import ModelRef
from eyeline.inference.base import ServedModel
from eyeline.inference.client import InferenceClient, Unanswered
from eyeline.inference.replicas import Replica, Replicas, _less_busy
from eyeline.pipeline.contract import ModelContract

PICTURES = {"images": np.zeros((1, 2, 2, 3), np.uint8)}


class Server:
    """Stands where a client of one server stands; `turns` of the loop is how long it computes, `error` what it does instead."""

    near = False

    def __init__(self, turns: int = 0, error: Exception | None = None) -> None:
        self.turns = turns
        self.error = error
        self.asked: list[str] = []

    async def model(self, name: str) -> ServedModel:
        contract = cast(ModelContract, None)  # nobody reads it here
        return ServedModel(contract=contract, ref=ModelRef(name, "1", "x", "f32"), fingerprint="same", outputs={})

    async def predict(self, _model: str, _inputs: Any, *, request_id: str, **_more: Any) -> dict[str, Any]:
        self.asked.append(request_id)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return {"scores": np.zeros((1, 2), np.float32)}

    async def alive(self) -> None:
        raise InferenceUnavailable("no")

    async def close(self) -> None:
        """Nothing is held."""


def replicas(servers: Sequence[Server]) -> Replicas:
    made = Replicas([f"http://127.0.0.1:{number + 1}" for number in range(len(servers))], Path())
    for replica, server in zip(made._replicas, servers, strict=True):
        replica.client = cast(InferenceClient, server)
    return made


@pytest.mark.parametrize("error", [Unanswered("cut off", sent=True), InferenceUnavailable("full")])
async def test_the_second_replica_is_asked_under_the_same_id(error: Exception) -> None:
    failing, well = Server(error=error), Server()
    both = replicas([failing, well])
    both._replicas[1].outstanding = 1  # the first one is asked first
    await both.predict("m", PICTURES, timeout=5, request_id="job-7")
    assert failing.asked == well.asked == ["job-7"]
    assert both._replicas[0].well is not isinstance(error, Unanswered)  # a full one is not left out
    assert [replica.outstanding for replica in both._replicas] == [0, 1]
    await both.close()


def test_of_two_drawn_the_less_busy_one_is_asked_and_never_the_busiest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "sample", random.Random(7).sample)
    found = [Replica(str(number), cast(InferenceClient, Server()), outstanding=number) for number in range(4)]
    drawn = Counter(int(_less_busy(found).url) for _ in range(6000))
    assert [drawn[number] / 6000 for number in range(4)] == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0.0], abs=0.02)
    assert _less_busy(found[3:]) is found[3]


async def test_a_slow_replica_gets_less_and_the_others_share_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "sample", random.Random(7).sample)
    servers = [Server(40), Server(4), Server(4)]
    three, left = replicas(servers), iter(range(300))

    async def caller() -> None:
        for number in left:
            await three.predict("m", PICTURES, timeout=60, request_id=str(number))

    await asyncio.gather(*(caller() for _ in range(12)))
    slow, *fast = [len(server.asked) for server in servers]
    assert slow < 0.5 * min(fast)  # a third each, were they asked in turn
    assert max(fast) < 1.4 * min(fast)
    await three.close()
