"""An empty results database, migrated once for all tests of a process: each gets a copy."""

import asyncio
import shutil
import tempfile
from functools import cache
from pathlib import Path

from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultStore


@cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp()) / "results.db"

    async def make() -> None:
        store = open_results(f"sqlite:///{path}")
        await store.upgrade()
        await store.close()

    asyncio.run(make())
    return path


async def migrated(folder: Path) -> ResultStore:
    """The store on a copy in `folder`, whose file is `results.db`."""
    await asyncio.to_thread(lambda: [shutil.copy(path, folder) for path in _template().parent.glob("results.db*")])
    return open_results(f"sqlite:///{folder}/results.db")
