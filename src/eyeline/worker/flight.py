"""One computes, the others wait: duplicates and single flight, in this process by futures, between processes by the cache.

A cache that fails is an empty one: the work is then done twice, never wrongly.
"""

import asyncio
from dataclasses import dataclass

import msgspec

from eyeline.core.dedupe import answer_key, leader_key
from eyeline.core.errors import CacheError
from eyeline.core.telemetry import logger
from eyeline.core.types import Job, Result
from eyeline.stores.cache.base import Cache
from eyeline.worker.outcome import Awaited

log = logger("worker")

_result = msgspec.json.Decoder(Result)


@dataclass(frozen=True)
class Lead:
    """The right to compute the answer for one image; `landed` or `failed` gives it up."""

    job: str
    answer: str
    leader: str
    done: "asyncio.Future[Result | None]"


class Flights:
    """The leaders of this worker. answer_ttl: seconds an answer is kept; leader_ttl: seconds until a dead leader is forgotten."""

    def __init__(self, cache: Cache, *, answer_ttl: float, leader_ttl: float) -> None:
        self._cache = cache
        self._answer_ttl = answer_ttl
        self._leader_ttl = leader_ttl
        self._here: dict[str, Lead] = {}

    async def board(self, job: Job, fingerprint: str, *, fresh: bool = False) -> Lead | Result:
        """The answer where there is one, else the lead. Waits for a leader in this process.

        fresh: the gateway looked for an answer a moment ago, so only what happened since then can have brought one: a
        leader, whose key is still there. Raises Awaited where another process leads.
        """
        key = answer_key(job.site, job.blob.sha256, fingerprint)
        while (other := self._here.get(key)) is not None:
            landed = await asyncio.shield(other.done)
            if landed is not None:
                return landed
        lead = Lead(
            job.id,
            key,
            leader_key(job.site, job.blob.sha256, fingerprint),
            asyncio.get_running_loop().create_future(),
        )
        self._here[key] = lead  # before any await: whoever comes next finds it
        try:
            known = await self._known(lead, fresh)
        except BaseException:
            self._give_up(lead, None)
            raise
        if known is not None:
            self._give_up(lead, known)
            return known
        return lead

    async def landed(self, lead: Lead, result: Result) -> None:
        """The result is recorded: the others may use it."""
        self._give_up(lead, result)
        try:
            await self._cache.set(lead.answer, msgspec.json.encode(result), ttl=self._answer_ttl)
        except CacheError as error:
            log.warning("cache not reachable", error=str(error))

    async def failed(self, lead: Lead) -> None:
        """No answer came; one of the others leads now."""
        self._give_up(lead, None)
        try:
            await self._cache.delete(lead.leader, expected=lead.job.encode())
        except CacheError as error:
            log.warning("cache not reachable", error=str(error))

    async def _known(self, lead: Lead, fresh: bool) -> Result | None:
        """The cached answer, or None where this job leads among all processes."""
        me = lead.job.encode()
        try:
            if not fresh and (found := await self._answer(lead)) is not None:
                return found
            holder = await self._cache.add(lead.leader, me, ttl=self._leader_ttl)
            if holder is None or holder == me:
                return None
            # the leader's key outlives its landing, for those who come a little later
            if (found := await self._answer(lead)) is not None:
                return found
        except CacheError as error:
            log.warning("cache not reachable", error=str(error))
            return None
        except msgspec.MsgspecError as error:
            log.warning("an answer in the cache cannot be read", error=str(error))
            return None
        raise Awaited(f"job {holder.decode(errors='replace')} computes this answer")

    async def _answer(self, lead: Lead) -> Result | None:
        found = await self._cache.get(lead.answer)
        return None if found is None else _result.decode(found)

    def _give_up(self, lead: Lead, result: Result | None) -> None:
        if self._here.get(lead.answer) is lead:
            del self._here[lead.answer]
        if not lead.done.done():
            lead.done.set_result(result)
