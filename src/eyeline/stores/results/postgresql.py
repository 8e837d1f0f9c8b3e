"""The result store of many machines: PostgreSQL, spoken to by the same statements as SQLite.

Events are numbered after their commit (migration 0002), so that who reads the log by cursor misses none. What a dead server
cut off is told in seconds as a passing trouble; connections that died while idle are replaced unnoticed.
"""

from datetime import datetime
from functools import partial

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from eyeline.core.settings import mask
from eyeline.stores.results import partitions
from eyeline.stores.results import postgresql_driver as driver
from eyeline.stores.results.postgresql_bell import PostgresqlBell
from eyeline.stores.results.sql import SqlResults, store_error


class PostgresqlResults(SqlResults):
    """ResultStore at `postgresql://user:password@host/database?sslmode=…`; what it leaves out comes from PGHOST, PGPASSWORD …

    A process holds one connection that writes, up to eight that read, and one for the bell.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__(_writing(url), _reading(url), mask(url), PostgresqlBell(url))

    async def make_room(self, now: datetime) -> None:
        """Partitions of the results: those of the coming months are made, the oldest that are empty dropped."""
        await self._aside(lambda engine: partitions.tend(engine, now))

    def _translate(self, error: Exception) -> Exception:
        return store_error(error, self.where, "does not let us in: {cause}; check user, password and database")

    def _migrating(self) -> Engine:
        """Without a limit of time: an index on many rows takes what it takes."""
        return _writing(self._url, patience=None)


def _writing(url: str, patience: float | None = driver.PATIENCE) -> Engine:
    connect = partial(driver.connect, url, writing=True, patience=patience)
    return create_engine("postgresql+blocking://", creator=connect, poolclass=NullPool)


def _reading(url: str) -> Engine:
    return create_engine("postgresql+blocking://", creator=partial(driver.connect, url), pool_pre_ping=True)
