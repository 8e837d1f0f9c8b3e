"""What a command has for itself (`eyeline demo`, `eyeline bench`) and what never outlives it: an `eyeline up`, a folder."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from eyeline.core.service import tied

GRACE = 45.0  # seconds for it to drain
#: Seconds for which a folder may be held by nobody: who makes one holds it at once.
UNHELD = 60.0


@contextlib.contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder, until the block ends. Before, those of that prefix are removed whose process was killed: the lock on
    each goes with its process.
    """
    _sweep(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        held = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(held)


def _sweep(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # gone meanwhile, another user's, or held
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(held).st_mtime > UNHELD:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


@contextlib.asynccontextmanager
async def own_system(config: Path, log: IO[bytes] | None = None) -> AsyncIterator[Process]:
    """Run with the settings of `config` and none of the caller's, until the block ends or the caller dies, by whatever."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "eyeline", "up", "--config", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("EYELINE_")} | tied(),
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()
