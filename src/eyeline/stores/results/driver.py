"""SQLAlchemy speaks to SQLite through apsw here, because apsw carries a current SQLite.

The interpreter's own SQLite is whatever the distribution has; those before 3.51.3 can corrupt a database in WAL mode.
Two copies of SQLite must never open one file in one process (closing a file drops the other's locks), so everything
that touches the results database, Alembic too, comes through this small DB-API (PEP 249) module and dialect.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import apsw
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.interfaces import ConnectArgsType
from sqlalchemy.engine.url import URL

from eyeline.core import embedded
from eyeline.stores.results.pep249 import (
    Binary,
    DatabaseError,
    DiskFull,
    Error,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    apilevel,
    threadsafety,
)

__all__ = [
    "ApswDialect",
    "Binary",
    "Connection",
    "Cursor",
    "DatabaseError",
    "DiskFull",
    "Error",
    "IntegrityError",
    "OperationalError",
    "ProgrammingError",
    "apilevel",
    "connect",
    "paramstyle",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
]

paramstyle = "qmark"
sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))

#: Pages in the WAL after which a writer checkpoints although that is the supervisor's work: 64 MB without a supervisor.
SAFETY_CHECKPOINT_PAGES = 16_384


_SURROUNDINGS = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.InterruptError,
)


def translated(error: Exception) -> Error:
    """Apsw's exception as the one of PEP 249 that says the same."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, apsw.FullError):
        return DiskFull(text)
    if isinstance(error, _SURROUNDINGS):
        return OperationalError(text)
    if isinstance(error, apsw.ConstraintError):
        return IntegrityError(text)
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return DatabaseError(text)
    return ProgrammingError(text)


class Cursor:
    """A PEP 249 cursor over apsw's."""

    arraysize = 1
    lastrowid: int | None = None

    def __init__(self, raw: Any) -> None:
        self._connection = raw
        self._cursor = raw.cursor()
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1

    def _describe(self, cursor: Any, _sql: str, _bindings: object) -> bool:
        # asked before the first step: a SELECT without rows has no description afterwards
        names = cursor.get_description()
        self.description = tuple((name, kind, None, None, None, None, None) for name, kind in names) or None
        return True

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> "Cursor":
        """Run one statement."""
        try:
            self._cursor.exec_trace = self._describe
            self._cursor.execute(sql, parameters)
            self.rowcount = self._connection.changes() if self.description is None else -1
        except apsw.Error as error:
            raise translated(error) from error
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> "Cursor":
        """Run one statement for each row; `fetchall` gives what RETURNING returned for all of them."""
        try:
            before = self._connection.total_changes()
            self._cursor.exec_trace = None
            self._cursor.executemany(sql, rows)
            self.rowcount = self._connection.total_changes() - before
        except apsw.Error as error:
            raise translated(error) from error
        return self

    def fetchone(self) -> Any:
        """The next row or None."""
        try:
            return self._cursor.fetchone()
        except apsw.Error as error:
            raise translated(error) from error

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Up to `size` rows."""
        rows = (self.fetchone() for _ in range(size or self.arraysize))
        return [row for row in rows if row is not None]

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        try:
            found: list[Any] = self._cursor.fetchall()
        except apsw.Error as error:
            raise translated(error) from error
        return found

    def close(self) -> None:
        """Give the statement back."""
        self._cursor.close(True)


class Connection:
    """A PEP 249 connection over apsw's. A writing transaction starts with `begin`, never by itself."""

    def __init__(self, path: str, *, writing: bool) -> None:
        self._writing = writing
        self._durable = True
        try:
            self.raw = embedded.connect(Path(path))
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                f"wal_autocheckpoint={SAFETY_CHECKPOINT_PAGES}",
                "temp_store=MEMORY",
                f"cache_size=-{16_000 if writing else 4_000}",  # kB; several readers a process
            ):
                self.raw.execute(f"PRAGMA {pragma}")
        except apsw.Error as error:
            raise translated(error) from error

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self.raw)

    @property
    def in_transaction(self) -> bool:
        """Whether one was begun and not yet ended."""
        return bool(self.raw.in_transaction)

    @property
    def usable(self) -> bool:
        """Whether the next transaction may come; not where a rollback failed."""
        return not self.in_transaction

    def begin(self, *, durable: bool = True) -> None:
        """Take the write lock at once, so that no transaction fails half-way. A reader's SELECT is its own transaction.

        What is not `durable` is safe from the death of this process, but a power cut may undo it.
        """
        if not self._writing or self.in_transaction:
            return
        if durable is not self._durable:
            self._end(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._end("BEGIN IMMEDIATE")

    def limit(self, sites: Sequence[str]) -> None:
        """Nothing: SQLite knows no users. What keeps sites apart here is what is asked."""

    def commit(self) -> None:
        """Make it durable (fsynced)."""
        if self.in_transaction:
            self._end("COMMIT")

    def rollback(self) -> None:
        """Forget what the transaction did."""
        if self.in_transaction:
            self._end("ROLLBACK")

    def _end(self, sql: str) -> None:
        try:
            self.raw.execute(sql)
        except apsw.Error as error:
            raise translated(error) from error

    def close(self) -> None:
        """Close the file."""
        self.raw.close(True)


def connect(path: str, *, writing: bool = False) -> Connection:
    """Open `path`."""
    return Connection(path, writing=writing)


class ApswDialect(SQLiteDialect):
    """`sqlite+apsw:///…`."""

    driver = "apsw"
    default_paramstyle = "qmark"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """This very module."""
        return sys.modules[__name__]

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        """The path, and whether transactions are to write (`?writing=1`)."""
        return [url.database or ""], {"writing": url.query.get("writing") == "1"}

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:  # noqa: ARG002
        return sqlite_version_info

    def do_begin(self, dbapi_connection: Any) -> None:
        """Transactions are started in the open: apsw starts none by itself."""
        dbapi_connection.begin()


registry.register("sqlite.apsw", __name__, "ApswDialect")
