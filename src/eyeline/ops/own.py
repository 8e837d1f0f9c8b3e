"""An `eyeline up` that a command starts for itself (`eyeline demo`, `eyeline bench`), and that never outlives it."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from eyeline.core.service import tied

GRACE = 45.0  # seconds for it to drain


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
