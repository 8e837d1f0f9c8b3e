"""How often somebody may ask: a bucket of tokens for each key, which all gateways share where they share a cache.

Each gateway goes by a bucket of its own, so that no request waits for the cache. What it took it tells the shared bucket a
moment later, all keys at once, and goes by what is left there. So gateways may give more than the rate for that moment; they
owe it then, and give less until it is paid.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from eyeline.core.errors import BackendError, Overloaded
from eyeline.core.telemetry import logger
from eyeline.stores.cache.base import SharedBuckets

log = logger("gateway")

#: Seconds from a token that is taken to when the others know.
EVERY = 0.05


class RateLimit:
    """A token bucket for each key: `rate` a second, with `burst` at once (a quarter of a second's worth, where not given).

    `name` tells its keys from those of other limits in the cache.
    """

    LARGEST = 10_000  # buckets; the one unused longest goes first

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "key",
        burst: float | None = None,
        told: str = "this key may send {rate:g} requests a second; slow down",
    ) -> None:
        self._rate = rate
        self._burst = burst or max(1.0, rate / 4)
        self._clock = clock
        self._name = name
        self._told = told
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._taken: dict[str, float] = {}  # since the others were told last
        self._any = asyncio.Event()

    def take(self, key: str) -> None:
        """One request. Raises Overloaded with the time until the next one fits."""
        if not self._rate:
            return
        tokens, now = self._tokens(key)
        enough = tokens >= 1.0
        self._keep(key, tokens - enough, now)
        if not enough:
            raise Overloaded(self._told.format(rate=self._rate), retry_after=(1.0 - tokens) / self._rate)
        self._note(key, 1.0)

    def give_back(self, key: str) -> None:
        """That one does not count."""
        tokens, now = self._tokens(key)
        self._keep(key, min(self._burst, tokens + 1.0), now)
        self._note(key, -1.0)

    async def share(self, buckets: SharedBuckets) -> None:
        """Go by the buckets of all gateways, for ever. While they are away, each gateway goes by its own."""
        while True:
            await self._any.wait()
            await asyncio.sleep(EVERY)
            try:
                await self.tell(buckets)
            except BackendError as error:
                log.warning("this gateway's limits are its own for now: the cache is not reachable", error=str(error))

    async def tell(self, buckets: SharedBuckets) -> None:
        """Tell what was taken here, and go by what is left. Raises CacheError; what was taken till then is not told again."""
        taken, self._taken = self._taken, {}
        self._any.clear()
        shared = {f"rate/{self._name}/{_digest(key)}": tokens for key, tokens in taken.items()}
        left = await buckets.draw(shared, rate=self._rate, burst=self._burst)
        now = self._clock()
        for key, tokens in zip(taken, left, strict=True):
            self._keep(key, tokens - self._taken.get(key, 0.0), now)

    def _note(self, key: str, tokens: float) -> None:
        self._taken[key] = self._taken.get(key, 0.0) + tokens
        self._any.set()

    def _tokens(self, key: str) -> tuple[float, float]:
        now = self._clock()
        tokens, then = self._buckets.pop(key, (self._burst, now))
        return min(self._burst, tokens + (now - then) * self._rate), now

    def _keep(self, key: str, tokens: float, now: float) -> None:
        self._buckets[key] = (tokens, now)
        if len(self._buckets) > self.LARGEST:
            oldest, _ = self._buckets.popitem(last=False)
            self._taken.pop(oldest, None)


def _digest(key: str) -> str:
    """A name as somebody typed it may be long, or a password in the wrong field: the cache is not told it."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
