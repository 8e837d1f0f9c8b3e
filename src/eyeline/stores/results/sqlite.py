"""The embedded result store: SQLite in WAL mode, one writing thread a process with group commit.

Several processes share one database file. Writers take the write lock at once (`BEGIN IMMEDIATE`) and wait up to ten
seconds for each other; readers wait for nobody.
"""

from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url

from eyeline.core import embedded
from eyeline.core.bell import Bell
from eyeline.core.errors import StoreError
from eyeline.stores.results import driver as _driver  # registers the dialect
from eyeline.stores.results.sql import SqlResults, store_error

__all__ = ["SqliteResults", "checkpoint", "database_path"]


class SqliteResults(SqlResults):
    """ResultStore at `sqlite:////absolute/path.db`. Files and folders are made on first use; `upgrade` makes the tables."""

    def __init__(self, url: str) -> None:
        path = database_path(url)
        super().__init__(_engine(path, writing=True), _engine(path, writing=False), str(path), Bell(path))

    def _translate(self, error: Exception) -> Exception:
        return store_error(
            error, self.where, "is damaged or no database ({cause}); restore a backup with `eyeline restore`"
        )


def database_path(url: str) -> Path:
    """The file behind `sqlite:///…`. Raises StoreError where the URL names none."""
    name = make_url(url).database
    if not name or name == ":memory:":
        raise StoreError(
            f"the result store needs a file, and {url!r} names none; write sqlite:////absolute/path.db",
            transient=False,
        )
    return Path(name).expanduser().absolute()


def _engine(path: Path, *, writing: bool) -> Engine:
    query = {"writing": "1"} if writing else {}
    return create_engine(URL.create(f"sqlite+{_driver.ApswDialect.driver}", database=str(path), query=query))


def checkpoint(path: Path) -> int:
    """Move the WAL of the database at `path` into it; bytes of WAL left. Blocks; for the supervisor alone."""
    return embedded.checkpoint(path)
