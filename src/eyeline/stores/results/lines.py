"""Two lines of work behind the result store: one thread that writes, a few that read.

What many callers want written at the same time is written in one transaction (group commit): one fsync for all of them.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from eyeline.core.access import reach
from eyeline.core.errors import StoreError

T = TypeVar("T")

#: Parts in one transaction at most: enough to share an fsync, few enough that the first does not wait for the last.
GROUP = 64
#: Threads that read: one may be waiting for events, and a page of results must not hold up the look-up of one job.
READERS = 4

#: Seconds for which a part that can wait looks for others to share a transaction with.
LINGER = 0.005


@dataclass(eq=False)
class _Part:
    """One caller's share of a transaction, and where its answer goes."""

    work: Callable[[Any], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    durable: bool
    value: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """On the caller's loop: hand over the answer."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Writer:
    """One thread, one connection. A part is a function of a DB-API cursor; it must stand being run again."""

    def __init__(self, engine: Engine, translate: Callable[[Exception], Exception]) -> None:
        self._engine = engine
        self._translate = translate
        self._line: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: Any = None  # the thread's own
        self._closed = False
        self._lock = threading.Lock()
        #: Asked first in every transaction; what it raises, all parts of it get.
        self.guard: Callable[[Any], None] | None = None

    def start(self) -> None:
        """Start the thread. Idempotent."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="results-writer", daemon=True)
                self._thread.start()

    async def write(self, work: Callable[[Any], T], *, durable: bool = True) -> T:
        """What `work(cursor)` returns, once its transaction is on the disk.

        Where it need not be `durable`, it waits a little for others to go with; alone, only a power cut can undo it.
        """
        if self._closed:
            raise StoreError("the result store is closed; open it again before writing", transient=False)
        self.start()
        loop = asyncio.get_running_loop()
        part = _Part(work, loop, loop.create_future(), durable)
        self._line.put(part)
        done: T = await part.future
        return done

    def close(self) -> None:
        """Write what waits, then stop. Blocks; idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._line.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            parts, going = self._next()
            if not parts:
                continue
            try:
                self._commit(parts)
            except Exception as error:  # noqa: BLE001 - a caller waits for an answer, whatever happened
                self._fail(parts, error)
            _answer(parts)
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> tuple[list[_Part], bool]:
        """Wait for the first part, then take what waits behind it; and linger where all of that can wait."""
        parts: list[_Part] = []
        waiting = self._line.get()
        until = time.monotonic() + LINGER
        while waiting is not None:
            if not waiting.future.cancelled():
                parts.append(waiting)
            if len(parts) >= GROUP:
                return parts, True
            pause = 0.0 if any(part.durable for part in parts) else max(0.0, until - time.monotonic())
            try:
                waiting = self._line.get(timeout=pause) if pause else self._line.get_nowait()
            except queue.Empty:
                return parts, True
        return parts, False

    def _commit(self, parts: list[_Part]) -> None:
        """All parts in one transaction; where that fails, each in its own, so that only the guilty one fails."""
        try:
            self._transact(parts)
        except Exception as error:
            if len(parts) == 1:
                raise
            del error
            for part in parts:
                self._alone(part)

    def _alone(self, part: _Part) -> None:
        try:
            self._transact([part])
        except Exception as error:  # noqa: BLE001 - it is the caller's to see
            self._fail([part], error)

    def _transact(self, parts: list[_Part]) -> None:
        connection = self._begun(durable=any(part.durable for part in parts))
        try:
            cursor = connection.cursor()
            if self.guard is not None:
                self.guard(cursor)
            for part in parts:
                part.value = part.work(cursor)
            connection.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # what cannot even roll back is not used again
                connection.rollback()
            raise

    def _begun(self, *, durable: bool) -> Any:
        """The connection in a new transaction; one that was lost while it lay idle is replaced, once."""
        if self._connection is not None:
            held = self._connection.dbapi_connection
            try:
                if held.usable:
                    held.begin(durable=durable)
                    return self._connection
            except Exception:
                if held.usable:  # the database is there and says no
                    raise
            self._given_up()
        self._connection = self._engine.raw_connection()
        self._connection.dbapi_connection.begin(durable=durable)
        return self._connection

    def _given_up(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.invalidate()
        self._connection = None

    def _fail(self, parts: list[_Part], error: Exception) -> None:
        told = self._translate(error)
        told.__cause__ = error if told is not error else None
        for part in parts:
            part.error = told


def _answer(parts: list[_Part]) -> None:
    """One wake-up for each loop, however many of its callers wait."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Part]] = {}
    for part in parts:
        by_loop.setdefault(part.loop, []).append(part)
    for loop, settled in by_loop.items():
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, settled)


def _settle(parts: list[_Part]) -> None:
    for part in parts:
        part.settle()


class Readers:
    """A few threads with a pooled connection each; readers see whole transactions and hold up no writer.

    What is read for a request that may see some sites alone is read behind the database's wall, where it has one.
    """

    def __init__(self, engine: Engine, translate: Callable[[Exception], Exception]) -> None:
        self._engine = engine
        self._translate = translate
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="results-reader")
        self._own = threading.local()
        self._held: list[Any] = []
        self.closed = False

    async def read(self, work: Callable[[Connection], T], *, whole: bool = False) -> T:
        """What `work(connection)` returns, by SQLAlchemy's own execution: for statements made for the occasion.

        `whole`: of all sites, whoever asks; for what is only counted, or sorted out by sites later.
        """
        sites = None if whole else reach.get()

        def run() -> T:
            with self._engine.connect() as connection, _within(connection.connection.dbapi_connection, sites):
                return work(connection)

        return await self._in_thread(run)

    async def ask(self, work: Callable[[Any], T], *, whole: bool = False) -> T:
        """What `work(cursor)` returns, on the thread's own DB-API cursor: for prepared statements, asked often. `whole` as in
        `read`.
        """
        sites = None if whole else reach.get()

        def attempt() -> T:
            connection = self._connection()
            with _within(connection.dbapi_connection, sites):
                return work(connection.cursor())

        def run() -> T:
            try:
                return attempt()
            except Exception:
                if self._own.connection is None or self._own.connection.dbapi_connection.usable:
                    raise
                return attempt()  # the server went away while the connection lay idle; it may be back

        return await self._in_thread(run)

    def _connection(self) -> Any:
        connection = getattr(self._own, "connection", None)
        if connection is not None and not connection.dbapi_connection.usable:
            self._held.remove(connection)
            connection.invalidate()
            connection = None
        if connection is None:
            self._own.connection = None
            connection = self._own.connection = self._engine.raw_connection()
            self._held.append(connection)
        return connection

    async def _in_thread(self, run: Callable[[], T]) -> T:
        if self.closed:
            raise StoreError("the result store is closed; open it again before reading", transient=False)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._told, run)

    def _told(self, run: Callable[[], T]) -> T:
        try:
            return run()
        except Exception as error:
            told = self._translate(error)
            if told is error:
                raise
            raise told from error

    def close(self) -> None:
        """Wait for what runs, then give back threads and connections. Idempotent."""
        self.closed = True
        self._threads.shutdown(wait=True)
        while self._held:
            self._held.pop().close()


@contextlib.contextmanager
def _within(connection: Any, sites: Sequence[str] | None) -> Iterator[None]:
    """What the connection reads meanwhile is of these sites, as far as the database sees to it; None is all of them."""
    if sites is None:
        yield
        return
    try:
        connection.limit(sites)
        yield
    finally:
        connection.rollback()
