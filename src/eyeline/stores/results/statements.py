"""The statements of the hot path, written in SQLAlchemy Core and compiled once for the database at hand.

Running them on the bare DB-API cursor costs a tenth of what SQLAlchemy's own execution does; the wording stays Core's,
so that PostgreSQL gets its own.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import (
    ClauseElement,
    CompoundSelect,
    Dialect,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.stores.results.schema import (
    QUEUED,
    audit,
    camera_counts,
    cameras,
    events,
    jobs,
    key_uses,
    keys,
    model_sets,
    new_events,
    result_codes,
    result_labels,
    results,
    reviews,
    states,
)


class Prepared:
    """One statement as the driver wants it, and the order of its values. Compiled at its first use: a role needs few of all."""

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        self._clause = clause
        self._dialect = dialect

    @cached_property
    def _compiled(self) -> Any:
        return self._clause.compile(dialect=self._dialect)

    @cached_property
    def sql(self) -> str:
        """The text, with the driver's marks for values."""
        return str(self._compiled)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the values, in the order of their marks."""
        return tuple(self._compiled.positiontup or ())

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        return {name: value for name, value in self._compiled.params.items() if value is not None}

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        return tuple(column.key for column in getattr(self._clause, "selected_columns", ()))

    def one(self, cursor: Any, **values: Any) -> Any:
        """Run once, with one row of values."""
        return cursor.execute(self.sql, self._ordered(values))

    def rows(self, cursor: Any, **values: Any) -> list[dict[str, Any]]:
        """All rows as dicts."""
        found = self.one(cursor, **values).fetchall()
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    def each(self, cursor: Any, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A SELECT for each row of values: what all of them find, as dicts, over a network in one go."""
        asked = list(rows)
        found = self.many(cursor, asked).fetchall() if asked else []
        return [dict(zip(self._columns, row, strict=True)) for row in found]

    def many(self, cursor: Any, rows: Iterable[Mapping[str, Any]]) -> Any:
        """Run for each row; without rows nothing is run."""
        ordered = [self._ordered(row) for row in rows]
        return cursor.executemany(self.sql, ordered) if ordered else cursor

    def _ordered(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        if self._fixed:
            values = {**self._fixed, **values}
        return tuple([values[name] for name in self.names])


S = TypeVar("S")
_made: dict[tuple[Callable[[Dialect], Any], str, str], Any] = {}


def statements(kind: Callable[[Dialect], S], dialect: Dialect) -> S:
    """The set of statements of this kind for the database at hand: made once a process, however many stores it opens."""
    which = (kind, dialect.name, dialect.driver)
    if which not in _made:
        _made[which] = kind(dialect)
    made: S = _made[which]
    return made


class Statements:
    """All of them, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        upsert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: ClauseElement) -> Prepared:
            return Prepared(clause, dialect)

        def replace(table: Any, key: str) -> Prepared:
            clause = upsert(table)
            names = [column.name for column in table.columns]
            fresh = {name: clause.excluded[name] for name in names if name != key}
            return prepared(clause.values(_binds(names)).on_conflict_do_update(index_elements=[key], set_=fresh))

        def add(table: Any, *, ignore: bool = False, skip: tuple[str, ...] = ()) -> Any:
            names = [column.name for column in table.columns if column.name not in skip]
            clause = upsert(table).values(_binds(names))
            return clause.on_conflict_do_nothing() if ignore else clause

        self.keep_job = prepared(add(jobs, ignore=True).returning(jobs.c.id))
        self.job_by_key = prepared(
            select(jobs).where(
                jobs.c.principal == bindparam("principal"),
                jobs.c.idempotency_key == bindparam("idempotency_key"),
            )
        )
        self.job_by_id = prepared(select(jobs).where(jobs.c.id == bindparam("id")))
        self.mark_enqueued = prepared(
            # a finished job is looked for by nobody; not to touch its row saves most of the writing
            update(jobs).where(jobs.c.id == bindparam("which"), QUEUED).values(enqueued=bindparam("enqueued"))
        )
        self.forget_enqueued = prepared(update(jobs).where(QUEUED).values(enqueued=bindparam("enqueued")))
        self.charge = prepared(
            update(jobs)
            .where(jobs.c.id == bindparam("which"))
            .values(attempts=jobs.c.attempts + 1)
            .returning(jobs.c.attempts)
        )
        self.finish_job = prepared(update(jobs).where(jobs.c.id == bindparam("id")).values(status=bindparam("status")))
        self.save_result = prepared(add(results, ignore=True).returning(results.c.id))
        self.add_label = prepared(add(result_labels))
        self.add_models = prepared(add(model_sets, ignore=True))
        self.add_code = prepared(add(result_codes))
        numbered_later = dialect.name == "postgresql"
        self.add_event = prepared(add(new_events, skip=("number",)) if numbered_later else add(events, skip=("seq",)))
        self.number_events = prepared(select(func.number_events())) if numbered_later else None
        self.add_audit = prepared(add(audit, skip=("seq", "block", "position")))
        self.count_camera = prepared(_counted(upsert))
        self.put_state = replace(states, "name")
        self.put_camera = replace(cameras, "name")
        self.put_key = replace(keys, "name")
        touched = upsert(key_uses)
        self.touch_key = prepared(
            touched.values(_binds(("sha256", "used_at"))).on_conflict_do_update(
                index_elements=["sha256"],
                set_={"used_at": touched.excluded.used_at},
                where=key_uses.c.used_at < touched.excluded.used_at,
            )
        )
        self.result_by_id = prepared(placed().where(results.c.id == bindparam("id")))
        self.unfinished = prepared(_waiting())
        self.camera_counts = prepared(_accounts())
        self.tail = prepared(_tail())
        self.last_seq = prepared(select(func.coalesce(func.max(events.c.seq), literal_column("0")).label("newest")))


def placed() -> Select[Any]:
    """Results with the places at which they are sealed and their verdicts, to be chosen by what they are."""
    return (
        select(results.c.id, results.c.body, audit.c.block, audit.c.position, reviews.c.body.label("verdict"))
        .outerjoin(audit, commits_to(results.c.id))
        .outerjoin(reviews, reviews.c.result_id == results.c.id)
    )


def with_places(page: Select[Any], *, oldest: bool = False) -> Select[Any]:
    """A page of results (their `id`s), newest first (or oldest), with the places at which they are sealed and their verdicts."""
    found = page.subquery()
    return (
        select(
            found.c.id,
            body_of(found.c.id).label("body"),
            audit.c.block,
            audit.c.position,
            reviews.c.body.label("verdict"),
        )
        .outerjoin(audit, commits_to(found.c.id))
        .outerjoin(reviews, reviews.c.result_id == found.c.id)
        .order_by(found.c.id.asc() if oldest else found.c.id.desc())
    )


def body_of(result_id: Any) -> Any:
    """The body of the result of that id, or NULL. Looked up for each row: a join of many rows with a table in many partitions is
    taken for so dear that the database would rather read the whole table.
    """
    return select(results.c.body).where(results.c.id == result_id).scalar_subquery()


def commits_to(result_id: Any) -> Any:
    """The audit row of a result that is there; one without a salt is of a result that was erased under the same id."""
    return (audit.c.id == result_id) & TO_A_RESULT


#: Of an audit row: it commits to a result that is there.
TO_A_RESULT = (audit.c.kind == "result") & (func.length(audit.c.salt) > 0)


def _binds(names: Iterable[str]) -> dict[str, Any]:
    return {name: bindparam(name) for name in names}


def _counted(upsert: Any) -> Any:
    names = ("completed", "failed", "duplicates")
    clause = upsert(camera_counts).values(_binds(("camera", *names)))
    added = {name: camera_counts.c[name] + clause.excluded[name] for name in names}
    return clause.on_conflict_do_update(index_elements=["camera"], set_=added)


def _waiting() -> Select[Any]:
    """The waiting line by lane and camera, with the age of the oldest: read from one covering partial index."""
    return (
        select(jobs.c.lane, jobs.c.camera, func.count().label("count"), func.min(jobs.c.received_at).label("oldest"))
        .where(QUEUED)
        .group_by(jobs.c.lane, jobs.c.camera)
    )


def _accounts() -> CompoundSelect[Any]:
    """Finished and waiting ones of each camera in one statement, so that no job is seen in both or in neither."""
    counted = select(
        camera_counts.c.camera,
        camera_counts.c.completed,
        camera_counts.c.failed,
        camera_counts.c.duplicates,
        literal_column("0").label("in_flight"),
    )
    waiting = (
        select(jobs.c.camera, literal_column("0"), literal_column("0"), literal_column("0"), func.count())
        .where(QUEUED, jobs.c.camera.is_not(None))
        .group_by(jobs.c.camera)
    )
    return union_all(counted, waiting)


def _tail() -> Select[Any]:
    """Events in order, each with the body of the result it stands for."""
    return (
        select(events, body_of(events.c.result_id).label("result_body"))
        .where(events.c.seq > bindparam("after"))
        .order_by(events.c.seq)
        .limit(bindparam("limit"))
    )
