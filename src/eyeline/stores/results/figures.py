"""Figures over time in the results database, and the processes that make them. A part of the SQL store."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import Dialect, Select, bindparam, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.stores.results import rows
from eyeline.stores.results.audit import note_action
from eyeline.stores.results.base import Action, LineRow, ReplicaRow, SeriesRow
from eyeline.stores.results.lines import Writer
from eyeline.stores.results.schema import QUEUED, jobs, replicas, series, states
from eyeline.stores.results.statements import Prepared

#: The name under which the cursor lies among the states.
CURSOR = "series"
FORGOTTEN = timedelta(days=1)


class FigureStatements:
    """What is written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        def add(table: Any) -> Any:
            return insert(table).values({column.name: bindparam(column.name) for column in table.columns})

        key = (
            series.c.step == bindparam("which_step"),
            series.c.start == bindparam("which_start"),
            series.c.site == bindparam("which_site"),
        )
        self.begin = prepared(add(states).on_conflict_do_nothing().returning(states.c.name))
        self.move = prepared(
            update(states)
            .where(states.c.name == bindparam("which"), states.c.value == bindparam("before"))
            .values(value=bindparam("after"))
            .returning(states.c.name)
        )
        stated = add(states)
        fresh_state = {"value": stated.excluded["value"]}
        self.put_state = prepared(stated.on_conflict_do_update(index_elements=["name"], set_=fresh_state))
        # made first and added to then, so that of two who begin a bucket at once the second waits for the first
        self.make = prepared(add(series).on_conflict_do_nothing())
        held = select(series.c.sums).where(*key)
        self.held = prepared(held.with_for_update() if dialect.name == "postgresql" else held)
        self.put = prepared(update(series).where(*key).values(sums=bindparam("sums")))
        self.prune = prepared(
            delete(series).where(series.c.step == bindparam("which_step"), series.c.start < bindparam("before"))
        )
        added = add(replicas)
        fresh = {column.name: added.excluded[column.name] for column in replicas.columns if column.name != "id"}
        same = (
            replicas.c.started_at == added.excluded.started_at
        )  # a container keeps its name and its pid when started again
        fresh["drained_at"] = case((same, replicas.c.drained_at), else_=None)
        self.put_replica = prepared(added.on_conflict_do_update(index_elements=["id"], set_=fresh))
        self.drain_replica = prepared(
            update(replicas)
            .where(replicas.c.id == bindparam("which"))
            .values(drained_at=bindparam("drained_at"))
            .returning(replicas.c.id)
        )
        self.forget_replicas = prepared(delete(replicas).where(replicas.c.seen_at < bindparam("before")))

    def moved(self, cursor: Any, name: str, before: bytes | None, after: bytes) -> bool:
        """Whether the state was `before` (None: not there), and is `after` now."""
        if before is None:
            return bool(self.begin.rows(cursor, name=name, value=after))
        return bool(self.move.rows(cursor, which=name, before=before, after=after))


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _figures: FigureStatements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class Figures:
    """The methods of ResultStore that are about figures over time."""

    async def keep_state(self: _Store, name: str, value: bytes, action: Action) -> None:
        """Both or neither."""

        def keep(cursor: Any) -> None:
            self._figures.put_state.one(cursor, name=name, value=value)
            note_action(cursor, self, action)

        await self._writer.write(keep)

    async def replace_state(self: _Store, name: str, before: bytes | None, value: bytes, action: Action) -> bool:
        """Of two who loaded the same, one moves it."""

        def replace(cursor: Any) -> bool:
            if not self._figures.moved(cursor, name, before, value):
                return False
            note_action(cursor, self, action)
            return True

        return await self._writer.write(replace)

    async def line(self: _Store) -> list[LineRow]:
        """Found by the partial index of queued jobs: as dear as the line is long, which is bounded."""
        oldest = func.min(jobs.c.received_at).label("oldest")
        query = select(jobs.c.site, jobs.c.lane, func.count().label("count"), oldest).where(QUEUED)
        found = await self._rows(query.group_by(jobs.c.site, jobs.c.lane).order_by(jobs.c.site, jobs.c.lane))
        return [LineRow(**{**row, "oldest": parse_time(row["oldest"])}) for row in found]

    async def series_cursor(self: _Store) -> int | None:
        """As text among the states."""
        found = await self._rows(select(states.c.value).where(states.c.name == CURSOR))
        return int(found[0]["value"]) if found else None

    async def add_series(self: _Store, rows: Sequence[SeriesRow], *, before: int | None, after: int) -> bool:
        """The cursor moves first: whoever moves it alone may add."""
        do = self._figures

        def commit(cursor: Any) -> bool:
            moved = do.moved(cursor, CURSOR, None if before is None else b"%d" % before, b"%d" % after)
            if moved:
                _add(cursor, do, rows)
            return moved

        return await self._writer.write(commit)

    async def add_sums(self: _Store, rows: Sequence[SeriesRow]) -> None:
        """What a process measured of itself, which no other one adds."""
        await self._writer.write(lambda cursor: _add(cursor, self._figures, rows), durable=False)

    async def series(self: _Store, step: int, since: int, sites: Sequence[str] | None) -> list[SeriesRow]:
        """In the order of the key."""
        query = select(series).where(series.c.step == step, series.c.start >= since)
        if sites is not None:
            query = query.where(series.c.site.in_(sites))
        return [rows.series_of(row) for row in await self._rows(query.order_by(series.c.start, series.c.site))]

    async def prune_series(self: _Store, step: int, before: int) -> None:
        """By the key."""
        do = self._figures.prune
        await self._writer.write(lambda cursor: do.one(cursor, which_step=step, before=before) and None, durable=False)

    async def report_replica(self: _Store, row: ReplicaRow) -> None:
        """The newest word stands."""
        values, before = rows.replica_row(row), isoformat(row.seen_at - FORGOTTEN)

        def put(cursor: Any) -> None:
            self._figures.put_replica.one(cursor, **values)
            self._figures.forget_replicas.one(cursor, before=before)

        await self._writer.write(put, durable=False)

    async def replicas(self: _Store) -> list[ReplicaRow]:
        """By id."""
        return [rows.replica_of(row) for row in await self._rows(select(replicas).order_by(replicas.c.id))]

    async def drain_replica(self: _Store, id: str, *, drained: bool, action: Action) -> bool:  # noqa: A002
        """Both or neither."""
        since = isoformat(utcnow()) if drained else None

        def put(cursor: Any) -> bool:
            found = self._figures.drain_replica.rows(cursor, which=id, drained_at=since)
            if found:
                note_action(cursor, self, action)
            return bool(found)

        return await self._writer.write(put)

    async def is_drained(self: _Store, id: str) -> bool:  # noqa: A002
        """By the key."""
        return bool(
            await self._rows(select(replicas.c.id).where(replicas.c.id == id, replicas.c.drained_at.is_not(None)))
        )


def _add(cursor: Any, do: FigureStatements, added: Iterable[SeriesRow]) -> None:
    """In the order of the key, so that two who add do not wait for each other in a ring."""
    for row in sorted(added, key=lambda row: (row.step, row.start, row.site)):
        key = {"which_step": row.step, "which_start": row.start, "which_site": row.site}
        do.make.one(cursor, step=row.step, start=row.start, site=row.site, sums=b"{}")
        held: Mapping[str, float] = rows.decode(do.held.rows(cursor, **key)[0]["sums"])
        total = {name: held.get(name, 0) + row.sums.get(name, 0) for name in held.keys() | row.sums.keys()}
        do.put.one(cursor, **key, sums=rows.encode(total))
