"""Retention at work: counts what comes, and lets go in small batches what has been kept for long enough.

    results recorded ──▶ tallies by day            (once each, by the event log's cursor)
    results that are old enough ──▶ encode anew ──▶ evidence instead of the original ──▶ nothing, and the result goes

Every stage walks through results by their id, which is the time of their reception, with a cursor in the database. A picture is
first marked, in the transaction that sees that nothing needs it any more, and its blobs are deleted a little later, so that
whoever puts the same picture again meanwhile is seen. A death on any line means that something is done again, which is harmless.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.dedupe import answers_of
from eyeline.core.errors import BlobError
from eyeline.core.ids import first_id, moment_of
from eyeline.core.settings import RetentionSettings
from eyeline.core.telemetry import RETAINED, RETAINED_BYTES
from eyeline.core.types import BlobRef, Event, Result
from eyeline.ops.storage import pictures
from eyeline.ops.storage.policy import Policy, Stage, Terms
from eyeline.ops.storage.stock import Stock, sweep_orphans, take_stock
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache.base import Cache
from eyeline.stores.results.base import Action, ResultStore
from eyeline.stores.results.keeping import EPOCH, PROGRESS
from eyeline.stores.results.retaining import REENCODED, PictureRow, Tally

#: Results looked at in one step: at first, and at least and at most once it is known how long one takes here. A step of so many
#: seconds is in nobody's way: its transaction, for which other writers may wait, is a part of it.
BATCH, FEWEST, MOST, STEP = 25, 10, 100, 0.2
#: Events counted in one step.
PAGE = 500
#: Pictures read, written or deleted at the same time, so that they share the waiting for the disk.
AT_ONCE = 8
#: Seconds between the mark and the deletion: the gateway is done long before with a picture that it put before the mark.
GRACE = 60.0
#: Pictures younger than this stay whatever is full.
YOUNG = timedelta(hours=1)
#: Seconds between two looks at everything there is, and how many times longer than such a look takes they are at least.
STOCK_EVERY, STOCK_REST = 600.0, 60
ORPHANS_EVERY = 24 * 3600.0
#: Seconds between two looks whether the database needs room for the results that come.
ROOM_EVERY = 600.0
#: Under these names the database keeps how far counting came, and what there was at the last look.
COUNTED, STOCK = "storage/counted", "storage/stock"
WHO = "retention"
#: What the deletion of marked pictures is called among the works whose steps have a size.
PENDING = "pending"

T = TypeVar("T")
Work = Callable[[], Awaitable[bool]]


class Keeper:
    """Does one batch at a time. `clock` tells the time from which ages count; `cache_ttl`: how long an answer may lie there."""

    def __init__(
        self,
        settings: RetentionSettings,
        blobs: BlobStore,
        results: ResultStore,
        cache: Cache,
        *,
        cache_ttl: float = math.inf,
        clock: Callable[[], datetime] = utcnow,
        grace: float = GRACE,
    ) -> None:
        self._settings = settings
        self._policy = Policy(settings)
        self._blobs = blobs
        self._results = results
        self._cache = cache
        self._cache_ttl = cache_ttl
        self._clock = clock
        self._grace = timedelta(seconds=grace)
        self._stock: Stock | None = None
        self._bytes = 0  # of pictures, as far as is known since the last look
        self._next_stock = self._next_orphans = self._next_room = 0.0
        self._sizes: dict[str, int] = {}  # of the steps of each work
        self._computing = asyncio.Lock()

    def works(self) -> list[Work]:
        """What there is to do, each a batch that says whether more may be waiting. All raise BackendError."""
        stages: list[tuple[Stage, Callable[[Sequence[Result]], Awaitable[None]]]] = [
            ("results", self._remove),
            ("evidence", self._forget_evidence),
            ("originals", self._evict),
            ("reencode", self._reencode),
        ]
        walks = [self._walking(stage, seconds, do) for stage, do in stages for seconds in self._policy.times(stage)]
        return [self.drop, self.count, *walks, self._forget_events, self._look, self._relieve, self._make_room]

    def _walking(self, stage: Stage, seconds: float, do: Callable[[Sequence[Result]], Awaitable[None]]) -> Work:
        name = f"{self._policy.digest}/{stage}/{seconds:.0f}"

        async def walk() -> bool:
            def due(terms: Terms) -> bool:
                return bool(getattr(terms, stage) <= seconds)

            return await self._walk(name, timedelta(seconds=seconds), due, do)

        return walk

    async def _walk(
        self, name: str, age: timedelta, due: Callable[[Terms], bool], do: Callable[[Sequence[Result]], Awaitable[None]]
    ) -> bool:
        """One page of the results that are so old, from where the last one ended."""
        epoch = await self._results.load_state(EPOCH) or b""
        name = f"{PROGRESS}{epoch.decode()}/{name}"
        after = await self._results.load_state(name) or b""
        began, limit = time.monotonic(), self._sizes.get(name, BATCH)
        page = await self._results.aged(after.decode(), first_id(self._clock() - age), limit)
        chosen = [result for result in page if due(self._policy.terms(result))]
        if chosen:
            await do(chosen)
        if page:
            await self._results.tally((), {name: page[-1].id.encode()})
        if len(page) == limit:
            self._sizes[name] = resized(limit, time.monotonic() - began)
        return len(page) == limit

    # ------------------------------------------------------------ the stages
    async def _remove(self, due: Sequence[Result]) -> None:
        """Results go altogether; their pictures are marked in the same transaction where nothing else names them."""
        await self._forget_answers(due)
        classes = {result.id: self._policy.terms(result).name for result in due}

        def counted(gone: set[str]) -> list[Tally]:
            return _summed(self._tally("result", classes[ident], 1) for ident in gone)

        gone = await self._results.erase(list(classes), by=WHO, reason=WHO, jobs=True, tallies=counted)
        RETAINED.labels(what="result").inc(len(gone))

    async def _forget_answers(self, due: Sequence[Result]) -> None:
        """What is older than an answer lives is in no cache."""
        now = self._clock()
        young = [each for each in due if (now - moment_of(each.id)).total_seconds() < 2 * self._cache_ttl]
        keys = {answers_of(each.site, each.image.sha256) for each in young if each.image is not None}
        if keys:
            await self._cache.forget(sorted(keys))

    async def _forget_evidence(self, due: Sequence[Result]) -> None:
        def ripe(result: Result) -> bool:
            return self._age(result) >= self._policy.terms(result).evidence

        found, rows, at = await self._pictures(due), [], self._now()
        for url, row in (await self._results.pictures_of(found)).items():
            if row.state == "evidence":
                drop = (*row.drop, *(kept.url for kept in row.kept.values()))
                rows.append((replace(row, state="gone", kept={}, drop=drop, at=at, pending=True), found[url][0]))
        await self._change("evidence", rows, ripe)

    async def _evict(self, due: Sequence[Result]) -> None:
        """Originals, or what they were encoded to, go; evidence stays where it is wanted."""

        def ripe(result: Result) -> bool:
            return self._age(result) >= self._policy.terms(result).originals

        await self._evict_if(due, ripe)

    async def _evict_if(self, due: Sequence[Result], ripe: Callable[[Result], bool]) -> None:
        found, at = await self._pictures(due), self._now()
        free = await self._results.unwanted(sorted(found), ripe)
        there = await self._results.pictures_of(free)
        made = await together(
            self._evidence_of(blob, shown, there.get(url), at) for url, (blob, shown) in found.items() if url in free
        )
        await self._change("original", [(row, found[row.url][0]) for row in made if row is not None], ripe)

    async def _evidence_of(
        self, blob: BlobRef, shown: Sequence[Result], before: PictureRow | None, at: str
    ) -> PictureRow | None:
        """The row with the evidence that was made, None where that was done before and the original did not come again."""
        if before is not None and before.state != REENCODED and all(_was_there(before, each) for each in shown):
            return None
        kept = {} if before is None else dict(before.kept)
        stands_in = kept.pop(REENCODED, None)
        drop = (blob.url,) if stands_in is None else (blob.url, stands_in.url)
        if not kept and any(self._policy.terms(each).makes_evidence for each in shown if each.status == "completed"):
            kept = await self._made(blob, stands_in or blob, shown)
        return PictureRow(url=blob.url, state="evidence" if kept else "gone", at=at, kept=kept, drop=drop)

    async def _made(self, blob: BlobRef, source: BlobRef, shown: Sequence[Result]) -> dict[str, BlobRef]:
        try:
            data = await self._blobs.get(source)
        except BlobError as error:
            if error.transient:
                raise
            return {}
        async with self._computing:  # one at a time: the other processors are for pictures that come
            made = await asyncio.to_thread(pictures.evidence, data, shown)
        return dict(zip(made, await together(self._put(blob, each) for each in made.values()), strict=True))

    async def _reencode(self, due: Sequence[Result]) -> None:
        """Only what is sealed: its digest as it was received is proven from then on."""

        def ripe(result: Result) -> bool:
            return result.chain is not None and self._age(result) >= self._policy.terms(result).reencode

        found, at = await self._pictures([each for each in due if each.status == "completed"]), self._now()
        free = await self._results.unwanted(sorted(found), ripe)
        there = await self._results.pictures_of(free)
        made = await together(
            self._encoded(blob, shown, there.get(url), at) for url, (blob, shown) in found.items() if url in free
        )
        rows = [(row, found[row.url][0]) for row in made if row is not None]
        await self._change("reencoded", rows, ripe, {url: shown[0] for url, (_, shown) in found.items()})

    async def _encoded(
        self, blob: BlobRef, shown: Sequence[Result], before: PictureRow | None, at: str
    ) -> PictureRow | None:
        if before is not None and all(_was_there(before, each) for each in shown):
            return None
        try:
            data = await self._blobs.get(blob)
        except BlobError as error:
            if error.transient:
                raise
            return None
        async with self._computing:
            made = await asyncio.to_thread(pictures.reencoded, data, self._settings.reencode)
        if made is None:
            return None
        kept = {**(before.kept if before is not None else {}), REENCODED: await self._put(blob, made)}
        return PictureRow(url=blob.url, state=REENCODED, at=at, kept=kept, drop=(blob.url,))

    async def _put(self, of: BlobRef, data: bytes) -> BlobRef:
        return await self._blobs.put(of.url.partition("/")[0], data, hashlib.sha256(data).hexdigest())

    async def _change(
        self,
        what: str,
        changes: Sequence[tuple[PictureRow, BlobRef]],
        ripe: Callable[[Result], bool],
        first: Mapping[str, Result] | None = None,
    ) -> None:
        """Mark them together; where one of them is needed after all, each by itself."""
        if not changes:
            return
        action = Action(what=WHO, body={"stage": what, "pictures": [_told(row) for row, _ in changes]}, by=WHO)
        before = await self._results.pictures_of([row.url for row, _ in changes])
        tallies = [
            self._change_tally(what, row, before.get(row.url), blob, (first or {}).get(row.url))
            for row, blob in changes
        ]
        done = await self._results.change_pictures(
            [row for row, _ in changes], ripe, action=action, tallies=_summed(tallies)
        )
        if done:
            RETAINED.labels(what=what).inc(len(done))
            RETAINED_BYTES.inc(max(0, sum(each.saved for each in tallies)))
            self._bytes -= sum(each.saved for each in tallies)
        elif len(changes) > 1:
            for each in changes:
                await self._change(what, [each], ripe, first)

    def _change_tally(
        self, what: str, row: PictureRow, before: PictureRow | None, blob: BlobRef, first: Result | None
    ) -> Tally:
        """What was there before, and how much less it is now."""
        old = list(before.kept.values()) if before is not None and before.kept else [blob]
        size = sum(each.size for each in old)
        kind = "" if first is None or first.image is None else f"{first.image.format} from {first.camera or 'uploads'}"
        return replace(
            self._tally(what, kind, 1), bytes=size, saved=size - sum(each.size for each in row.kept.values())
        )

    async def _pictures(self, due: Sequence[Result]) -> dict[str, tuple[BlobRef, list[Result]]]:
        """The pictures of those results, by URL, each with the results among them that show it."""
        jobs = await self._results.find_jobs([result.id for result in due])
        found: dict[str, tuple[BlobRef, list[Result]]] = {}
        for result in due:
            job = jobs.get(result.id)
            if job is not None and job.job.blob.url:
                found.setdefault(job.job.blob.url, (job.job.blob, []))[1].append(result)
        return found

    # ------------------------------------------------------------ blobs
    async def drop(self) -> bool:
        """Delete the blobs of pictures that were marked a while ago and that nobody came to need since."""
        began, limit = time.monotonic(), self._sizes.get(PENDING, BATCH)
        rows = [row for row in await self._results.pending_pictures(limit) if self._since(row) >= self._grace]
        if not rows:
            return False
        made = {url for row in rows for url in row.drop if url != row.url}
        gone = made - await self._results.named_blobs(sorted(made)) if made else set()
        needed = await self._needed(rows)
        originals = [row for row in rows if row.url in row.drop and row.url not in needed]
        deletions = [self._blobs.delete(url) for url in sorted(gone)]
        deletions += [self._blobs.delete(row.url, older_than=self._since(row).total_seconds()) for row in originals]
        await together(deletions)
        await self._results.settle_pictures([row.url for row in rows])
        if len(rows) == limit:
            self._sizes[PENDING] = resized(limit, time.monotonic() - began)
        return len(rows) == limit

    async def _needed(self, rows: Sequence[PictureRow]) -> set[str]:
        """Those whose originals somebody came to need since they were marked. What was marked together is asked for together."""
        needed = set[str]()
        for at in {row.at for row in rows}:
            marked = parse_time(at) - self._grace

            def before(result: Result, marked: datetime = marked) -> bool:
                return moment_of(result.id) <= marked

            urls = {row.url for row in rows if row.at == at}
            needed |= urls - await self._results.unwanted(sorted(urls), before)
        return needed

    async def _relieve(self) -> bool:
        """While there is more than `max_bytes`: of what is kept shortest the oldest first, of what is kept for ever last."""
        for seconds in [*self._policy.times("originals"), math.inf]:
            if not 0 < self._settings.max_bytes < self._bytes:
                return False

            def young(result: Result) -> bool:
                return self._age(result) < YOUNG.total_seconds()

            def ripe(result: Result, seconds: float = seconds) -> bool:
                return self._policy.terms(result).originals <= seconds and not young(result)

            async def evict(due: Sequence[Result], ripe: Callable[[Result], bool] = ripe) -> None:
                await self._evict_if(due, ripe)

            def of_class(terms: Terms, seconds: float = seconds) -> bool:
                return terms.originals <= seconds

            if await self._walk(f"{self._policy.digest}/full/{seconds}", YOUNG, of_class, evict):
                return True
        return False

    async def _forget_events(self) -> bool:
        """Events that tell of results which are gone, whatever rule they were under."""
        longest = max(terms.results for terms in self._policy.classes)
        if math.isinf(longest):
            return False
        count = await self._results.forget_events(self._clock() - timedelta(seconds=longest), PAGE)
        return count == PAGE

    # ------------------------------------------------------------ counting
    async def count(self) -> bool:
        """Add to the tallies what was recorded since the last time, each result once."""
        after = int(await self._results.load_state(COUNTED) or 0)
        events = await self._results.tail(after, PAGE)
        if not events:
            return False
        rows = await asyncio.to_thread(self._counted, events)
        await self._results.tally(rows, {COUNTED: str(events[-1].seq).encode()})
        self._bytes += sum(row.bytes for row in rows if row.what in {"received", "reused"})
        return len(events) == PAGE

    def _counted(self, events: Sequence[Event]) -> list[Tally]:
        found = []
        for event in events:
            if event.kind == "result" and "erased" not in event.body:
                result = msgspec.convert(event.body, Result)
                found.append(came(result, self._policy.terms(result).name))
        return _summed(found)

    async def _look(self) -> bool:
        """Now and then: count everything there is, and sweep pictures that no job names."""
        now = time.monotonic()
        if now < self._next_stock:
            return False
        self._stock = await take_stock(self._blobs, self._results)
        self._bytes = self._stock.bytes
        await self._results.tally((), {STOCK: msgspec.json.encode(self._stock)})
        self._next_stock = time.monotonic() + max(STOCK_EVERY, STOCK_REST * (time.monotonic() - now))
        if now >= self._next_orphans:
            self._next_orphans = now + ORPHANS_EVERY
            RETAINED.labels(what="orphan").inc(await sweep_orphans(self._blobs, self._results))
        return False

    async def _make_room(self) -> bool:
        """Now and then, also where nothing is ever deleted."""
        if time.monotonic() >= self._next_room:
            self._next_room = time.monotonic() + ROOM_EVERY  # also where that fails now
            await self._results.make_room(self._clock())
        return False

    # ------------------------------------------------------------ time
    def _now(self) -> str:
        return isoformat(self._clock())

    def _age(self, result: Result) -> float:
        return (self._clock() - moment_of(result.id)).total_seconds()

    def _since(self, row: PictureRow) -> timedelta:
        return self._clock() - parse_time(row.at)

    def _tally(self, what: str, kind: str, count: int) -> Tally:
        return Tally(day=self._now()[:10], what=what, kind=kind, count=count)


def came(result: Result, kind: str) -> Tally:
    """What a recorded result adds to the day of its reception: a picture of its own, or a duplicate that needed none."""
    size = result.image.bytes if result.image is not None else 0
    day, seconds = isoformat(result.received_at)[:10], sum(result.timings.get(stage, 0.0) for stage in WORKING)
    if result.duplicate_of is None:
        return Tally(day=day, what="received", kind=kind, count=1, bytes=size, seconds=seconds)
    if result.reuse is None:
        return Tally(day=day, what="duplicate", kind=kind, count=1, bytes=size, saved=size)
    return Tally(day=day, what="reused", kind=kind, count=1, bytes=size, seconds=seconds)


#: Stages of a result's timings that are work, not waiting.
WORKING = ("fetch", "decode", "preprocess", "codes", "infer", "postprocess")


def _summed(rows: Iterable[Tally]) -> list[Tally]:
    """One row for each day, what and kind."""
    sums: dict[tuple[str, str, str], Tally] = {}
    for row in rows:
        key = (row.day, row.what, row.kind)
        one = sums.get(key, Tally(day=row.day, what=row.what, kind=row.kind))
        sums[key] = replace(
            one,
            count=one.count + row.count,
            bytes=one.bytes + row.bytes,
            saved=one.saved + row.saved,
            seconds=one.seconds + row.seconds,
        )
    return list(sums.values())


def resized(limit: int, seconds: float) -> int:
    """How many the next step takes, where one of `limit` took so long."""
    if seconds > STEP:
        return max(FEWEST, limit // 2)
    return min(MOST, 2 * limit) if seconds < STEP / 2 else limit


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """What they come to, a few at a time. All of them are over when this returns or raises what the first that failed did."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[T]) -> T:
        async with turns:
            return await work

    done = await asyncio.gather(*map(one, works), return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return [each for each in done if not isinstance(each, BaseException)]


def _was_there(row: PictureRow, result: Result) -> bool:
    """Whether the row was written after that result's picture came: else the original came again."""
    return moment_of(result.id) <= parse_time(row.at)


def _told(row: PictureRow) -> dict[str, object]:
    """What the audit keeps of it: the digest that stands for the original, and those of what stands for it now."""
    return {"picture": row.url, "state": row.state, "kept": {what: blob.sha256 for what, blob in row.kept.items()}}
