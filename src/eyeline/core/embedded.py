"""An embedded SQLite file for queue and cache: opened safely, written by one thread in grouped transactions.

The only file that knows apsw beside stores/results/driver.py; apsw carries a current SQLite (those before 3.51.3 can
corrupt a WAL that is reset). The supervisor checkpoints by `checkpoint`, writers only where no supervisor does.
"""

import asyncio
import contextlib
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw

from eyeline.core.errors import BackendError, ConfigError

T = TypeVar("T")

#: Seconds that a writer waits for other processes before it gives up.
PATIENCE = 10.0
#: Calls that share one transaction at most.
GROUP = 64
#: A WAL above this many bytes is cut back, even if others have to wait for it.
WAL_LIMIT = 64 * 2**20
#: Where locks, or the shared memory of WAL, are not to be trusted.
NETWORK_FILE_SYSTEMS = re.compile(
    r"afs|beegfs|ceph|cifs|davfs|gfs2|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|smb3|smbfs"
    r"|fuse\.(davfs2|gcsfuse|glusterfs|rclone|s3fs|sshfs)"
)
#: Folders of the host machine in a guest: refused too, unless the guest has no other disk (some sandboxes).
HOST_FILE_SYSTEMS = frozenset(("9p", "virtiofs", "vboxsf"))

_PERMANENT = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MisuseError,
    apsw.ThreadingViolationError,
)
_SAYINGS: tuple[tuple[type[Exception], str], ...] = (
    (apsw.FullError, "the disk is full; free some space"),
    (
        apsw.BusyError,
        f"another process has held its lock for {PATIENCE:.0f} s; see what else has the file open",
    ),
    (
        apsw.CorruptError,
        "the file is damaged; stop eyeline, move it away and restore a backup (`eyeline restore`)",
    ),
    (apsw.NotADBError, "the file is no SQLite database; check the URL in the settings"),
    (apsw.ReadOnlyError, "the file or its folder cannot be written; check owner and permissions"),
    (apsw.CantOpenError, "the file cannot be opened; check that the folder exists and may be written"),
    (apsw.IOError, "reading or writing failed; look at the disk's health and space"),
)


def path_of(url: str) -> Path:
    """The file behind `sqlite:///relative.db` or `sqlite:////absolute.db`. Raises ConfigError where there is none."""
    path = url.partition(":///")[2]
    if not path:
        raise ConfigError(f"{url!r} names no file; write sqlite:///folder/name.db, or sqlite:////absolute/name.db")
    return Path(path)


def require_local(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raises ConfigError if `path` lies on a network file system, as far as this system can tell."""
    if not mounts.exists():
        return
    place = path.resolve()
    kinds = {Path(_unescaped(fields[1])): fields[2] for fields in map(str.split, mounts.read_text().splitlines())}
    mount = max((at for at in kinds if place.is_relative_to(at)), key=lambda at: len(at.parts), default=None)
    kind = kinds[mount] if mount is not None else ""
    if NETWORK_FILE_SYSTEMS.fullmatch(kind) or (kind in HOST_FILE_SYSTEMS and mount != Path("/")):
        raise ConfigError(
            f"{path} lies on {mount}, a network file system ({kind}), where SQLite can lose data; put data_dir on a local "
            "disk, or use a queue and a result store that are servers"
        )


def _unescaped(text: str) -> str:
    """Mount points are written with octal escapes for white space."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def checkpoint(path: Path) -> int:
    """Copy the WAL of the database at `path` into it; returns the bytes of WAL left. Only the supervisor calls this.

    Writers are not held up, unless the WAL has outgrown its limit. Raises BackendError.
    """
    if not path.exists():
        return 0
    try:
        with contextlib.closing(connect(path)) as connection:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            wal = path.with_name(path.name + "-wal")
            if wal.exists() and wal.stat().st_size > WAL_LIMIT:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            return wal.stat().st_size if wal.exists() else 0
    except apsw.BusyError:
        return WAL_LIMIT  # someone reads the old end of the WAL; the next call will do
    except apsw.Error as error:
        raise translated(error, path, BackendError) from error


def copy_database(
    source: Path, target: Path, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> None:
    """A consistent copy of a database that others go on writing to, as one file (SQLite's online backup).

    `progress` is told pages done and in all. The copy is of one moment: what is written meanwhile is not in it. Blocks.
    Raises BackendError.
    """
    try:
        with contextlib.closing(connect(source)) as old, contextlib.closing(apsw.Connection(str(target))) as new:
            old.execute("BEGIN")
            old.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the moment is now
            with new.backup("main", old, "main") as copying:
                while not copying.done:
                    copying.step(2000)
                    progress(copying.page_count - copying.remaining, copying.page_count)
            new.execute("PRAGMA journal_mode = DELETE")
    except apsw.Error as error:
        raise translated(error, source, BackendError) from error


def translated(error: Exception, path: Path, kind: type[BackendError]) -> BackendError:
    """The driver's error as one of ours, in plain words."""
    saying = next((words for cls, words in _SAYINGS if isinstance(error, cls)), f"{type(error).__name__}: {error}")
    return kind(f"{path}: {saying}", transient=not isinstance(error, _PERMANENT))


def connect(path: Path) -> Any:
    """A connection that waits for other writers and never checkpoints by itself. Raises apsw.Error."""
    connection = apsw.Connection(str(path))
    started = 0.0

    def wait(tries: int) -> bool:
        """Look again soon: SQLite's own pauses grow to 100 ms, and a commit here takes a few."""
        nonlocal started
        started = time.monotonic() if tries == 0 else started
        time.sleep(random.uniform(0.0005, 0.003))
        return time.monotonic() - started < PATIENCE

    connection.set_busy_handler(wait)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_LIMIT // 4096}")
    connection.execute("PRAGMA cache_size = -16000")  # 16 MB
    return connection


def made_folder(folder: Path) -> Path:
    """The folder, made where it is missing. Raises ConfigError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(
            f"data_dir: {folder} cannot be made ({problem.strerror}); name a folder that this user may write"
        ) from problem
    return folder


@dataclass(slots=True, eq=False)
class _Task:
    work: Callable[[Any], Any]
    write: bool
    durable: bool
    undo: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    done: bool = False
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        """On the event loop: tell the caller, or take back what a caller that has gone would have got."""
        if not self.future.cancelled():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)
        elif self.undo is not None and self.done and self.error is None:
            self.undo(self.result)


class Embedded:
    """One SQLite file and the thread that works on it.

    `schema` is run at the start (CREATE … IF NOT EXISTS), then `prepare` in the same transaction. `error` is the class in
    which failures are raised. Raises ConfigError where the file cannot be used at all.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        error: type[BackendError],
        prepare: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._error = error
        self._inbox: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closed = False
        self._durable = True
        self._reader: Any = None  # for `read`, opened when it is first used
        self._reading = threading.Lock()
        require_local(path)
        try:
            made_folder(path.parent)
            self._connection = connect(path)
            self._open(schema, prepare)
        except apsw.Error as problem:
            raise translated(problem, path, error) from problem
        self._thread = threading.Thread(target=self._work, name=f"sqlite {path.name}", daemon=True)
        self._thread.start()

    def _open(self, schema: str, prepare: Callable[[Any], None]) -> None:
        mode = self._connection.execute("PRAGMA journal_mode = WAL").get
        if mode != "wal":
            raise ConfigError(f"{self.path}: WAL mode is not possible here ({mode}); put data_dir on a local disk")
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction(write=True, durable=True):
            self._connection.execute(schema)
            prepare(self._connection)

    async def run(
        self,
        work: Callable[[Any], T],
        *,
        write: bool = True,
        durable: bool = True,
        undo: Callable[[T], None] | None = None,
    ) -> T:
        """Call `work` with the connection, in the thread; returns once its transaction is committed.

        `write`: inside a transaction that it may share with other calls; `work` may run twice, where a neighbour failed.
        `durable`: on the disk too, not only safe from the death of this process. `undo` gets the result if the
        caller was cancelled meanwhile. Raises the class of error given at the start.
        """
        if self._closed:
            raise self._error(f"{self.path} is closed; open it again to use it", transient=False)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._inbox.put(_Task(work, write, durable, undo, future, loop))
        try:
            return await future
        except asyncio.CancelledError:
            if undo is not None and future.done() and not future.cancelled() and future.exception() is None:
                undo(future.result())  # the answer was there, and the caller cancelled before it saw it
            raise

    def read(self, work: Callable[[Any], T]) -> T:
        """`run` without `write`, in the thread of the caller, who then waits for no other thread but its like. Blocks."""
        with self._reading:
            if self._closed:
                raise self._error(f"{self.path} is closed; open it again to use it", transient=False)
            try:
                self._reader = self._reader or connect(self.path)
                return work(self._reader)
            except apsw.Error as problem:
                raise translated(problem, self.path, self._error) from problem

    async def close(self) -> None:
        """Finish what was asked for, then close. Idempotent."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._thread.join()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _work(self) -> None:
        while (tasks := self._gather()) is not None:
            self._run_group(tasks)
            _settle(tasks)
        self._connection.close()

    def _gather(self) -> list[_Task] | None:
        """What waits, at least one call; None at the end."""
        first = self._inbox.get()
        if first is None:
            return None
        tasks = [first]
        with contextlib.suppress(queue.Empty):
            while len(tasks) < GROUP:
                task = self._inbox.get_nowait()
                if task is None:
                    self._inbox.put(None)  # the end comes after this group
                    break
                tasks.append(task)
        return tasks

    def _run_group(self, tasks: list[_Task]) -> None:
        """All in one transaction; where one fails, each alone, so that it fails alone."""
        wanted = [task for task in tasks if not task.future.cancelled()]
        try:
            with self._transaction(
                write=any(task.write for task in wanted), durable=any(task.durable for task in wanted if task.write)
            ):
                for task in wanted:
                    task.result = task.work(self._connection)
                    task.done = True
        except apsw.BusyError as problem:
            _fail(wanted, translated(problem, self.path, self._error), problem)
        except Exception as problem:  # noqa: BLE001 - whatever one call's work raises is that caller's
            if len(wanted) == 1:
                ours = isinstance(problem, apsw.Error)
                _fail(wanted, translated(problem, self.path, self._error) if ours else problem, problem)
                return
            for task in wanted:
                self._run_group([task])

    @contextlib.contextmanager
    def _transaction(self, *, write: bool, durable: bool) -> Iterator[None]:
        if not write:
            yield
            return
        if durable is not self._durable:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _fail(tasks: list[_Task], error: Exception, cause: Exception) -> None:
    for task in tasks:
        task.error = error
        if error is not cause:
            error.__cause__ = cause


def _settle(tasks: list[_Task]) -> None:
    """One wake-up of each event loop for the whole group."""
    for loop in {task.loop for task in tasks}:
        mine = [task for task in tasks if task.loop is loop]
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle_all, mine)


def _settle_all(tasks: list[_Task]) -> None:
    for task in tasks:
        task.settle()
