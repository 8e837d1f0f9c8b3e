"""What people say of results, and the queue of those that wait for it. A part of the SQL store.

A verdict is an action of the audit, never changed; `verdicts` finds it by its result, and `reviews` holds what it comes to.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import Dialect, Select, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import utcnow
from eyeline.core.ids import first_id, moment_of, uuid7
from eyeline.core.types import VERDICTS, Result
from eyeline.stores.results import rows
from eyeline.stores.results.audit import AuditStatements, note_action
from eyeline.stores.results.base import Action
from eyeline.stores.results.lines import Readers, Writer
from eyeline.stores.results.review import (
    Doubt,
    KeptVerdict,
    NewVerdict,
    Progress,
    ReviewQuery,
    VerdictRecord,
    Waiting,
    current,
    disagreement,
    shown,
)
from eyeline.stores.results.schema import UNDECIDED, actions, result_labels, results, reviews, verdicts
from eyeline.stores.results.statements import Prepared, Statements, placed

#: A label that so many results bear is not new.
KNOWN = 20
#: Waiting results are counted up to here.
COUNTED = 10_000
_record = msgspec.json.Decoder(VerdictRecord).decode


class VerdictStatements:
    """What review needs, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        def put(table: Any, names: Iterable[str], update: Sequence[str] = ()) -> Prepared:
            clause = insert(table).values({name: bindparam(name) for name in names})
            if not update:
                return prepared(clause.on_conflict_do_nothing())
            fresh = {name: clause.excluded[name] for name in update}
            keys = [column.name for column in table.primary_key]
            return prepared(clause.on_conflict_do_update(index_elements=keys, set_=fresh))

        # whoever judges the same result at the same time waits until this one is done
        self.judged = prepared(select(results.c.body).where(results.c.id == bindparam("id")).with_for_update())
        self.by_key = prepared(
            _told().where(
                verdicts.c.reviewer == bindparam("reviewer"), verdicts.c.request_key == bindparam("request_key")
            )
        )
        self.of_result = prepared(_told().where(verdicts.c.result_id == bindparam("result_id")).order_by(verdicts.c.id))
        self.add = put(verdicts, [column.name for column in verdicts.columns])
        self.undo = prepared(
            update(verdicts).where(verdicts.c.id == bindparam("which")).values(undone_by=bindparam("undone_by"))
        )
        self.decide = put(
            reviews, ("result_id", "site", "verdict", "reviewer", "body"), ("verdict", "reviewer", "body")
        )
        self.doubt = put(reviews, ("result_id", "site", "value", "reason"))
        # what was decided is decided, and what waits for a better reason keeps it
        again = insert(reviews).values({name: bindparam(name) for name in ("result_id", "site", "value", "reason")})
        less = or_(reviews.c.value.is_(None), reviews.c.value < again.excluded.value)
        self.doubt_again = prepared(
            again.on_conflict_do_update(
                index_elements=["result_id"],
                set_={name: again.excluded[name] for name in ("value", "reason")},
                where=and_(reviews.c.verdict.is_(None), less),
            )
        )
        which = reviews.c.result_id == bindparam("which")
        # whoever is unsure asks for a second look, also at what nobody asked to look at
        self.ask_again = prepared(
            update(reviews).where(which).values(value=bindparam("value"), reason=bindparam("reason"))
        )
        self.known = prepared(
            select(func.count().label("count")).select_from(
                select(result_labels.c.label).where(result_labels.c.label == bindparam("label")).limit(KNOWN).subquery()
            )
        )
        held = insert(reviews).values(
            {name: bindparam(name) for name in ("result_id", "site", "held_by", "held_until")}
        )
        fresh = {"held_by": held.excluded.held_by, "held_until": held.excluded.held_until}
        free = or_(
            reviews.c.held_by.is_(None),
            reviews.c.held_by == held.excluded.held_by,
            reviews.c.held_until < bindparam("now"),
        )
        self.hold = prepared(held.on_conflict_do_update(index_elements=["result_id"], set_=fresh, where=free))
        self.holder = prepared(
            select(reviews.c.held_by, reviews.c.held_until).where(reviews.c.result_id == bindparam("id"))
        )


def _told() -> Select[Any]:
    return select(verdicts, actions.c.body).join(actions, actions.c.id == verdicts.c.id)


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _readers: Readers
    _verdicts: VerdictStatements
    _audit: AuditStatements
    _statements: Statements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class Verdicts:
    """The methods of ResultStore that are about review."""

    async def add_verdict(self: _Store, new: NewVerdict) -> KeptVerdict | None:
        """In one transaction with its action and what it comes to."""
        return await self._writer.write(lambda cursor: _judge(cursor, self, new))

    async def verdicts(self: _Store, result_id: str) -> list[VerdictRecord]:
        """By id."""
        ask = self._verdicts.of_result
        found = await self._readers.ask(lambda cursor: ask.rows(cursor, result_id=result_id))
        return [_record_of(row) for row in found]

    async def known_labels(self: _Store, labels: Sequence[str]) -> set[str]:
        """Each by a few steps along the key of the labels."""

        def look(cursor: Any) -> set[str]:
            ask = self._verdicts.known
            return {label for label in labels if ask.rows(cursor, label=label)[0]["count"] >= KNOWN}

        return await self._readers.ask(look)

    async def doubted(self: _Store, ids: Sequence[str]) -> set[str]:
        """By their key."""
        asked = select(reviews.c.result_id).where(reviews.c.result_id.in_(ids), reviews.c.value.is_not(None))
        return {row["result_id"] for row in await self._rows(asked)} if ids else set()

    async def to_review(self: _Store, query: ReviewQuery) -> list[Waiting]:
        """By the index of what waits; the results of one page by their ids."""
        columns = (reviews.c.result_id, reviews.c.value, reviews.c.reason, reviews.c.held_by, reviews.c.held_until)
        chosen = _undecided(select(*columns), query).order_by(reviews.c.value.desc(), reviews.c.result_id.desc())
        found = await self._rows(chosen.limit(query.limit))
        page = placed().where(results.c.id.in_([row["result_id"] for row in found]))
        known = {row["id"]: rows.sealed_result(row) for row in await self._rows(page)}
        now = time.time()
        return [_waiting(row, known[row["result_id"]], now) for row in found if row["result_id"] in known]

    async def review_progress(self: _Store, query: ReviewQuery, since: datetime) -> Progress:
        """What was decided is found by its id, which tells the time."""
        waiting = _undecided(select(reviews.c.result_id), query).limit(COUNTED + 1).subquery()
        decided = (
            select(func.count(verdicts.c.result_id.distinct()).label("count"))
            .join_from(verdicts, reviews, reviews.c.result_id == verdicts.c.result_id)
            .where(verdicts.c.id >= first_id(since), verdicts.c.undone_by.is_(None))
            .where(verdicts.c.kind.in_(("confirmed", "corrected", "rejected")))
        )
        for site in _sites(query):
            decided = decided.where(site)
        counted = [
            await self._rows(each) for each in (select(func.count().label("count")).select_from(waiting), decided)
        ]
        return Progress(waiting=counted[0][0]["count"], decided=counted[1][0]["count"])

    async def decisions(self: _Store, query: ReviewQuery, since: datetime) -> list[datetime]:
        """By their ids, which tell the time."""
        chosen = (
            select(verdicts.c.id)
            .join_from(verdicts, reviews, reviews.c.result_id == verdicts.c.result_id)
            .where(verdicts.c.id >= first_id(since), verdicts.c.reviewer == query.by, verdicts.c.undone_by.is_(None))
            .where(verdicts.c.kind.in_(VERDICTS), *_sites(query))
        )
        return [moment_of(row["id"]) for row in await self._rows(chosen.order_by(verdicts.c.id).limit(COUNTED))]

    async def count_doubted(self: _Store, query: ReviewQuery, since: datetime, until: datetime) -> int:
        """By the results' ids, which tell the time."""
        within = and_(reviews.c.result_id >= first_id(since), reviews.c.result_id < first_id(until))
        chosen = select(func.count().label("count")).where(within, reviews.c.value.is_not(None), *_sites(query))
        return int((await self._rows(chosen))[0]["count"])

    async def hold_review(self: _Store, result_id: str, by: str, seconds: float) -> tuple[str, datetime] | None:
        """The first one holds it until the time is over or it says so again."""
        do = self._verdicts

        def hold(cursor: Any) -> tuple[str, datetime] | None:
            found = do.judged.rows(cursor, id=result_id)
            if not found:
                return None
            site, now = rows.result_of(found[0]["body"]).site, time.time()
            do.hold.one(cursor, result_id=result_id, site=site, held_by=by, held_until=now + seconds, now=now)
            row = do.holder.rows(cursor, id=result_id)[0]
            return row["held_by"], datetime.fromtimestamp(row["held_until"], UTC)

        return await self._writer.write(hold)


def doubt_rows(new: Sequence[Result], doubts: Mapping[str, Doubt]) -> list[dict[str, Any]]:
    """The `reviews` rows of those new results that somebody should look at."""
    chosen = [(result, doubts[result.id]) for result in new if result.id in doubts]
    return [
        {"result_id": result.id, "site": result.site, "value": doubt.value, "reason": doubt.reason}
        for result, doubt in chosen
    ]


def note_disagreements(cursor: Any, do: VerdictStatements, new: Sequence[Result]) -> None:
    """Records about whose pictures another version was asked, and answered otherwise, wait for somebody from now on."""
    for aside in sorted((result for result in new if result.aside), key=lambda result: result.replay_of or ""):
        found = do.judged.rows(cursor, id=aside.replay_of)
        doubt = disagreement(rows.result_of(found[0]["body"]), aside) if found else None
        if doubt is not None:
            again = {"result_id": aside.replay_of, "site": aside.site, "value": doubt.value, "reason": doubt.reason}
            do.doubt_again.one(cursor, **again)


def _judge(cursor: Any, store: _Store, new: NewVerdict) -> KeptVerdict | None:
    do = store._verdicts  # noqa: SLF001 - a part of the same store
    known = do.by_key.rows(cursor, reviewer=new.by, request_key=new.key) if new.key is not None else []
    if known:
        return _kept(known[0])
    found = do.judged.rows(cursor, id=new.result_id)
    if not found:
        return None
    result, told = rows.result_of(found[0]["body"]), do.of_result.rows(cursor, result_id=new.result_id)
    records = [_record_of(row) for row in told]
    if new.kind == "undo":
        undone = next((record for record in records if record.id == new.undoes and record.kind != "undo"), None)
        if undone is None:
            return None
        if undone.undone_by is not None:
            return _kept(next(row for row in told if row["id"] == undone.undone_by))
    record = _recorded(new, result, records)
    _write(cursor, store, new, record, result)
    records = [
        msgspec.structs.replace(each, undone_by=record.id) if each.id == new.undoes else each for each in records
    ]
    _settle(cursor, do, result, [*records, record])
    return KeptVerdict(record=record, digest=new.digest)


def _recorded(new: NewVerdict, result: Result, records: Sequence[VerdictRecord]) -> VerdictRecord:
    return VerdictRecord(
        id=uuid7(),
        result_id=result.id,
        kind=new.kind,
        by=new.by,
        at=utcnow(),
        comment=new.comment,
        before=shown(result, current(records)),
        after=new.after,
        undoes=new.undoes,
        models=result.models,
    )


def _write(cursor: Any, store: _Store, new: NewVerdict, record: VerdictRecord, result: Result) -> None:
    body = {name: value for name, value in msgspec.to_builtins(record).items() if name not in ("id", "undone_by")}
    note_action(cursor, store, Action(what="verdict", by=new.by, body=body | {"site": result.site}), record.id)
    store._verdicts.add.one(  # noqa: SLF001 - a part of the same store
        cursor,
        id=record.id,
        result_id=record.result_id,
        kind=record.kind,
        reviewer=record.by,
        undoes=record.undoes,
        undone_by=None,
        request_key=new.key,
        digest=new.digest,
    )
    if record.undoes is not None:
        store._verdicts.undo.one(cursor, which=record.undoes, undone_by=record.id)  # noqa: SLF001


def _settle(cursor: Any, do: VerdictStatements, result: Result, records: Sequence[VerdictRecord]) -> None:
    """What all of it comes to now."""
    now = current(records)
    do.decide.one(
        cursor,
        result_id=result.id,
        site=result.site,
        verdict=None if now is None else now.kind,
        reviewer=None if now is None else now.by,
        body=None if now is None else rows.encode(now),
    )
    if now is not None and now.kind == "unsure":
        do.ask_again.one(cursor, which=result.id, value=1.0, reason="unsure")


def _undecided(chosen: Select[Any], query: ReviewQuery) -> Select[Any]:
    """What waits for this reviewer."""
    others = or_(reviews.c.reviewer.is_(None), reviews.c.reviewer != query.by, reviews.c.verdict.is_(None))
    return chosen.where(UNDECIDED, and_(others, *_sites(query)))


def _sites(query: ReviewQuery) -> list[Any]:
    within = [] if query.sites is None else [reviews.c.site.in_(query.sites)]
    return within if query.site is None else [*within, reviews.c.site == query.site]


def _waiting(row: rows.Row, result: Result, now: float) -> Waiting:
    held = row["held_by"] is not None and row["held_until"] > now
    return Waiting(
        result=result,
        doubt=Doubt(row["value"], row["reason"]),
        held_by=row["held_by"] if held else None,
        held_until=datetime.fromtimestamp(row["held_until"], UTC) if held else None,
    )


def _kept(row: rows.Row) -> KeptVerdict:
    return KeptVerdict(record=_record_of(row), digest=row["digest"], existing=True)


def _record_of(row: rows.Row) -> VerdictRecord:
    """The action's body, which never changes, under its id, and what became of it."""
    told = rows.decode(row["body"])
    return msgspec.convert(told | {"id": row["id"], "undone_by": row["undone_by"]}, VerdictRecord)
