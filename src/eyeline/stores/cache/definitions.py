"""Which definitions of pipelines somebody has: during a rolling update two live side by side, and a job is for one of them.

Every gateway and worker says in the cache what it has; what nobody has said for a while is gone, and its jobs are done as
their pipeline is defined by then (decision 22).
"""

import time
from collections.abc import Mapping

from eyeline.stores.cache.base import Cache

#: Seconds for which what somebody said holds, and after which it is said again.
HELD, EVERY = 30.0, 10.0


class Definitions:
    """Those of this process, by pipeline: the hex digest of each."""

    def __init__(self, cache: Cache, digests: Mapping[str, str]) -> None:
        self._cache = cache
        self._digests = dict(digests)
        self._told = -EVERY

    async def tell(self) -> None:
        """Say what this process has, where it was not said just now. Raises CacheError."""
        now = time.monotonic()
        if now - self._told < EVERY:
            return
        for pipeline, digest in self._digests.items():
            await self._cache.set(_key(pipeline, digest), b"1", ttl=HELD)
        self._told = now

    def has(self, pipeline: str, digest: str | None) -> bool:
        """Whether this process has it. A job without a digest is for everyone."""
        return digest is None or self._digests.get(pipeline) == digest

    async def lives(self, pipeline: str, digest: str) -> bool:
        """Whether some process had it within the last half minute. Raises CacheError."""
        return await self._cache.get(_key(pipeline, digest)) is not None


def _key(pipeline: str, digest: str) -> str:
    return f"definition/{pipeline}/{digest}"
