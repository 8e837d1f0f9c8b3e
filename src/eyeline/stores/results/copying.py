"""All rows of one results database into another, whatever kind either is: in pages, resumable, compared by digest.

How far a copy came stands in the target itself, in the transaction that wrote the page; so a copy that is cut off goes on
there, and a target that holds anything else is never written to.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, select, text, tuple_

from eyeline.core.errors import ConfigError
from eyeline.stores.results.schema import metadata, new_events, states
from eyeline.stores.results.sql import SqlResults
from eyeline.stores.results.upgrade import HEAD, current

#: Rows read and written at a time.
PAGE = 500
#: The name under which the target keeps how far the copy came.
MARK = "copying"
#: Told after each page: how many rows it had.
Step = Callable[[int], None]

Row = Mapping[str, Any]

TABLES = [table for table in metadata.sorted_tables if table is not new_events]


def count_rows(source: SqlResults) -> int:
    """How many there are to copy. Blocks."""
    with source.reading.connect() as connection:
        return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES)


def copy_rows(source: SqlResults, target: SqlResults, step: Step) -> None:
    """Copy what is not there yet, then compare. Both are at this release's schema and nobody writes to either. Blocks.

    Raises ConfigError where the target holds other rows, where the two differ in the end, and for a database of a newer
    release: it may have tables that would stay behind.
    """
    for store in (source, target):
        with store.reading.connect() as connection:
            found = current(connection)
        if found != HEAD:
            raise ConfigError(
                f"{store.where} is at schema {found}, this release knows {HEAD}; copy it with its own release"
            )
    with target.writing.begin() as connection:
        came = _claimed(connection, source.where)
    for table in TABLES:
        _copy(source, target, table, came, step)
    for table in TABLES:
        _compare(source, target, table)
    with target.writing.begin() as connection:
        _count_on(connection)


def finish(target: SqlResults) -> None:
    """The copy is whole: the next one will refuse to write here. Blocks."""
    with target.writing.begin() as connection:
        connection.execute(delete(states).where(states.c.name == MARK))


def _claimed(connection: Connection, source: str) -> dict[str, Any]:
    """How far an earlier copy from the same source came, by table; an empty database is claimed."""
    found = connection.execute(select(states.c.value).where(states.c.name == MARK)).scalar_one_or_none()
    if found is not None:
        came: dict[str, Any] = msgspec.json.decode(found)
        if came["source"] != source:
            raise ConfigError(f"the target is half-way through a copy of {came['source']}; finish that, or empty it")
        return came
    held = [table.name for table in TABLES if connection.execute(select(table).limit(1)).first() is not None]
    if held:
        raise ConfigError(
            f"the target holds {', '.join(held)} already and nothing is overwritten; name an empty database"
        )
    came = {"source": source}
    connection.execute(insert(states).values(name=MARK, value=msgspec.json.encode(came)))
    return came


def _copy(source: SqlResults, target: SqlResults, table: Table, came: dict[str, Any], step: Step) -> None:
    names = [column.name for column in table.primary_key]
    for page in _pages(source, table, came.get(table.name)):
        with target.writing.begin() as connection:
            connection.execute(insert(table), page)
            came[table.name] = [page[-1][name] for name in names]
            mark = states.update().where(states.c.name == MARK)
            connection.execute(mark.values(value=msgspec.json.encode(came)))
        step(len(page))


def _pages(store: SqlResults, table: Table, after: Sequence[Any] | None) -> Iterator[list[dict[str, Any]]]:
    """The rows behind `after` in the order of their key, the mark aside."""
    keys = list(table.primary_key)
    query = select(table).order_by(*keys).limit(PAGE)
    if table is states:
        query = query.where(states.c.name != MARK)
    with store.reading.connect() as connection:
        while True:
            further = query if after is None else query.where(tuple_(*keys) > tuple_(*after))
            page = [dict(row) for row in connection.execute(further).mappings()]
            if not page:
                return
            yield page
            after = [page[-1][column.name] for column in keys]


def _compare(source: SqlResults, target: SqlResults, table: Table) -> None:
    if _digest(source, table) != _digest(target, table):
        raise ConfigError(
            f"the copy of the table {table.name!r} is not what the source holds now: somebody wrote to one of them; "
            "stop everything that uses either, empty the target, and start again"
        )


def _digest(store: SqlResults, table: Table) -> int:
    """The sum of all rows' digests: the same in whatever order a database sorts text."""
    return sum(_row_digest(row) for page in _pages(store, table, None) for row in page) % (1 << 256)


def _row_digest(row: Row) -> int:
    words = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row.values()]
    if row.get("status") == "queued":  # the copy's are marked as not enqueued at the end
        words = [None if name == "enqueued" else word for name, word in zip(row, words, strict=True)]
    return int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(words)).digest(), "big")


def _count_on(connection: Connection) -> None:
    """Numbers that a database draws itself go on behind those that were copied; SQLite sees to that alone."""
    if connection.dialect.name != "postgresql":
        return
    for table in ("events", "audit"):
        newest = f"SELECT max(seq) FROM {table}"  # noqa: S608 - no value in it
        connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'seq'), ({newest}))"))
