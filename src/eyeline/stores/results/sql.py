"""The result store over SQLAlchemy Core, one for every database: one writing thread a process with group commit, a few
that read. What a database has of its own (where it is, how its errors read) is in sqlite.py and postgresql.py.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import Connection, Engine, Select, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.errors import StoreError
from eyeline.core.types import LANES, Event, Job, Lane, Result
from eyeline.stores.results import rows
from eyeline.stores.results.alerts import Alerts, AlertStatements
from eyeline.stores.results.audit import Audit, AuditStatements, note_action
from eyeline.stores.results.base import (
    Action,
    KeptJob,
    KeyRow,
    NewJob,
    Unfinished,
)
from eyeline.stores.results.erasing import EraseStatements, Erasing
from eyeline.stores.results.figures import Figures, FigureStatements
from eyeline.stores.results.finding import Finding
from eyeline.stores.results.holders import Holders, HolderStatements
from eyeline.stores.results.items import Items, ItemStatements
from eyeline.stores.results.keeping import Keeping, KeepStatements
from eyeline.stores.results.latest import Latest
from eyeline.stores.results.lines import Readers, Writer
from eyeline.stores.results.notices import Notices, NoticeStatements
from eyeline.stores.results.people import People, PeopleStatements
from eyeline.stores.results.pep249 import DatabaseError, Error, IntegrityError, OperationalError, ProgrammingError
from eyeline.stores.results.review import Doubt
from eyeline.stores.results.rules import Rules, RuleStatements
from eyeline.stores.results.schema import (
    QUEUED,
    UNQUEUED,
    cameras,
    jobs,
    key_uses,
    keys,
    picture_blobs,
    results,
    states,
)
from eyeline.stores.results.statements import Statements, placed, statements
from eyeline.stores.results.upgrade import upgrade
from eyeline.stores.results.verdicts import Verdicts, VerdictStatements, doubt_rows, note_disagreements

T = TypeVar("T")

#: Seconds between looks at the event log for one who waits for events: writers ring; and where no bell can be heard.
LOOK, DEAF_LOOK = 0.25, 0.02


class Doorbell(Protocol):
    """How processes that share a database tell each other of events: see `core.bell`."""

    def ring(self) -> None:
        """Wake all other listeners. From any thread; never blocks, never raises."""
        ...

    def listen(self, heard: Callable[[], None]) -> bool:
        """Have `heard` called on the running loop at every ring. False where that cannot be."""
        ...

    def close(self) -> None:
        """Hear no more. Idempotent."""
        ...


class SqlResults(
    Alerts, Notices, Items, Rules, Audit, Verdicts, Finding, Latest, People, Figures, Keeping, Erasing, Holders
):
    """ResultStore on the database behind two engines: one that writes, one that reads. `where` is how errors name it; the
    `bell` wakes those who wait for events in other processes.
    """

    def __init__(self, writing: Engine, reading: Engine, where: str, bell: Doorbell) -> None:
        self.where = where
        self.writing = writing
        self.reading = reading
        self._dialect = writing.dialect
        self._statements = statements(Statements, writing.dialect)
        self._alerts = statements(AlertStatements, writing.dialect)
        self._notices = statements(NoticeStatements, writing.dialect)
        self._items = statements(ItemStatements, writing.dialect)
        self._rules = statements(RuleStatements, writing.dialect)
        self._audit = statements(AuditStatements, writing.dialect)
        self._verdicts = statements(VerdictStatements, writing.dialect)
        self._people = statements(PeopleStatements, writing.dialect)
        self._figures = statements(FigureStatements, writing.dialect)
        self._keep = statements(KeepStatements, writing.dialect)
        self._erase = statements(EraseStatements, writing.dialect)
        self._holders = statements(HolderStatements, writing.dialect)
        self._held = None
        self._writer = Writer(writing, self._translate)
        self._readers = Readers(reading, self._translate)
        self._bell = bell
        self._news = asyncio.Event()
        self._closed = False

    def _translate(self, error: Exception) -> Exception:
        """A driver's exception as a StoreError that says what to do; what is not the database's is left as it is."""
        return store_error(error, self.where)

    def _migrating(self) -> Engine:
        """The engine that migrations run on."""
        return self.writing

    # jobs
    async def keep_jobs(self, jobs: Sequence[NewJob]) -> list[KeptJob]:
        """Insert what is new; a known id or idempotency key gives the row that is there."""
        if not jobs:
            return []
        kept_at = time.time()
        fresh = [(new, rows.job_row(new, kept_at)) for new in jobs]

        def keep(cursor: Any) -> list[KeptJob]:
            new = {row[0] for row in self._statements.keep_job.many(cursor, [row for _, row in fresh]).fetchall()}
            return [self._kept(cursor, each, row, new) for each, row in fresh]

        return await self._writer.write(keep)

    def _kept(self, cursor: Any, new: NewJob, row: Mapping[str, Any], inserted: set[str]) -> KeptJob:
        if new.job.id in inserted:
            inserted.discard(new.job.id)  # the same once more in one call is an existing one
            return KeptJob(job=new.job, status="queued", attempts=0, enqueued=new.enqueued, body_digest=new.body_digest)
        found = self._statements.job_by_id.rows(cursor, id=new.job.id)
        found = found or self._statements.job_by_key.rows(cursor, **row)
        return rows.kept_job(found[0], existing=True)

    async def mark_enqueued(self, ids: Sequence[str]) -> None:
        """Set the flag, in company of other writes where there are any; unknown ids are ignored."""
        marks = [{"which": ident, "enqueued": True} for ident in sorted(ids)]
        mark = self._statements.mark_enqueued
        await self._writer.write(lambda cursor: mark.many(cursor, marks) and None, durable=False)

    async def forget_enqueued(self) -> int:
        """In one transaction."""
        forget = self._statements.forget_enqueued
        return await self._writer.write(lambda cursor: int(forget.one(cursor, enqueued=False).rowcount))

    async def unqueued(self, older_than: float, limit: int) -> list[Job]:
        """Oldest first."""
        before = time.time() - older_than
        query = select(jobs.c.body).where(UNQUEUED, jobs.c.kept_at < before).order_by(jobs.c.kept_at).limit(limit)
        return await self._readers.read(lambda c: [rows.job_of(row.body) for row in c.execute(query)])

    async def long_queued(self, older_than: float, after: str, limit: int) -> list[Job]:
        """From the partial index of queued jobs."""
        before = time.time() - older_than
        query = select(jobs.c.body).where(QUEUED, jobs.c.enqueued, jobs.c.kept_at < before, jobs.c.id > after)
        return await self._readers.read(
            lambda c: [rows.job_of(row.body) for row in c.execute(query.order_by(jobs.c.id).limit(limit))]
        )

    async def get_job(self, id: str) -> KeptJob | None:  # noqa: A002
        """The row, or None."""
        found = await self._readers.ask(lambda cursor: self._statements.job_by_id.rows(cursor, id=id))
        return rows.kept_job(found[0]) if found else None

    async def find_jobs(self, ids: Sequence[str]) -> dict[str, KeptJob]:
        """The rows by id."""
        found = await self._rows(select(jobs).where(jobs.c.id.in_(ids)))
        return {row["id"]: rows.kept_job(row) for row in found}

    async def charge(self, id: str) -> int:  # noqa: A002
        """One attempt more. Raises StoreError(transient=False) where there is no such job."""

        def charge(cursor: Any) -> int:
            charged = self._statements.charge.rows(cursor, which=id)
            if not charged:
                raise StoreError(f"no job {id!r} to charge an attempt to; it was never kept here", transient=False)
            return int(charged[0]["attempts"])

        return await self._writer.write(charge)

    async def unfinished(self) -> Unfinished:
        """Counted over the partial index of queued jobs."""
        return await self._readers.ask(lambda cursor: _unfinished(self._statements.unfinished.rows(cursor)), whole=True)

    async def named_blobs(self, urls: Sequence[str]) -> set[str]:
        """Those URLs that stand in a job, and those of what was made of a picture."""
        hashes = {rows.blob_hash(url.rpartition("/")[2]) for url in urls}
        named = select(jobs.c.body).where(jobs.c.blob_hash.in_(hashes))
        made = select(picture_blobs.c.url).where(picture_blobs.c.url.in_(urls))

        def look(connection: Connection) -> set[str]:
            by_jobs = {rows.job_of(row.body).blob.url for row in connection.execute(named)} & set(urls)
            return by_jobs | set(connection.execute(made).scalars())

        return await self._readers.read(look)

    # results
    async def save_many(self, results: Sequence[Result], doubts: Mapping[str, Doubt] | None = None) -> set[str]:
        """The first final result of an id wins; its labels, codes, audit row, event and counts come with it."""
        first: dict[str, Result] = {}
        for result in sorted(results, key=lambda result: result.id):  # rows are locked in one order by everybody
            first.setdefault(result.id, result)
        labels = {ident: rows.label_rows(result) for ident, result in first.items()}
        bodies = [rows.result_row(result, labels[ident]) for ident, result in first.items()]

        def save(cursor: Any) -> set[str]:
            new = {row[0] for row in self._statements.save_result.many(cursor, bodies).fetchall()}
            if new:
                self._record(
                    cursor,
                    [first[ident] for ident in first if ident in new],
                    [row for row in bodies if row["id"] in new],
                    [row for ident in new for row in labels[ident]],
                )
                told = [first[ident] for ident in sorted(new)]
                self._verdicts.doubt.many(cursor, doubt_rows(told, doubts or {}))
                note_disagreements(cursor, self._verdicts, told)
            return new

        return await self._tell(save) if first else set()

    def _record(
        self, cursor: Any, new: Sequence[Result], bodies: Sequence[rows.Row], labels: Sequence[rows.Row]
    ) -> None:
        """Everything that a new result brings with it, within its transaction."""
        at = isoformat(utcnow())
        do = self._statements
        do.finish_job.many(cursor, ({"id": result.id, "status": result.status} for result in new))
        do.add_label.many(cursor, labels)
        do.add_models.many(cursor, rows.model_rows(new))
        do.add_code.many(cursor, (row for result in new for row in rows.code_rows(result)))
        do.add_audit.many(cursor, rows.audit_rows([(row["id"], row["body"]) for row in bodies], "result", at))
        do.add_event.many(cursor, (rows.event_row(result, at) for result in new))
        do.count_camera.many(cursor, rows.count_rows(new))

    async def get(self, id: str) -> Result | None:  # noqa: A002
        """The result, or None."""
        found = await self._readers.ask(lambda cursor: self._statements.result_by_id.rows(cursor, id=id))
        return rows.sealed_result(found[0]) if found else None

    async def get_many(self, ids: Sequence[str]) -> dict[str, Result]:
        """The results by id."""
        found = await self._rows(placed().where(results.c.id.in_(ids)))
        return {row["id"]: rows.sealed_result(row) for row in found}

    async def camera_counts(self) -> dict[str, dict[str, int]]:
        """What each camera's frames came to, from counts kept in the saving transactions."""
        counts: dict[str, dict[str, int]] = {}
        for row in await self._readers.ask(self._statements.camera_counts.rows):
            account = counts.setdefault(row.pop("camera"), dict.fromkeys(row, 0))
            for name, number in row.items():
                account[name] += number
        return counts

    # event log
    async def add_event(self, kind: Literal["alert", "system"], site: str, body: Mapping[str, Any]) -> None:
        """Append one event."""
        row = {"kind": kind, "site": site, "at": isoformat(utcnow()), "result_id": None, "body": rows.encode(body)}
        await self._tell(lambda cursor: self._statements.add_event.one(cursor, **row) and None)

    async def tail(self, after: int, limit: int, *, wait: float = 0.0) -> list[Event]:
        """What is committed is numbered before it is read, so nothing can appear behind what was read."""

        def look(cursor: Any) -> list[Event]:
            self._number(cursor)
            return [rows.event_of(row) for row in self._statements.tail.rows(cursor, after=after, limit=limit)]

        until = time.monotonic() + wait
        heard = wait > 0 and self._bell.listen(self._wake)
        while True:
            news = self._news
            found = await self._readers.ask(look, whole=True)
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(LOOK if heard else DEAF_LOOK, left))
            if self._closed:
                return []

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _tell(self, work: Callable[[Any], T]) -> T:
        """Write what others wait for."""
        done = await self._writer.write(work)
        self._wake()
        self._bell.ring()
        return done

    async def last_seq(self) -> int:
        """The newest number."""

        def look(cursor: Any) -> int:
            self._number(cursor)
            return int(self._statements.last_seq.rows(cursor)[0]["newest"])

        return await self._readers.ask(look, whole=True)

    def _number(self, cursor: Any) -> None:
        """Give their numbers to the events that were committed since; SQLite's have theirs already."""
        if self._statements.number_events is not None:
            self._statements.number_events.one(cursor)

    # what engines keep
    async def load_state(self, name: str) -> bytes | None:
        """The named bytes."""
        query = select(states.c.value).where(states.c.name == name)
        return await self._readers.read(lambda c: c.execute(query).scalar_one_or_none())

    # cameras and keys
    async def report_camera(self, name: str, site: str, body: Mapping[str, Any]) -> None:
        """The newest report takes the place of the one before."""
        row = {"name": name, "site": site, "reported_at": isoformat(utcnow()), "body": rows.encode(body)}
        await self._writer.write(lambda cursor: self._statements.put_camera.one(cursor, **row) and None)

    async def cameras(self) -> dict[str, dict[str, Any]]:
        """The last report of each."""
        found = await self._rows(select(cameras).order_by(cameras.c.name))
        return {
            row["name"]: rows.decode(row["body"]) | {"site": row["site"], "reported_at": row["reported_at"]}
            for row in found
        }

    async def put_key(self, row: KeyRow, *, by: str = "") -> None:
        """Insert or replace."""
        values = rows.key_row(row)
        told = {name: values[name] for name in ("name", "role", "sites", "expires_at", "revoked_at")}

        def put(cursor: Any) -> None:
            self._statements.put_key.one(cursor, **values)
            note_action(cursor, self, Action(what="key", by=by, body=told))

        await self._writer.write(put)

    async def keys(self) -> list[KeyRow]:
        """By name."""
        return [rows.key_of(row) for row in await self._rows(select(keys).order_by(keys.c.name))]

    async def touch_keys(self, uses: Mapping[str, datetime]) -> None:
        """In company of other writes where there are any."""
        touched = [{"sha256": sha256, "used_at": isoformat(at)} for sha256, at in sorted(uses.items())]
        await self._writer.write(lambda cursor: self._statements.touch_key.many(cursor, touched), durable=False)

    async def key_uses(self) -> dict[str, datetime]:
        """All of them."""
        return {row["sha256"]: parse_time(row["used_at"]) for row in await self._rows(select(key_uses))}

    async def upgrade(self) -> None:
        """Run what migrations are missing; several processes take turns."""
        await self._aside(lambda engine: upgrade(engine, self.where))

    async def _aside(self, work: Callable[[Engine], None]) -> None:
        """Change tables, on a connection that is there for that alone."""

        def run() -> None:
            try:
                work(self._migrating())
            except (SQLAlchemyError, Error, OSError) as error:
                raise self._translate(error) from error

        await asyncio.to_thread(run)

    async def close(self) -> None:
        """Write what waits, then give back threads and files."""
        if not self._closed:
            await self._give_up()
        self._closed = True
        self._bell.close()
        self._wake()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._readers.close()
        self.writing.dispose()
        self.reading.dispose()

    async def _rows(self, query: Select[Any], *, whole: bool = False) -> Sequence[rows.Row]:
        return await self._readers.read(lambda c: c.execute(query).mappings().all(), whole=whole)


def _unfinished(counted: Sequence[rows.Row]) -> Unfinished:
    by_lane: dict[Lane, int] = dict.fromkeys(LANES, 0)
    by_camera: dict[str, int] = {}
    for row in counted:
        by_lane[row["lane"]] += row["count"]
        if row["camera"] is not None:
            by_camera[row["camera"]] = by_camera.get(row["camera"], 0) + row["count"]
    oldest = min((row["oldest"] for row in counted), default=None)
    return Unfinished(
        count=sum(by_lane.values()),
        oldest=None if oldest is None else parse_time(oldest),
        by_lane=by_lane,
        by_camera=by_camera,
    )


def store_error(error: Exception, where: str, repair: str = "see the database's own log") -> Exception:
    """A driver's exception as a StoreError that says what to do; anything that is not the database's is left as it is."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, OperationalError):
        if cause.disk_full:
            return StoreError(
                f"the disk that holds {where} is full ({cause}); free space there, writing goes on by itself"
            )
        return StoreError(f"the results database {where} cannot be used now: {cause}")
    if isinstance(cause, IntegrityError | ProgrammingError):
        return StoreError(f"the results database {where} refused a statement: {cause}", transient=False)
    if isinstance(cause, DatabaseError):
        return StoreError(f"{where} {repair.format(cause=cause)}", transient=False)
    if isinstance(error, SQLAlchemyError):
        return StoreError(f"the results database {where}: {error}", transient=False)
    return error
