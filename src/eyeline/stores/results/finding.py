"""Finding results: pages, capped counts with their spread over time, and words to choose from. A part of the SQL store."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Column, Dialect, Select, and_, exists, func, literal, not_, or_, select, true, union_all

from eyeline.core.clock import isoformat, parse_time
from eyeline.core.ids import first_id
from eyeline.core.types import ASIDE, Result
from eyeline.stores.results import rows
from eyeline.stores.results.base import Bucket, Matches, Prefix, ResultQuery, Word
from eyeline.stores.results.lines import Readers
from eyeline.stores.results.schema import (
    camera_counts,
    events,
    model_sets,
    result_codes,
    result_labels,
    results,
    reviews,
)
from eyeline.stores.results.statements import with_places

#: Results are counted up to here.
COUNTED = 10_000
#: Bars of a histogram at most, and how wide one may be, in seconds.
BARS = 60
WIDTHS = (60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400, 28 * 86_400)
#: Names that a prefix may stand for.
NAMED = 200
#: A picture's time may be ahead of its reception by so much (the gateway refuses more): ids tell the time of reception.
AHEAD = timedelta(days=1)
#: What was captured longer before its id was made is odd (migration 0009 says the same of both times).
LATE = timedelta(hours=1)
EPOCH = datetime(1970, 1, 2, tzinfo=UTC)
#: The slowest one is looked for among so many.
LOOKED_AT = 2000
#: What is completed is recorded soon after.
RECORDED = timedelta(seconds=10)
#: For one who sees some sites only, a word is looked for among so many of its newest results.
NEWEST = 200
#: The largest character: behind everything that begins with what stands before it.
_LAST = "\U0010ffff"


class _Store(Protocol):
    """What the store brings along."""

    _readers: Readers
    _dialect: Dialect

    async def _rows(self, query: Select[Any], *, whole: bool = False) -> Sequence[rows.Row]: ...


@dataclass(frozen=True)
class Names:
    """What a query's prefixes stand for in this database, looked up before: an index takes names, not beginnings."""

    cameras: Sequence[str] | None = None
    models: Sequence[str] | None = None


class Finding:
    """The methods of ResultStore that look for results."""

    async def find(self: _Store, query: ResultQuery) -> tuple[list[Result], str | None]:
        """A page by id."""
        names = await _names(self, query)
        chosen = find_page(query, names, self._dialect)
        page = await self._rows(with_places(chosen.limit(query.limit + 1), oldest=query.oldest))
        told = [rows.sealed_result(row) for row in page[: query.limit]]
        return told, told[-1].id if len(page) > query.limit and told else None

    async def matches(self: _Store, query: ResultQuery) -> Matches:
        """The times of the newest ones are read, and counted here."""
        names = await _names(self, query)
        chosen = found(query, names, self._dialect, results.c.captured_at).limit(COUNTED + 1)
        return _counted([row["captured_at"] for row in await self._rows(chosen)])

    async def slowest(self: _Store, since: datetime, until: datetime, sites: Sequence[str] | None) -> Result | None:
        """The event log has results in the order in which they were recorded; by their ids they lie as they were received."""
        first, end = await _place(self, since), await _place(self, until + RECORDED)
        query = select(results.c.body).join(events, events.c.result_id == results.c.id)
        query = query.where(events.c.seq >= first, events.c.seq < end, results.c.status != ASIDE)
        if sites is not None:
            query = query.where(events.c.site.in_(sites))
        told = await self._rows(query.order_by(events.c.seq.desc()).limit(LOOKED_AT))
        return await asyncio.to_thread(_slowest, [row["body"] for row in told], since, until)

    async def words(self: _Store, word: Word, beginning: str, limit: int, sites: Sequence[str] | None) -> list[str]:
        """From one to the next along an index, however many results bear each."""
        column = _WORDS[word]
        most = limit if sites is None else 2 * limit
        # behind the wall of a few sites each step might pass by all words of others; which are theirs is looked for below
        found = await self._rows(_walk(column, Prefix(beginning), most, self._dialect), whole=sites is not None)
        if sites is None:
            return [row["word"] for row in found]
        said: list[str] = []
        for row in found:
            if len(said) < limit and await _borne(self, column, row["word"], sites):
                said.append(row["word"])
        return said


async def _place(store: _Store, moment: datetime) -> int:
    """The number of the first event that is not before: times follow numbers, which have an index, by halves."""
    newest = await store._rows(select(func.max(events.c.seq).label("seq")))  # noqa: SLF001 - a part of the same store
    low, high = 0, (newest[0]["seq"] or 0) + 1
    while low < high:
        middle = (low + high) // 2
        query = select(events.c.seq, events.c.at).where(events.c.seq >= middle).order_by(events.c.seq).limit(1)
        there = await store._rows(query)  # noqa: SLF001
        if not there or there[0]["at"] >= isoformat(moment):
            high = middle
        else:
            low = there[0]["seq"] + 1
    return low


def _slowest(bodies: Sequence[bytes], since: datetime, until: datetime) -> Result | None:
    told = [one for one in map(rows.result_of, bodies) if since <= one.completed_at < until]
    return max(told, key=lambda one: one.completed_at - one.received_at, default=None)


def _walk(column: Any, beginning: Prefix, most: int, dialect: Dialect) -> Select[Any]:
    """The first words in their order, in one statement: to plan each step by itself would take longer than all the steps."""
    fits = begins(column, beginning, dialect)
    walk = select(func.min(column).label("word"), literal(1).label("number")).where(fits).cte("walk", recursive=True)
    further = select(func.min(column)).where(fits, column > walk.c.word).scalar_subquery()
    step = select(further, walk.c.number + 1).where(walk.c.word.is_not(None), walk.c.number < most)
    walk = walk.union_all(step)
    return select(walk.c.word).where(walk.c.word.is_not(None)).order_by(walk.c.number)


#: Where the words of each kind stand in an index. A model's name is no secret of a site; cameras are not looked up for one.
_WORDS: dict[Word, Any] = {
    "camera": camera_counts.c.camera,
    "label": result_labels.c.label,
    "ref": results.c.ref,
    "code": result_codes.c.code,
    "by": reviews.c.reviewer,
    "model": model_sets.c.name,
}


async def _borne(store: _Store, column: Any, word: str, sites: Sequence[str]) -> bool:
    """Whether a result of those sites bears the word."""
    table = column.table
    if table in {model_sets, camera_counts}:
        return True
    of_result = table.c.id if table is results else table.c.result_id
    newest = select(of_result.label("id")).where(column == word).order_by(of_result.desc()).limit(NEWEST).subquery()
    seen = exists().where(results.c.id == newest.c.id, results.c.site.in_(sites))
    return bool((await store._rows(select(seen.label("there"))))[0]["there"])  # noqa: SLF001 - a part of the same store


def find_page(query: ResultQuery, names: Names, dialect: Dialect) -> Select[Any]:
    """The ids of a page as SQL, to be limited. Ids are given when pictures come, mostly soon after their capture: on PostgreSQL
    a window of time is looked for among the ids of that time, and what was captured in it and came at another (`is_odd`, which
    has an index of its own) beside. Otherwise a window that lies far back would be reached through all that is newer.
    """
    if dialect.name != "postgresql" or query.until is None:
        return found(query, names, dialect)
    top = first_id(query.until + LATE + timedelta(milliseconds=2))
    bottom = first_id(max(query.since, EPOCH) - AHEAD) if query.since is not None else None

    def within(newest: Any) -> Any:
        return newest < top if bottom is None else and_(newest >= bottom, newest < top)

    odd = func.is_odd(results.c.id, results.c.captured_at)
    near = found(query, names, dialect, where=within)
    others = found(query, names, dialect, where=lambda newest: and_(odd, not_(within(newest))), few=True)
    parts = [part.limit(query.limit + 1).subquery() for part in (near, others)]
    both = union_all(*(select(part.c.id) for part in parts)).subquery()
    return select(both.c.id).order_by(both.c.id.asc() if query.oldest else both.c.id.desc())


def found(
    query: ResultQuery,
    names: Names,
    dialect: Dialect,
    *columns: Any,
    where: Callable[[Any], Any] | None = None,
    few: bool = False,
) -> Select[Any]:
    """The page as SQL. A label, a code or a verdict leads: its rows lie sorted by result id, so that a page reads no more
    than a page. `where` says which ids.

    few: what is found is better sorted, and asked for its label one by one, than met on a way through the newest or all that
    bear the label, which the database would prefer.
    """
    chosen = select(*(columns or (results.c.id,)))
    newest: Any = results.c.id
    if query.label is not None and few:
        borne = and_(result_labels.c.label == query.label, result_labels.c.result_id == results.c.id)
        score = select(result_labels.c.score).where(borne).scalar_subquery()
        chosen = chosen.where(score >= (query.min_score or 0.0))
        if query.max_score is not None:
            chosen = chosen.where(score < query.max_score)
        query = replace(query, label=None, min_score=None, max_score=None)
    if query.label is not None:
        newest = result_labels.c.result_id
        chosen = chosen.join(result_labels, newest == results.c.id).where(result_labels.c.label == query.label)
    if query.code is not None:
        newest = result_codes.c.result_id
        chosen = chosen.join(result_codes, newest == results.c.id).where(result_codes.c.code == query.code)
    if query.by is not None or query.verdict not in {None, "none"}:
        newest = reviews.c.result_id
        chosen = chosen.join(reviews, newest == results.c.id).where(*_judged(query))
    for condition in _conditions(query, names, dialect):
        chosen = chosen.where(condition)
    if where is not None:
        chosen = chosen.where(where(newest))
    elif query.since is not None:  # what was captured since was received since, but for clocks that are ahead
        chosen = chosen.where(newest >= first_id(max(query.since, EPOCH) - AHEAD))
    if query.cursor is not None:
        chosen = chosen.where(newest > query.cursor if query.oldest else newest < query.cursor)
    order = newest.concat("") if few else newest
    return chosen.order_by(order.asc() if query.oldest else order.desc())


def _judged(query: ResultQuery) -> list[Any]:
    """Written with the words of the partial indexes."""
    judged: list[Any] = [reviews.c.verdict.is_not(None)]
    if query.by is not None:
        judged.append(reviews.c.reviewer == query.by)
    if query.verdict not in {None, "none"}:
        judged.append(reviews.c.verdict == query.verdict)
    return judged


def _conditions(query: ResultQuery, names: Names, dialect: Dialect) -> list[Any]:
    score = results.c.top_score if query.label is None else result_labels.c.score
    said = reviews.alias()
    judged = exists().where(said.c.result_id == results.c.id, said.c.verdict.is_not(None))
    asked: list[tuple[Any, Callable[[], Any]]] = [
        (query.min_score, lambda: score >= query.min_score),
        (query.max_score, lambda: score < query.max_score),
        (query.sites, lambda: results.c.site.in_(query.sites or ())),
        (query.since, lambda: results.c.captured_at >= isoformat(query.since or EPOCH)),
        (query.until, lambda: results.c.captured_at < isoformat(query.until or EPOCH)),
        (names.models, lambda: results.c.models.in_(names.models or ())),
        (True if query.verdict == "none" else None, lambda: ~judged),
    ]
    chosen: list[Any] = [condition() for value, condition in asked if value is not None]
    for name in ("site", "camera", "pipeline", "status", "ref"):
        value = getattr(query, name)
        if name == "camera" and names.cameras is not None:
            chosen.append(results.c.camera.in_(names.cameras))
        elif isinstance(value, Prefix):
            chosen.append(begins(results.c[name], value, dialect))
        elif value is not None:
            chosen.append(results.c[name] == value)
    return chosen


def begins(column: Column[Any], prefix: Prefix, dialect: Dialect) -> Any:
    """Exactly, whatever a database thinks of capitals; where text is sorted by its characters, an index can serve."""
    if not prefix:
        return column.is_not(None) if column.nullable else true()
    if dialect.name == "postgresql":  # which knows that an index in the order of characters can serve
        return func.starts_with(column, str(prefix))
    exactly = func.substr(column, 1, len(prefix)) == str(prefix)
    return and_(column >= str(prefix), column < prefix + _LAST, exactly)


async def _names(store: _Store, query: ResultQuery) -> Names:
    cameras = models = None
    if isinstance(query.camera, Prefix):
        column = camera_counts.c.camera
        chosen = select(column).where(begins(column, query.camera, store._dialect)).limit(NAMED)  # noqa: SLF001
        cameras = [row["camera"] for row in await store._rows(chosen)]  # noqa: SLF001 - a part of the same store
    if query.model is not None:
        chosen = select(model_sets.c.key).distinct().where(_bears(query.model)).limit(NAMED)
        models = [row["key"] for row in await store._rows(chosen)]  # noqa: SLF001
    return Names(cameras, models)


def _bears(model: str) -> Any:
    """A name, a version with or without the digest behind its `+`, or both as name@version."""
    name, at, version = model.rpartition("@")
    word = version if at else model
    whole = or_(model_sets.c.version == word, func.substr(model_sets.c.version, 1, len(word) + 1) == word + "+")
    return and_(model_sets.c.name == name, whole) if at else or_(model_sets.c.name == word, whole)


def _counted(times: Sequence[str]) -> Matches:
    """`times` are the newest, one more than are counted where there are more."""
    moments = [parse_time(text).timestamp() for text in times[:COUNTED]]
    if not moments:
        return Matches(count=0, more=False, width=WIDTHS[0], histogram=[])
    first, last = min(moments), max(moments)
    width = next((width for width in WIDTHS if (last // width) - (first // width) < BARS), WIDTHS[-1])
    bars: dict[float, int] = {}
    for moment in moments:
        start = moment - moment % width
        bars[start] = bars.get(start, 0) + 1
    histogram = [Bucket(datetime.fromtimestamp(start, UTC), bars[start]) for start in sorted(bars)]
    return Matches(count=len(moments), more=len(times) > COUNTED, width=width, histogram=histogram)
