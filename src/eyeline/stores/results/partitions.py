"""PostgreSQL keeps results in partitions, one for each month of their ids (migration 0011).

    results_past ──▶ results_2027_01 ──▶ results_2027_02 ──▶ results_2027_03      (each named by where it begins)

Together they cover every id there can be: the first has no beginning and the last no end, so that no clock is so wrong that its
results find no place. A default partition would take them too, but pages could then not be read one partition after the other,
and nothing could be found without a look into each.

What changes here has the table to itself for less than a tenth of a second, and gives up where somebody else has it for longer:
the next look tries again. Any number of processes may do it at once; one whose user does not own the table leaves it to others.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Engine

from eyeline.core.ids import first_id
from eyeline.stores.results.schema import PARTITION

#: Months that have their partition before they come.
AHEAD = 2
#: How long others are made to wait: for the lock (they queue behind it), and for a look whether a partition is empty.
LOCK, LOOK = "1s", "2s"
#: A partition that never held anything takes less, in bytes.
NOTHING = 1 << 20

#: One process at a time; the first half says Eyeline, as in upgrade.py.
_TURN = "SELECT pg_try_advisory_xact_lock(1163480396, 2)"
_OURS = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'results'::regclass"
_PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'results'::regclass
"""
_RANGE = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'(.+)')\) TO \((?:MAXVALUE|'(.+)')\)")


@dataclass(frozen=True)
class Partition:
    """Results with begins <= id < ends; None is no bound."""

    name: str
    begins: str | None
    ends: str | None
    size: int


def tend(engine: Engine, now: datetime) -> None:
    """Make the partitions of the coming months, and drop the oldest ones that are empty. Blocks; idempotent."""
    with engine.connect() as connection:
        if not connection.exec_driver_sql(_OURS).scalar_one():
            return
        there = partitions(connection)
        spent = _spent(connection, there, now)
    missing = [month for month in _coming(now) if first_id(month) not in {each.begins for each in there}]
    for month in missing:
        _alone(engine, partial(_begin, month=month))
    if spent:
        _alone(engine, partial(_drop, now=now))


def partitions(connection: Connection) -> list[Partition]:
    """What there is, from the oldest ids to the newest."""
    found = [
        Partition(name, bounds[1], bounds[2], size)
        for name, told, size in connection.exec_driver_sql(_PARTITIONS)
        if (bounds := _RANGE.fullmatch(told)) is not None
    ]
    return sorted(found, key=lambda each: each.begins or "")


def _coming(now: datetime) -> list[datetime]:
    """When each of the coming months begins."""
    months = [now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)]
    for _ in range(AHEAD):
        months.append((months[-1] + timedelta(days=32)).replace(day=1))
    return months[1:]


def _alone(engine: Engine, change: Callable[[Connection], None]) -> None:
    """In a transaction in which nobody else has the table; what another process is about to change is left to it."""
    with engine.begin() as connection:
        if connection.exec_driver_sql(_TURN).scalar_one():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK}'")
            connection.exec_driver_sql("LOCK TABLE ONLY results IN ACCESS EXCLUSIVE MODE")
            change(connection)


def _begin(connection: Connection, month: datetime) -> None:
    """A partition ends where the month begins, and a new one takes up from there; with it goes what some clock was ahead with."""
    first, run = first_id(month), connection.exec_driver_sql
    before = [each for each in partitions(connection) if (each.begins or "") <= first][-1]
    if before.begins == first:  # another process was quicker
        return
    run(f'ALTER TABLE results DETACH PARTITION "{before.name}"')
    run(f'CREATE TABLE "{PARTITION}{month:%Y_%m}" PARTITION OF results {_bounds(first, before.ends)}')
    move = "WITH moved AS (DELETE FROM \"{}\" WHERE id >= '{}' RETURNING *) INSERT INTO results SELECT * FROM moved"
    run(move.format(before.name, first))
    run(f'ALTER TABLE results ATTACH PARTITION "{before.name}" {_bounds(before.begins, first)}')


def _drop(connection: Connection, now: datetime) -> None:
    """The oldest ones go, and an empty one takes their place, for whoever comes with such an id after all."""
    run = connection.exec_driver_sql
    run(f"SET LOCAL statement_timeout = '{LOOK}'")
    spent = _spent(connection, partitions(connection), now)
    for each in spent:
        run(f'DROP TABLE "{each.name}"')
    if spent:
        run(f"CREATE TABLE {PARTITION}past PARTITION OF results {_bounds(None, spent[-1].ends)}")


def _spent(connection: Connection, there: Sequence[Partition], now: datetime) -> list[Partition]:
    """The oldest ones, as far as they are of the past and hold no row: what is under a legal hold is a row."""
    spent: list[Partition] = []
    for each in there:
        if each.ends is None or each.ends > first_id(now) or _holds_any(connection, each):
            break
        spent.append(each)
    return spent if len(spent) > 1 or any(each.size > NOTHING for each in spent) else []


def _holds_any(connection: Connection, partition: Partition) -> bool:
    """By the index: the pages at the beginning of the table may all be empty by now."""
    oldest = f'SELECT min(id) FROM "{partition.name}"'  # noqa: S608 - no value in it
    return connection.exec_driver_sql(oldest).scalar_one() is not None


def _bounds(begins: str | None, ends: str | None) -> str:
    first = "MINVALUE" if begins is None else f"'{begins}'"
    behind = "MAXVALUE" if ends is None else f"'{ends}'"
    return f"FOR VALUES FROM ({first}) TO ({behind})"
