"""A doorbell between processes that share a PostgreSQL database: LISTEN for who waits for events, NOTIFY from who wrote some.

It has a thread and one connection of its own, made at the first ring or the first listener. Rings come after the commit and
outside of its transaction, for a NOTIFY makes commits wait for each other; several of one moment are one. A ring that is
missed, while the server is away or behind a pooler that does not pass it on, costs only the pause after which every
listener looks anyway.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import asyncpg

from eyeline.core.retry import backoff

#: What listeners listen to.
CHANNEL = "eyeline_events"
#: Seconds in which rings gather, and for one call of the server.
GATHER, PATIENCE = 0.01, 5.0


class PostgresqlBell:
    """The bell of the database at `dsn`."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._rung: asyncio.Event | None = None
        self._closed = False
        self._heard: tuple[asyncio.AbstractEventLoop, Callable[[], None]] | None = None

    def ring(self) -> None:
        """Wake all other listeners, soon. From any thread; never blocks, never raises."""
        self._start()
        loop, rung = self._loop, self._rung
        if loop is not None and rung is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(rung.set)

    def listen(self, heard: Callable[[], None]) -> bool:
        """Have `heard` called on the running loop at every ring."""
        self._heard = (asyncio.get_running_loop(), heard)
        self._start()
        return True

    def close(self) -> None:
        """Hear no more. Idempotent; does not wait for a server that is away."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._closed:
                return
            self._loop, self._rung = asyncio.new_event_loop(), asyncio.Event()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="results-bell", daemon=True)
            self._thread.start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        work = loop.create_task(self._stay_connected())
        try:
            loop.run_forever()
            work.cancel()
            loop.run_until_complete(asyncio.gather(work, return_exceptions=True))
        finally:
            loop.close()

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=PATIENCE, command_timeout=PATIENCE)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                failures += 1
                await asyncio.sleep(backoff(failures, cap=10.0))
                continue
            failures = 0
            try:
                await self._serve(connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                self._wake()  # what was told while nobody listened is looked for
            finally:
                connection.terminate()

    async def _serve(self, connection: Any) -> None:
        own = connection.get_server_pid()
        rung = self._rung
        assert rung is not None  # noqa: S101 - made before the thread
        await connection.add_listener(CHANNEL, lambda _connection, pid, *_: self._wake() if pid != own else None)
        connection.add_termination_listener(lambda _connection: rung.set())
        self._wake()
        while True:
            await rung.wait()
            await asyncio.sleep(GATHER)
            rung.clear()
            await connection.execute(f"NOTIFY {CHANNEL}")

    def _wake(self) -> None:
        if self._heard is not None:
            loop, heard = self._heard
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(heard)
