"""How long things are kept, in the results database: pictures, legal holds, tallies, and what goes with an erased result. A
part of the SQL store.

What must not be deleted is looked for in the transaction that decides, so that a hold which was placed before it is heard.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Dialect, Select, bindparam, delete, literal_column, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.types import BlobRef, Result
from eyeline.stores.results import rows
from eyeline.stores.results.audit import AuditStatements, note_action
from eyeline.stores.results.base import Action
from eyeline.stores.results.lines import Readers, Writer
from eyeline.stores.results.retaining import Hold, PictureRow, Ripe, Tally
from eyeline.stores.results.schema import (
    TO_DROP,
    alerts,
    deliveries,
    events,
    holds,
    item_codes,
    item_labels,
    item_sightings,
    items,
    jobs,
    picture_blobs,
    pictures,
    results,
    states,
    tallies,
)
from eyeline.stores.results.statements import Prepared, Statements, with_places

#: Where retention keeps how far it came; forgotten when a hold is lifted.
PROGRESS = "retention/"
#: The name of the last hold that was lifted is a part of theirs, so that a walk under way does not bring one back.
EPOCH = "retention epoch"


class KeepStatements:
    """What is asked and written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        def add(table: Any) -> Any:
            return insert(table).values({column.name: bindparam(column.name) for column in table.columns})

        def where(column: ColumnElement[Any]) -> ColumnElement[bool]:
            return column == bindparam("which")

        put = add(pictures)
        fresh = {name: put.excluded[name] for name in ("state", "at", "pending", "body")}
        self.put_picture = prepared(put.on_conflict_do_update(index_elements=["url"], set_=fresh))
        self.picture = prepared(select(pictures).where(where(pictures.c.url)))
        self.forget_picture = prepared(delete(pictures).where(where(pictures.c.url)))
        self.settle_picture = prepared(
            update(pictures).where(where(pictures.c.url)).values(pending=bindparam("pending"), body=bindparam("body"))
        )
        self.add_blob = prepared(add(picture_blobs).on_conflict_do_nothing())
        self.forget_blobs = prepared(delete(picture_blobs).where(where(picture_blobs.c.picture)))
        self.naming = prepared(select(jobs.c.id, jobs.c.status, jobs.c.body).where(where(jobs.c.blob_hash)))
        self.add_hold = prepared(add(holds))
        self.lift_hold = prepared(
            update(holds)
            .where(where(holds.c.id), holds.c.lifted_at.is_(None))
            .values(lifted_at=bindparam("lifted_at"))
            .returning(holds.c.id)
        )
        self.holds = prepared(select(holds).where(holds.c.lifted_at.is_(None)).order_by(holds.c.id))
        self.forget_progress = prepared(delete(states).where(states.c.name.like(bindparam("which"))))
        self.tally = prepared(_added(add(tallies)))
        sighted = select(item_sightings.c.result_id, item_sightings.c.item_id)
        self.shows = prepared(sighted.where(where(item_sightings.c.result_id)))
        self.shown = prepared(
            select(item_sightings.c.result_id)
            .where(where(item_sightings.c.item_id))
            .order_by(item_sightings.c.result_id)
            .limit(literal_column("1"))
        )
        self.forget_sightings = prepared(delete(item_sightings).where(where(item_sightings.c.result_id)))
        self.forget_item = prepared(delete(items).where(where(items.c.id)).returning(items.c.body))
        self.point_item = prepared(
            update(items)
            .where(where(items.c.id), items.c.result_id == bindparam("gone"))
            .values(result_id=bindparam("other"))
        )
        self.forget_item_labels = prepared(delete(item_labels).where(where(item_labels.c.item_id)))
        self.forget_item_code = prepared(
            delete(item_codes).where(where(item_codes.c.item_id), item_codes.c.code == bindparam("code"))
        )
        self.forget_alerts = prepared(delete(alerts).where(where(alerts.c.result_id)).returning(alerts.c.id))
        self.forget_deliveries = prepared(delete(deliveries).where(where(deliveries.c.alert_id)))
        self.alert_events = prepared(select(events.c.seq, events.c.body).where(text("kind = 'alert'")))
        self.forget_event = prepared(delete(events).where(where(events.c.seq)))
        self.oldest_events = prepared(
            select(events.c.seq, events.c.at).order_by(events.c.seq).limit(bindparam("limit"))
        )
        size = "SELECT page_count * page_size AS size FROM pragma_page_count(), pragma_page_size()"
        if dialect.name == "postgresql":
            size = "SELECT pg_database_size(current_database()) AS size"
        self.size = prepared(text(size))


def _added(clause: Any) -> Any:
    names = ("count", "bytes", "saved", "seconds")
    added = {name: tallies.c[name] + clause.excluded[name] for name in names}
    return clause.on_conflict_do_update(index_elements=["day", "what", "kind"], set_=added)


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _readers: Readers
    _audit: AuditStatements
    _statements: Statements
    _keep: KeepStatements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class Keeping:
    """The methods of ResultStore that are about how long things are kept."""

    async def aged(self: _Store, after: str, before: str, limit: int) -> list[Result]:
        """By the primary key."""
        query = select(results.c.id, results.c.body).where(results.c.id > after, results.c.id < before)
        found = await self._rows(with_places(query.order_by(results.c.id).limit(limit)))
        return [rows.sealed_result(row) for row in reversed(found)]

    async def picture(self: _Store, url: str) -> PictureRow | None:
        """The row, or None."""
        found = await self._readers.ask(lambda cursor: self._keep.picture.rows(cursor, which=url))
        return _picture_of(found[0]) if found else None

    async def pictures_of(self: _Store, urls: Collection[str]) -> dict[str, PictureRow]:
        """By the primary key."""
        return await self._readers.ask(lambda cursor: _pictures_of(cursor, self._keep, urls))

    async def unwanted(self: _Store, urls: Sequence[str], ripe: Ripe) -> set[str]:
        """A look, which `change_pictures` takes again."""
        return await self._readers.ask(lambda cursor: _unwanted(cursor, self, urls, ripe))

    async def change_pictures(
        self: _Store,
        rows: Sequence[PictureRow],
        ripe: Ripe,
        *,
        action: Action | None = None,
        tallies: Sequence[Tally] = (),
    ) -> set[str]:
        """All or none, so that the action tells of what was done."""

        def change(cursor: Any) -> set[str]:
            urls = {row.url for row in rows}
            if not urls or _unwanted(cursor, self, sorted(urls), ripe) != urls:
                return set()
            _put_pictures(cursor, self._keep, rows)
            _tally(cursor, self._keep, tallies)
            if action is not None:
                note_action(cursor, self, action)
            return urls

        return await self._writer.write(change)

    async def pending_pictures(self: _Store, limit: int) -> list[PictureRow]:
        """By the partial index."""
        query = select(pictures).where(TO_DROP).order_by(pictures.c.at).limit(limit)
        return [_picture_of(row) for row in await self._rows(query)]

    async def settle_pictures(self: _Store, urls: Sequence[str]) -> None:
        """The row of what is gone altogether has nothing left to say once no job names it."""
        do = self._keep

        def settle(cursor: Any) -> None:
            there = _pictures_of(cursor, do, sorted(urls))
            named = {url for url, _, _ in _jobs_of(cursor, do, there)}
            over = [url for url, row in there.items() if row.state == "gone" and url not in named]
            stay = [row for url, row in there.items() if url not in set(over)]
            do.forget_picture.many(cursor, ({"which": url} for url in over))
            do.settle_picture.many(
                cursor, ({"which": row.url, "pending": False, "body": _body(row.kept, ())} for row in stay)
            )

        await self._writer.write(settle, durable=False)

    async def forget_events(self: _Store, before: datetime, limit: int) -> int:
        """Looks at the oldest ones only: they lie in the order in which they were written."""
        moment, do = isoformat(before), self._keep

        def forget(cursor: Any) -> int:
            oldest = do.oldest_events.rows(cursor, limit=limit)
            seqs = [{"which": row["seq"]} for row in oldest if row["at"] < moment]
            do.forget_event.many(cursor, seqs)
            return len(seqs)

        return await self._writer.write(forget)

    async def place_hold(self: _Store, hold: Hold) -> None:
        """The hold and its action in one transaction."""
        told = {name: value for name, value in _hold_body(hold).items() if name != "by"}
        action = Action(what="hold", by=hold.by, body={"hold": hold.id, **told})

        def place(cursor: Any) -> None:
            row = {"id": hold.id, "placed_at": isoformat(hold.placed_at), "lifted_at": None}
            self._keep.add_hold.one(cursor, **row, body=rows.encode(_hold_body(hold)))
            note_action(cursor, self, action)

        await self._writer.write(place)

    async def lift_hold(self: _Store, id: str, *, by: str = "", reason: str = "") -> bool:  # noqa: A002
        """What it covered lies behind retention's cursors: they are forgotten."""
        do = self._keep

        def lift(cursor: Any) -> bool:
            if not do.lift_hold.rows(cursor, which=id, lifted_at=isoformat(utcnow())):
                return False
            do.forget_progress.one(cursor, which=f"{PROGRESS}%")
            self._statements.put_state.one(cursor, name=EPOCH, value=id.encode())
            note_action(cursor, self, Action(what="lift hold", by=by, body={"hold": id, "reason": reason}))
            return True

        return await self._writer.write(lift)

    async def holds(self: _Store, *, lifted: bool = False) -> list[Hold]:
        """In the order in which they were placed."""
        query = select(holds).order_by(holds.c.id)
        return [
            _hold_of(row) for row in await self._rows(query if lifted else query.where(holds.c.lifted_at.is_(None)))
        ]

    async def tally(self: _Store, rows: Sequence[Tally], state: Mapping[str, bytes]) -> None:
        """All in one transaction."""

        def add(cursor: Any) -> None:
            _tally(cursor, self._keep, rows)
            self._statements.put_state.many(cursor, ({"name": name, "value": value} for name, value in state.items()))

        await self._writer.write(add, durable=False)

    async def tallies(self: _Store, since: str) -> list[Tally]:
        """By the primary key."""
        query = select(tallies).where(tallies.c.day >= since).order_by(tallies.c.day, tallies.c.what, tallies.c.kind)
        return [Tally(**dict(row)) for row in await self._rows(query)]

    async def take_turn(self: _Store, name: str, holder: str, lease: float) -> bool:
        """As the sealer's lease."""
        return await self._writer.write(lambda cursor: self._audit.take_turn(cursor, name, holder, lease))

    async def make_room(self, now: datetime) -> None:
        """Nothing: a table grows by itself, and what is deleted leaves its pages to what comes."""

    async def size(self: _Store) -> int:
        """As the database itself says."""
        return await self._readers.ask(lambda cursor: int(self._keep.size.rows(cursor)[0]["size"]))


def of_result(cursor: Any, store: Any, gone: Sequence[Result], urls: Iterable[str]) -> None:
    """Within the erasing transaction: what else tells of those results, and the pictures that nothing names now."""
    do: KeepStatements = store._keep  # noqa: SLF001 - a part of the same store
    ids = [{"which": result.id} for result in gone]
    _forget_items(cursor, do, [result.id for result in gone])
    ended = {row[0] for row in do.forget_alerts.many(cursor, ids).fetchall()}
    if ended:
        do.forget_deliveries.many(cursor, ({"which": alert} for alert in sorted(ended)))
        told = [row["seq"] for row in do.alert_events.rows(cursor) if rows.decode(row["body"]).get("id") in ended]
        do.forget_event.many(cursor, ({"which": seq} for seq in told))
    left = set(urls)
    _put_pictures(cursor, do, _gone(cursor, do, sorted(left - {url for url, _, _ in _jobs_of(cursor, do, left)})))


def held(cursor: Any, store: Any, found: Sequence[Result]) -> set[str]:
    """The ids of those results that are under a legal hold."""
    do: KeepStatements = store._keep  # noqa: SLF001 - a part of the same store
    return _held(cursor, do, [_hold_of(row) for row in do.holds.rows(cursor)], found)


def add_tallies(cursor: Any, store: Any, added: Sequence[Tally]) -> None:
    """Within the caller's transaction."""
    _tally(cursor, store._keep, added)  # noqa: SLF001 - a part of the same store


def _held(cursor: Any, do: KeepStatements, inforce: Sequence[Hold], found: Sequence[Result]) -> set[str]:
    shown: dict[str, set[str]] = {}
    if any(hold.item is not None for hold in inforce):
        for row in do.shows.each(cursor, ({"which": result.id} for result in found)):
            shown.setdefault(row["result_id"], set()).add(row["item_id"])
    return {result.id for result in found if any(hold.covers(result, shown.get(result.id, ())) for hold in inforce)}


def _unwanted(cursor: Any, store: Any, urls: Iterable[str], ripe: Ripe) -> set[str]:
    """The newest result of each picture is looked at first: where that is needed, so is the picture, and the others, of which
    a scene that never changes has thousands, need not be read.
    """
    do: KeepStatements = store._keep  # noqa: SLF001 - a part of the same store
    inforce = [_hold_of(row) for row in do.holds.rows(cursor)]
    wanted, jobs_of = set[str](), dict[str, list[str]]()
    for url, ident, status in _jobs_of(cursor, do, urls):
        jobs_of.setdefault(url, []).append(ident)
        if status == "queued":
            wanted.add(url)

    def look(showing: Mapping[str, str]) -> None:
        """At those results, each with the picture that it shows."""
        asked = [{"id": ident} for ident, url in showing.items() if url not in wanted]
        found = [rows.sealed_result(row) for row in store._statements.result_by_id.each(cursor, asked)]  # noqa: SLF001
        stay = _held(cursor, do, inforce, found)
        wanted.update(showing[result.id] for result in found if result.id in stay or not ripe(result))

    look({max(idents): url for url, idents in jobs_of.items()})
    look({ident: url for url, idents in jobs_of.items() for ident in idents if ident != max(idents)})
    return set(urls) - wanted


def _jobs_of(cursor: Any, do: KeepStatements, urls: Iterable[str]) -> list[tuple[str, str, str]]:
    """Which jobs name these pictures: URL, id and status of each."""
    asked = set(urls)
    hashes = {rows.blob_hash(url.rpartition("/")[2]) for url in asked}  # sites may have the same picture
    found = do.naming.each(cursor, ({"which": number} for number in sorted(hashes)))
    named = ((rows.job_of(row["body"]).blob.url, row["id"], row["status"]) for row in found)
    return [each for each in named if each[0] in asked]


def _pictures_of(cursor: Any, do: KeepStatements, urls: Iterable[str]) -> dict[str, PictureRow]:
    return {row["url"]: _picture_of(row) for row in do.picture.each(cursor, ({"which": url} for url in urls))}


def _gone(cursor: Any, do: KeepStatements, urls: Sequence[str]) -> list[PictureRow]:
    """The rows that have everything deleted which was kept of these pictures."""
    before, at, gone = _pictures_of(cursor, do, urls), isoformat(utcnow()), []
    for url in urls:
        drop = [url]
        if url in before:
            drop += [*before[url].drop, *(blob.url for blob in before[url].kept.values())]
        gone.append(PictureRow(url=url, state="gone", at=at, drop=tuple(dict.fromkeys(drop))))
    return gone


def _put_pictures(cursor: Any, do: KeepStatements, changed: Sequence[PictureRow]) -> None:
    def values(row: PictureRow) -> dict[str, Any]:
        body = _body(row.kept, row.drop)
        return {"url": row.url, "state": row.state, "at": row.at, "pending": row.pending, "body": body}

    do.put_picture.many(cursor, (values(row) for row in changed))
    do.forget_blobs.many(cursor, ({"which": row.url} for row in changed))
    do.add_blob.many(cursor, ({"url": blob.url, "picture": row.url} for row in changed for blob in row.kept.values()))


def _forget_items(cursor: Any, do: KeepStatements, gone: Sequence[str]) -> None:
    """Sightings in these results, and the items that no other result shows."""
    which = [{"which": ident} for ident in gone]
    shown = do.shows.each(cursor, which)
    do.forget_sightings.many(cursor, which)
    for row in shown:
        other = do.shown.rows(cursor, which=row["item_id"])
        if other:
            do.point_item.one(cursor, which=row["item_id"], gone=row["result_id"], other=other[0]["result_id"])
        else:
            _forget_item(cursor, do, row["item_id"])


def _forget_item(cursor: Any, do: KeepStatements, item: str) -> None:
    for row in do.forget_item.rows(cursor, which=item):
        codes = rows.decode(row["body"])["codes"]
        do.forget_item_code.many(cursor, ({"which": item, "code": code} for code in codes))
    do.forget_item_labels.one(cursor, which=item)


def _tally(cursor: Any, do: KeepStatements, added: Iterable[Tally]) -> None:
    do.tally.many(cursor, [asdict(row) for row in sorted(added, key=lambda row: (row.day, row.what, row.kind))])


def _body(kept: Mapping[str, BlobRef], drop: Sequence[str]) -> bytes:
    return rows.encode({"kept": kept, "drop": drop})


def _picture_of(row: rows.Row) -> PictureRow:
    body = rows.decode(row["body"])
    return PictureRow(
        url=row["url"],
        state=row["state"],
        at=row["at"],
        pending=bool(row["pending"]),
        kept={what: BlobRef(**blob) for what, blob in body["kept"].items()},
        drop=tuple(body["drop"]),
    )


def _hold_body(hold: Hold) -> dict[str, Any]:
    told = {name: value for name, value in asdict(hold).items() if value is not None}
    for name in ("id", "placed_at", "lifted_at"):
        told.pop(name, None)
    return {name: isoformat(value) if isinstance(value, datetime) else value for name, value in told.items()}


def _hold_of(row: rows.Row) -> Hold:
    body = rows.decode(row["body"])
    for name in {"since", "until"} & set(body):
        body[name] = parse_time(body[name])
    lifted = row["lifted_at"]
    return Hold(id=row["id"], placed_at=parse_time(row["placed_at"]), lifted_at=lifted and parse_time(lifted), **body)
