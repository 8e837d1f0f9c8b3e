"""The embedded cache: one SQLite file, shared by the processes of one machine, bounded in size, emptied by a reboot.

Nothing is forced to the disk: what a power cut takes from a cache is no loss.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from eyeline.core.clock import boot_id, lease_now
from eyeline.core.embedded import Embedded, path_of
from eyeline.core.errors import CacheError

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, ends REAL NOT NULL, value BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ending ON entries (ends);
CREATE TABLE IF NOT EXISTS boot (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL) STRICT;
"""

#: Writes between two sweeps, and entries swept at a time: a sweep never holds the lock for long.
SWEEP_EVERY, SWEEP_MOST = 64, 500


class SqliteCache:
    """Keeps `stores.cache.base.Cache`'s promises on `sqlite:///file.db`. `clock` gives seconds since boot, `boot` its name.

    Above `max_bytes` of entries those that end first are forgotten.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = lease_now,
        boot: str | None = None,
        max_bytes: int = 256_000_000,
    ) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._writes = 0
        self._file = Embedded(path_of(url), SCHEMA, CacheError, partial(_after_boot, boot or boot_id()))

    async def get(self, key: str) -> bytes | None:
        """See `Cache.get`."""
        return await self._file.run(partial(_get, key, self._clock()), write=False)

    def get_now(self, key: str) -> bytes | None:
        """`get` for a caller who is in a thread of its own already."""
        return self._file.read(partial(_get, key, self._clock()))

    async def set(self, key: str, value: bytes, *, ttl: float) -> None:
        """See `Cache.set`."""
        now = self._clock()
        await self._file.run(partial(self._set, key, value, now, now + ttl), durable=False)

    async def add(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """See `Cache.add`."""
        now = self._clock()
        return await self._file.run(partial(self._add, key, value, now, now + ttl), durable=False)

    async def delete(self, key: str, *, expected: bytes | None = None) -> None:
        """See `Cache.delete`."""
        await self._file.run(partial(_delete, key, expected), durable=False)

    async def forget(self, beginnings: Sequence[str]) -> None:
        """See `Cache.forget`."""
        await self._file.run(partial(_forget, beginnings), durable=False)

    async def close(self) -> None:
        """See `Cache.close`."""
        await self._file.close()

    def _set(self, key: str, value: bytes, now: float, ends: float, db: Any) -> None:
        db.execute("INSERT OR REPLACE INTO entries (key, ends, value) VALUES (?, ?, ?)", (key, ends, value))
        self._writes += 1
        if self._writes % SWEEP_EVERY == 0:
            _sweep(db, now, self._max_bytes)

    def _add(self, key: str, value: bytes, now: float, ends: float, db: Any) -> bytes | None:
        holds = _get(key, now, db)
        if holds is None:
            self._set(key, value, now, ends, db)
        return holds


def _after_boot(boot: str, db: Any) -> None:
    """Times count from the boot: those of another one mean nothing."""
    if db.execute("SELECT id FROM boot").get != boot:
        db.execute("DELETE FROM entries")
        db.execute("INSERT OR REPLACE INTO boot (one, id) VALUES (1, ?)", (boot,))


def _get(key: str, now: float, db: Any) -> bytes | None:
    value: bytes | None = db.execute("SELECT value FROM entries WHERE key = ? AND ends > ?", (key, now)).get
    return value


def _delete(key: str, expected: bytes | None, db: Any) -> None:
    db.execute("DELETE FROM entries WHERE key = ?1 AND (?2 IS NULL OR value = ?2)", (key, expected))


def _forget(beginnings: Sequence[str], db: Any) -> None:
    """By the index of the keys; the last character there is stands behind all that may follow."""
    for beginning in beginnings:
        db.execute("DELETE FROM entries WHERE key >= ? AND key < ?", (beginning, beginning + "\U0010ffff"))


def _sweep(db: Any, now: float, max_bytes: int) -> None:
    """Forget what has ended, and what ends next while there is too much."""
    ended = "SELECT number FROM entries WHERE ends <= ? ORDER BY ends LIMIT ?"
    db.execute(f"DELETE FROM entries WHERE number IN ({ended})", (now, SWEEP_MOST))  # noqa: S608 - no value in it
    pages = db.execute("PRAGMA page_count").get - db.execute("PRAGMA freelist_count").get
    if pages * db.execute("PRAGMA page_size").get > max_bytes:
        first = "SELECT number FROM entries ORDER BY ends LIMIT ?"
        db.execute(f"DELETE FROM entries WHERE number IN ({first})", (SWEEP_MOST,))  # noqa: S608 - no value in it
