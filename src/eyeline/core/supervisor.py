"""The parent of `eyeline up`: starts every role as a child, starts it again with back-off, drains in the data's order."""

import asyncio
import contextlib
import json
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyeline.core.errors import ConfigError
from eyeline.core.retry import backoff
from eyeline.core.service import tied
from eyeline.core.telemetry import RESTARTS, forget_process, logger

log = logger("supervisor")
HEALTHY_AFTER = 20.0  # seconds of life after which a crash counts as the first one again
EXIT_CONFIG = 2


@dataclass(frozen=True, kw_only=True)
class Role:
    """A child process: its command line, and its place in the drain order (lower stops first)."""

    name: str
    argv: Sequence[str]
    order: int
    env: Mapping[str, str] = field(default_factory=dict)
    #: Awaited before the first start.
    after: Callable[[], Awaitable[None]] | None = None


class Supervisor:
    """Runs the roles until stopped. `every_second` is called in a thread (checkpoints)."""

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        state_file: Path,
        grace: float = 30.0,
        every_second: Callable[[], None] | None = None,
    ) -> None:
        self._roles = roles
        self._state_file = state_file
        self._grace = grace
        self._every_second = every_second
        self._running: dict[str, Process] = {}
        self._restarts: dict[str, int] = {role.name: 0 for role in roles}
        self._stopping = False
        self._failed: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Keep all roles running until `stop`; then drain them. Raises ConfigError where a role refuses its settings."""
        self._stop = stop
        keepers = {role.name: asyncio.create_task(self._keep(role)) for role in self._roles}
        ticker = asyncio.create_task(self._tick())
        try:
            await stop.wait()
        finally:
            self._stopping = True
            await self._drain()
            for task in (*keepers.values(), ticker):
                task.cancel()
            await asyncio.gather(*keepers.values(), ticker, return_exceptions=True)
            await self._call_every_second()
            self._state_file.unlink(missing_ok=True)
        if self._failed:
            raise ConfigError(self._failed)

    async def _keep(self, role: Role) -> None:
        crashes = 0
        if role.after is not None:
            await role.after()
        while not self._stopping:
            started = time.monotonic()
            code = await self._lived(role)
            if self._stopping:
                return
            if code == EXIT_CONFIG:
                self._failed = f"{role.name} refuses its settings (its own message stands above)"
                self._stop.set()
                return
            crashes = 1 if time.monotonic() - started > HEALTHY_AFTER else crashes + 1
            self._restarts[role.name] += 1
            RESTARTS.labels(role.name).inc()
            pause = 0.1 if crashes == 1 else backoff(crashes, base=0.25, cap=10.0)
            log.warning("a role ended; starting it again", child=role.name, code=code, in_seconds=round(pause, 2))
            await asyncio.sleep(pause)

    async def _lived(self, role: Role) -> int | None:
        """The exit code; None where it could not even be started (no memory, no process left), which is tried again too."""
        try:
            return await self._live(role)
        except OSError as error:
            log.warning("a role cannot be started", child=role.name, error=str(error))
            return None

    async def _live(self, role: Role) -> int:
        process = await asyncio.create_subprocess_exec(
            *role.argv,
            env={**os.environ, **role.env, **tied(), "EYELINE_ROLE": role.name},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone, which drains in order
        )
        self._running[role.name] = process
        self._write_state()
        code = await process.wait()
        self._running.pop(role.name, None)
        with contextlib.suppress(OSError):
            forget_process(process.pid)
        self._write_state()
        return code

    def _write_state(self) -> None:
        """Who runs under which pid, for people and for tests that kill. A full disk must not end those who run."""
        state = {
            "supervisor": os.getpid(),
            "roles": {name: process.pid for name, process in self._running.items()},
            "restarts": self._restarts,
        }
        temporary = self._state_file.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(state))
            temporary.replace(self._state_file)
        except OSError as error:
            log.warning("the list of roles cannot be written", error=str(error))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._call_every_second()

    async def _call_every_second(self) -> None:
        if self._every_second is None:
            return
        try:
            await asyncio.to_thread(self._every_second)
        except Exception as error:  # noqa: BLE001 - housekeeping must not take the service down; it is tried again in a second
            log.warning("housekeeping failed", error=str(error))

    async def _drain(self) -> None:
        """Stop the roles in the order of the data's way, so that what is upstream hands over to what still runs."""
        deadline = time.monotonic() + self._grace
        for order in sorted({role.order for role in self._roles}):
            names = [role.name for role in self._roles if role.order == order and role.name in self._running]
            await asyncio.gather(*(self._end(name, deadline) for name in names))

    async def _end(self, name: str, deadline: float) -> None:
        process = self._running.get(name)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), max(0.5, deadline - time.monotonic()))
        except TimeoutError:
            log.warning("a role did not stop in time and is killed", child=name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
