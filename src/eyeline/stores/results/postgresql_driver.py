"""SQLAlchemy speaks to PostgreSQL through asyncpg here, as to SQLite through apsw: by a small blocking DB-API (PEP 249).

The store's own few threads do the waiting, so each connection has an event loop of its own that runs only while a
statement does. Many rows of one statement go to the server together, and what they return comes back together.
"""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from types import ModuleType
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.base import PGExecutionContext
from sqlalchemy.engine.interfaces import ConnectArgsType
from sqlalchemy.engine.url import URL

from eyeline.stores.results.grants import LIMITED, SITES, joined
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
    "Binary",
    "BlockingDialect",
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
    "threadsafety",
]

T = TypeVar("T")
paramstyle = "numeric_dollar"

#: Seconds until a server that does not answer is told of: when connecting, and for any one statement.
CONNECT, PATIENCE = 5.0, 15.0
#: Statements that a connection keeps prepared; those of the hot path are some forty.
PREPARED = 200

#: What reads for few sites begin with, where there is a wall (grants.py) and we may go behind it. All of it ends with the
#: transaction: a pooled connection keeps nothing of it.
_WALL = f"""
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{LIMITED}' AND has_table_privilege(oid, 'results', 'SELECT')
AND pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END))
"""  # noqa: S608 - no value in it
_LIMIT = f"BEGIN; SET LOCAL {SITES} = '{{}}'; SET LOCAL role = {LIMITED}"

_SETTINGS = {
    "application_name": "eyeline",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "15s",  # a process that was frozen must not hold its rows for ever
    "jit": "off",
    "parallel_setup_cost": "100000",  # a page over many partitions looks dearer than it is; starting helpers takes longer
}
#: Classes of SQLSTATE, and single codes, that say: the surroundings, try again.
_SURROUNDINGS = ("08", "40", "53", "55", "57", "58", "25006", "25P03")

#: What a prepared statement is answered with after a migration changed what it returns.
_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


def translated(error: Exception) -> Error:
    """Asyncpg's exception as the one of PEP 249 that says the same."""
    text = f"{type(error).__name__}: {error}".strip(": ")
    if isinstance(error, asyncpg.DiskFullError):
        return DiskFull(text)
    if isinstance(error, _STALE):
        return OperationalError(text)
    if isinstance(error, asyncpg.PostgresError):
        return _by_state(str(error.sqlstate or ""))(text)
    if isinstance(error, asyncpg.DataError):
        return ProgrammingError(text)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return DatabaseError(text)
    return OperationalError(text)


def _by_state(state: str) -> type[Error]:
    if state.startswith(_SURROUNDINGS):
        return OperationalError
    if state.startswith("23"):
        return IntegrityError
    return DatabaseError if state.startswith(("28", "3D", "XX")) else ProgrammingError


class Cursor:
    """A PEP 249 cursor: one statement and its rows, all of them fetched."""

    arraysize = 1
    lastrowid: int | None = None

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> "Cursor":
        """Run one statement."""
        self.description, self.rowcount, found = self._connection.run(_execute(self._connection, sql, parameters))
        self._rows = deque(found)
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> "Cursor":
        """Run one statement for each row; `fetchall` gives what RETURNING returned for all of them."""
        self._rows = deque(self._connection.run(_execute_many(self._connection, sql, rows)))
        self.rowcount = -1
        return self

    def fetchone(self) -> Any:
        """The next row or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Up to `size` rows."""
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        found, self._rows = list(self._rows), deque()
        return found

    def close(self) -> None:
        """Nothing is held."""


Description = tuple[tuple[Any, ...], ...] | None


async def _execute(
    connection: "Connection", sql: str, parameters: Sequence[Any]
) -> tuple[Description, int, Sequence[Any]]:
    statement = await connection.prepared(sql)
    found = await statement.fetch(*_bound(parameters))
    names = tuple((each.name, each.type.oid, None, None, None, None, None) for each in statement.get_attributes())
    return names or None, _count(statement.get_statusmsg()), found


async def _execute_many(connection: "Connection", sql: str, rows: Iterable[Sequence[Any]]) -> Sequence[Any]:
    statement = await connection.prepared(sql)
    ordered = [_bound(row) for row in rows]
    if statement.get_attributes():
        found: Sequence[Any] = await statement.fetchmany(ordered)
        return found
    await statement.executemany(ordered)
    return ()


def _bound(values: Sequence[Any]) -> list[Any]:
    """PostgreSQL's text holds no NUL; a barcode's may. It is kept and looked for as U+FFFD."""
    return [v.replace("\0", "\ufffd") if type(v) is str and "\0" in v else v for v in values]


def _count(status: str | None) -> int:
    """`INSERT 0 3` → 3; −1 for statements that count nothing."""
    last = (status or "").rpartition(" ")[2]
    return int(last) if last.isdigit() else -1


class Connection:
    """A PEP 249 connection. A writing transaction starts with `begin`, never by itself; a reader's SELECT is its own."""

    def __init__(self, dsn: str, *, writing: bool, patience: float | None) -> None:
        self._writing = writing
        self._begun = False
        self._loop = asyncio.new_event_loop()
        self._statements: dict[tuple[str, bool], Any] = {}
        self._made = 0
        self._limited = False
        self._walled: bool | None = None  # not asked yet
        self.raw: Any = None
        try:
            self.raw = self.run(
                asyncpg.connect(
                    dsn,
                    timeout=CONNECT,
                    command_timeout=patience,
                    statement_cache_size=0,
                    server_settings=_SETTINGS,
                )
            )
        except BaseException:
            self._loop.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. After a statement that took too long the connection is of no use any more."""
        try:
            return self._loop.run_until_complete(work)
        except TimeoutError as error:
            if self.raw is not None:
                self.raw.terminate()
            raise OperationalError("the server did not answer in time") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            self._learn(error)
            raise translated(error) from error

    def _learn(self, error: Exception) -> None:
        if isinstance(error, _STALE):
            self._statements.clear()  # a migration changed what they return
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self.raw.terminate()  # a standby now: the next connection finds the primary

    async def prepared(self, sql: str) -> Any:
        """The statement as the server keeps it for this connection."""
        which = (sql, self._limited)  # either has a plan of its own: one for both would be made anew at each change
        statement = self._statements.get(which)
        if statement is None:
            while len(self._statements) >= PREPARED:
                del self._statements[next(iter(self._statements))]
            self._made += 1  # without a name the server would plan the statement anew at each call
            statement = self._statements[which] = await self.raw.prepare(sql, name=f"eyeline_{self._made}")
        return statement

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self)

    @property
    def in_transaction(self) -> bool:
        """Whether one was begun and not yet ended."""
        return bool(not self.raw.is_closed() and self.raw.is_in_transaction())

    @property
    def usable(self) -> bool:
        """Whether the next transaction may come: the server is there, and nothing is left of the last one."""
        return not self.raw.is_closed() and not self.in_transaction

    def begin(self, *, durable: bool = True) -> None:
        """What is not `durable` is safe from the death of this process; the death of the server may undo it."""
        if self._writing and not self.in_transaction:
            self.run(self.raw.execute("BEGIN" if durable else "BEGIN; SET LOCAL synchronous_commit TO off"))
            self._begun = True

    def limit(self, sites: Sequence[str]) -> None:
        """Until `rollback`, read as the role that sees these sites alone; as ever where there is no such role."""
        if self._walled is None:
            self._walled = bool(self.run(self.raw.fetchval(_WALL)))
        if self._walled:
            self._limited = True
            self.run(self.raw.execute(_LIMIT.format(joined(sites).replace("'", "''"))))

    def commit(self) -> None:
        """Make it durable, unless begun otherwise. That the server died since it was begun is an error: nothing is kept."""
        if self._begun or self.in_transaction:
            self._begun = False
            self.run(self.raw.execute("COMMIT"))

    def rollback(self) -> None:
        """Forget what the transaction did; what a dead server did not commit is forgotten already."""
        self._begun = self._limited = False
        if self.in_transaction:
            self.run(self.raw.execute("ROLLBACK"))

    def close(self) -> None:
        """Say goodbye, or hang up where the server does not listen. Idempotent."""
        if self._loop.is_closed():
            return
        try:
            asyncio.get_running_loop()
            self.raw.terminate()  # collected as garbage on somebody's loop: no time to wait
        except RuntimeError:
            self._loop.run_until_complete(self._goodbye())
        self._loop.close()

    async def _goodbye(self) -> None:
        with contextlib.suppress(Exception):  # it goes either way
            await self.raw.close(timeout=1.0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # the driver's own, after a statement that took too long
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def connect(dsn: str, *, writing: bool = False, patience: float | None = PATIENCE) -> Connection:
    """A connection to the server at `dsn` (libpq's form; what it leaves out comes from PGHOST, PGPASSWORD …)."""
    return Connection(dsn, writing=writing, patience=patience)


class BlockingDialect(PGDialect_asyncpg):
    """`postgresql+blocking://`: asyncpg's SQL, without its greenlets."""

    driver = "blocking"
    is_async = False
    has_terminate = False
    supports_statement_cache = True
    execution_ctx_cls = PGExecutionContext  # type: ignore[assignment]

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """This very module."""
        return sys.modules[__name__]

    def create_connect_args(self, url: URL) -> ConnectArgsType:  # noqa: ARG002
        """The engine brings its own way to connect."""
        return [], {}

    def on_connect(self) -> Any:
        """Nothing: no column is JSON to the database."""
        return None

    def do_begin(self, dbapi_connection: Any) -> None:
        """Transactions are started in the open."""
        dbapi_connection.begin()

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Whether the server is still there."""
        dbapi_connection.cursor().execute("SELECT 1")
        return True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:  # noqa: ARG002
        """Whether the connection is of no use any more."""
        raw = getattr(connection, "dbapi_connection", connection)
        return raw is not None and raw.raw.is_closed()

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Closing does not wait long."""
        dbapi_connection.close()

    def get_driver_connection(self, connection: Any) -> Any:
        """Asyncpg's own."""
        return connection.raw


registry.register("postgresql.blocking", __name__, "BlockingDialect")
