"""Answers that are known already: the same bytes at the same site under the same plan need no worker."""

import time
from collections.abc import Iterable

import msgspec

from eyeline.core.dedupe import answer_key, plan_key, read_plan
from eyeline.core.errors import CacheError
from eyeline.core.telemetry import logger
from eyeline.core.types import Result
from eyeline.stores.cache.base import BlockingGet, Cache

log = logger("gateway")

#: The stage that only answers from the cache have in their timings: they were never in the line.
ANSWERED = "cache"
PLAN_AGE = 1.0  # seconds for which a pipeline's fingerprint is believed; workers publish it about that often

_result = msgspec.json.Decoder(Result)


class Answers:
    """Looks answers up in the cache. A cache that fails is an empty one: the worker computes then."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._blocking = cache if isinstance(cache, BlockingGet) else None
        self._plans: dict[str, tuple[float, bytes | None]] = {}

    @property
    def blocking(self) -> bool:
        """Whether `known_now` can be used."""
        return self._blocking is not None

    def known_now(self, site: str, pipeline: str, sha256: str) -> Result | None:
        """`known` for a caller who is in a thread of its own already."""
        cache = self._blocking
        assert cache is not None  # noqa: S101 - `blocking` tells
        try:
            held, plan = self._believed(pipeline)
            if not held:
                plan = self._believe(pipeline, cache.get_now(plan_key(pipeline)))
            return _result_of(cache.get_now(answer_key(site, sha256, read_plan(plan, site)))) if plan else None
        except CacheError as error:
            log.warning("cache not reachable", error=str(error))
        return None

    async def known(self, site: str, pipeline: str, sha256: str) -> Result | None:
        """The completed result of these bytes here, or None."""
        try:
            held, plan = self._believed(pipeline)
            if not held:
                plan = self._believe(pipeline, await self._cache.get(plan_key(pipeline)))
            return _result_of(await self._cache.get(answer_key(site, sha256, read_plan(plan, site)))) if plan else None
        except CacheError as error:
            log.warning("cache not reachable", error=str(error))
        return None

    async def unpublished(self, pipelines: Iterable[str]) -> list[str]:
        """Those pipelines that no worker has said it runs. Raises CacheError."""
        return [name for name in pipelines if await self._cache.get(plan_key(name)) is None]

    def _believed(self, pipeline: str) -> tuple[bool, bytes | None]:
        """Whether what the pipeline runs is known well enough, and what that is."""
        then, plan = self._plans.get(pipeline, (-PLAN_AGE, None))
        return time.monotonic() - then < PLAN_AGE, plan

    def _believe(self, pipeline: str, found: bytes | None) -> bytes | None:
        """What the pipeline runs now; nothing is reused before a worker has said so."""
        self._plans[pipeline] = (time.monotonic(), found)
        return found


def _result_of(found: bytes | None) -> Result | None:
    try:
        return _result.decode(found) if found else None
    except msgspec.DecodeError as error:
        log.warning("an answer in the cache cannot be read", error=str(error))
        return None
