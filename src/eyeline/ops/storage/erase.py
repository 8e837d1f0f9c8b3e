"""Erasure on request: what a camera, a time or a ref names, over every store. First what it would be, then it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.dedupe import answers_of
from eyeline.core.errors import ConfigError
from eyeline.core.types import Result
from eyeline.ops.storage.keeper import GRACE, Keeper
from eyeline.stores.cache.base import Cache
from eyeline.stores.results.base import ResultQuery, ResultStore

#: Results in one transaction, and seconds between two looks for pictures that may be deleted by now.
PART, LOOK = 200, 2.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is to be erased: results that fit all of it. Times are about `captured_at`."""

    camera: str | None = None
    ref: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def query(self) -> ResultQuery:
        """As the result store asks. Raises ConfigError where it names nothing, which would be everything."""
        if all(value is None for value in (self.camera, self.ref, self.since, self.until)):
            raise ConfigError("erase what? Name a --camera, a --ref, or a time with --since and --until")
        return ResultQuery(camera=self.camera, ref=self.ref, since=self.since, until=self.until, limit=PART)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a scope fits: ids to erase, and what it comes to; `held`: those that stay, by the id of a hold."""

    ids: list[str] = field(default_factory=list)
    cameras: Mapping[str, int] = field(default_factory=dict)
    pictures: int = 0
    bytes: int = 0
    first: datetime | None = None
    last: datetime | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    unfinished: int = 0


async def look(results: ResultStore, scope: Scope) -> Found:
    """Changes nothing. Unfinished jobs are counted by camera only: what their results will fit is not known yet."""
    holds = await results.holds()
    shown = await results.sightings([hold.item for hold in holds if hold.item is not None])
    ids: list[str] = []
    cameras, held = Counter[str](), Counter[str]()
    pictures: dict[str, int] = {}
    times: list[datetime] = []
    async for result in _fitting(results, scope):
        items = {sighting.item_id for sighting in shown if sighting.result_id == result.id}
        hold = next((each for each in holds if each.covers(result, items)), None)
        if hold is not None:
            held[hold.id] += 1
            continue
        ids.append(result.id)
        cameras[result.camera or "(none)"] += 1
        times = [min([*times, result.captured_at]), max([*times, result.captured_at])]
        if result.image is not None:
            pictures[f"{result.site}/{result.image.sha256}"] = result.image.bytes
    waiting = (await results.unfinished()).by_camera
    return Found(
        ids=ids,
        cameras=cameras,
        pictures=len(pictures),
        bytes=sum(pictures.values()),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        held=held,
        unfinished=waiting.get(scope.camera, 0) if scope.camera is not None else sum(waiting.values()),
    )


async def _fitting(results: ResultStore, scope: Scope) -> AsyncIterator[Result]:
    query = scope.query()
    while True:
        page, cursor = await results.find(query)
        for result in page:
            yield result
            if scope.ref is not None:  # what other models said of its picture bears its id for a ref
                for aside in (await results.find(ResultQuery(ref=result.id, limit=PART)))[0]:
                    yield aside
        if cursor is None:
            return
        query = replace(query, cursor=cursor)


async def erase(
    results: ResultStore,
    cache: Cache,
    keeper: Keeper,
    found: Found,
    *,
    reason: str = "",
    by: str = "",
    progress: Progress = lambda _done, _total: None,
) -> int:
    """Erase what was found: answers in the cache, then results with all that tells of them, then pictures. Returns how many
    results there still were. A death on the way leaves something to be found again.

    The last pictures go a minute later, so that no upload of the same bytes loses its own.
    """
    gone = 0
    for start in range(0, len(found.ids), PART):
        part = found.ids[start : start + PART]
        there = await results.get_many(part)
        keys = {answers_of(each.site, each.image.sha256) for each in there.values() if each.image is not None}
        await cache.forget(sorted(keys))
        gone += len(await results.erase(part, by=by, reason=reason))
        progress(min(start + PART, len(found.ids)), len(found.ids))
    await _until_deleted(results, keeper)
    return gone


async def _until_deleted(results: ResultStore, keeper: Keeper) -> None:
    """Delete the pictures that were marked, here or by whoever retains; both may."""
    asked = isoformat(utcnow())
    deadline = asyncio.get_running_loop().time() + 2 * GRACE
    while asyncio.get_running_loop().time() < deadline:
        more = await keeper.drop()
        if not any(row.at <= asked for row in await results.pending_pictures(PART)):
            return
        if not more:
            await asyncio.sleep(LOOK)
