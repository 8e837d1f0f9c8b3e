"""A key gets its rate, from one gateway and from several together, and comes back when it is told to."""

from contextlib import suppress
from uuid import uuid4

import pytest

from eyeline.core.errors import CacheError, Overloaded
from eyeline.gateway.rates import EVERY, RateLimit
from eyeline.stores.cache.memory import MemoryCache

STEP = 0.005


class Gateways:
    """The limits of several gateways that share a cache, and the clock of all."""

    def __init__(self, count: int, rate: float) -> None:
        self.now = 0.0
        url = f"memory://{uuid4()}"
        self.limits = [RateLimit(rate, lambda: self.now) for _ in range(count)]
        self.caches = [MemoryCache(url, clock=lambda: self.now) for _ in range(count)]

    def asked(self, key: str) -> int:
        """How many of them accept a request now."""
        accepted = 0
        for limit in self.limits:
            with suppress(Overloaded):
                limit.take(key)
                accepted += 1
        return accepted

    async def run(self, seconds: float, *, away: bool = False) -> int:
        """As many requests of one key as there can be, at all of them; how many are accepted."""
        accepted = 0
        for step in range(round(seconds / STEP)):
            self.now += STEP
            accepted += self.asked("a")
            if step % round(EVERY / STEP) == 0 and not away:
                for limit, cache in zip(self.limits, self.caches, strict=True):
                    await limit.tell(cache)
        return accepted


def refused(limit: RateLimit) -> float:
    """Seconds after which the key may come again."""
    while True:
        try:
            limit.take("a")
        except Overloaded as full:
            return full.retry_after


def test_a_key_gets_its_rate_over_time_and_others_are_not_touched() -> None:
    now = 0.0
    limit = RateLimit(20, lambda: now)
    taken = 0
    for _ in range(2000):
        now += 0.005
        with suppress(Overloaded):
            limit.take("a")
            taken += 1
    assert taken == pytest.approx(200, rel=0.05)
    limit.take("b")


def test_the_buckets_are_bounded() -> None:
    limit = RateLimit(1, lambda: 0.0)
    for number in range(limit.LARGEST + 50):
        limit.take(str(number))
    assert len(limit._buckets) <= limit.LARGEST + 1
    assert len(limit._taken) <= limit.LARGEST + 1  # where nobody shares them, nobody is told


@pytest.mark.parametrize(("count", "rate"), [(2, 20.0), (2, 300.0), (5, 40.0)])
async def test_several_gateways_give_a_key_its_rate_once(count: int, rate: float) -> None:
    gateways = Gateways(count, rate)
    accepted = await gateways.run(10.0)
    assert 0.95 * 10 * rate <= accepted <= 1.05 * (10 * rate + rate / 4)
    assert gateways.asked("b") == count  # another key has a bucket of its own
    wait = refused(gateways.limits[0])
    assert 0 < wait <= (count + 1) / rate + EVERY
    gateways.now += wait
    assert gateways.asked("a") >= 1  # it was told the right time


async def test_a_gateway_that_is_new_goes_by_what_the_others_gave() -> None:
    gateways = Gateways(2, 8.0)
    first, second = gateways.limits
    for _ in range(2):
        first.take("a")
    await first.tell(gateways.caches[0])
    second.take("a")
    await second.tell(gateways.caches[1])
    assert refused(second) == pytest.approx(2 / 8)
    second.give_back("a")
    await second.tell(gateways.caches[1])
    assert refused(second) == pytest.approx(1 / 8)


async def test_while_the_cache_is_away_each_gateway_goes_by_its_own_and_nobody_owes_for_it_for_long() -> None:
    gateways = Gateways(2, 20.0)
    await gateways.run(1.0)
    alone = await gateways.run(10.0, away=True)
    assert alone == pytest.approx(2 * 10 * 20, rel=0.05)
    await gateways.caches[0].close()
    with pytest.raises(CacheError):
        await gateways.limits[0].tell(gateways.caches[0])
    await gateways.limits[1].tell(gateways.caches[1])
    gateways.now += 10 * 5 / 20 + 1 / 20  # ten bursts of five
    assert gateways.asked("a") == 2
