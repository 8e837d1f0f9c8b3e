"""The supervisor with small real children."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError
from eyeline.core.supervisor import Role, Supervisor

OBEDIENT = "import signal,sys,time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); time.sleep(60)"
STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def _role(name: str, code: str, order: int = 1) -> Role:
    return Role(name=name, argv=[sys.executable, "-c", code], order=order)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def _pids(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    pids: dict[str, int] = json.loads(path.read_text())["roles"]
    return pids


async def test_a_killed_role_is_started_again(tmp_path: Path) -> None:
    state, stop = tmp_path / "state.json", asyncio.Event()
    running = asyncio.create_task(Supervisor([_role("a", OBEDIENT)], state_file=state).run(stop))
    await _until(lambda: "a" in _pids(state))
    first = _pids(state)["a"]
    os.kill(first, signal.SIGKILL)
    await _until(lambda: _pids(state).get("a", first) != first)
    stop.set()
    await running


async def test_a_disk_that_takes_no_list_of_roles_does_not_end_the_care_for_them(tmp_path: Path) -> None:
    """As on a full disk: the list cannot be written, and the role is started again all the same."""
    started, stop = tmp_path / "started", asyncio.Event()
    code = f"open({str(started)!r}, 'a').write('x')"
    supervisor = Supervisor([_role("a", code)], state_file=tmp_path / "no such folder" / "state.json")
    running = asyncio.create_task(supervisor.run(stop))
    await _until(lambda: started.exists() and len(started.read_text()) >= 2)
    stop.set()
    await running


async def test_a_role_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program, started, stop = tmp_path / "program", tmp_path / "started", asyncio.Event()
    role = Role(name="a", argv=[str(program)], order=1)
    running = asyncio.create_task(Supervisor([role], state_file=tmp_path / "state.json").run(stop))
    await asyncio.sleep(0.05)
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o700)
    await _until(started.exists)
    stop.set()
    await running


async def test_a_role_that_refuses_its_settings_stops_everything(tmp_path: Path) -> None:
    roles = [_role("good", OBEDIENT), _role("bad", "raise SystemExit(2)")]
    with pytest.raises(ConfigError, match="bad refuses its settings"):
        await Supervisor(roles, state_file=tmp_path / "state.json").run(asyncio.Event())


async def test_roles_stop_in_the_order_of_the_data(tmp_path: Path) -> None:
    log, state, stop = tmp_path / "log", tmp_path / "state.json", asyncio.Event()
    code = (
        "import signal,sys,time\n"
        f"def end(*_):\n    open({str(log)!r}, 'a').write(sys.argv[1] + ' '); sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, end); open({str(log)!r} + sys.argv[1], 'w'); time.sleep(60)"
    )
    roles = [
        Role(name=name, argv=[sys.executable, "-c", code, name], order=order)
        for name, order in (("inference", 4), ("camera", 1), ("worker", 3), ("gateway", 2))
    ]
    running = asyncio.create_task(Supervisor(roles, state_file=state).run(stop))
    await _until(lambda: all(Path(f"{log}{role.name}").exists() for role in roles))
    stop.set()
    await running
    assert log.read_text().split() == ["camera", "gateway", "worker", "inference"]


async def test_a_role_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    state, stop = tmp_path / "state.json", asyncio.Event()
    running = asyncio.create_task(Supervisor([_role("a", STUBBORN)], state_file=state, grace=0.5).run(stop))
    await _until(lambda: "a" in _pids(state))
    stop.set()
    async with asyncio.timeout(15):
        await running
    assert not state.exists()
