"""A real `eyeline up` for tests: its own data folder and ports, its own settings, stopped by its own pid."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import tomli_w

#: Made once: httpx makes one for each client, 20 ms of CPU, also where all is plain HTTP.
TLS = ssl.create_default_context()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


#: On a machine with other work to do, what takes a second elsewhere may take three; waiting costs nothing where it ends.
BUSY = 3.0


def patience(seconds: float) -> float:
    """How long to wait for what takes `seconds` at most on a machine of its own; a test has three minutes."""
    return min(BUSY * seconds, max(seconds, 150.0))


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails with `what` when patience ends."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            value = condition()
            if value:
                return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass
class RunningSystem:
    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, **kwargs: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, verify=TLS, **kwargs)

    def pids(self) -> dict[str, int]:
        """Role → pid of what runs now."""
        state = json.loads((self.data_dir / "run" / "supervisor.json").read_text())
        roles: dict[str, int] = state["roles"]
        return roles

    def kill(self, role: str) -> None:
        with contextlib.suppress(ProcessLookupError, KeyError):
            os.kill(self.pids()[role], signal.SIGKILL)

    @cached_property
    def _asked(self) -> httpx.Client:
        """Asked again and again while a system starts: a new client each time would take more of the machine than the start."""
        return self.client()

    def ready(self) -> bool:
        answer = self._asked.get("/readyz", timeout=5)
        return answer.status_code == 200 and not answer.json()["pipelines_not_ready"]

    def unfinished(self) -> int:
        """Jobs without a result, by the store: what a dead gateway kept and never enqueued is in no queue yet."""
        told = httpx.get(f"{self.url}/v1/system", timeout=10, verify=TLS).json()
        return int(told["unfinished"]["count"])


def settings_for(data_dir: Path, models: Path, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    base: dict[str, Any] = {
        "data_dir": str(data_dir),
        "log_level": "info",
        "gateway": {"port": free_port()},
        "inference": {"url": f"http://127.0.0.1:{free_port()}", "models": str(models)},
    }
    for key, value in (more or {}).items():
        base[key] = {**base[key], **value} if isinstance(value, Mapping) and isinstance(base.get(key), dict) else value
    return base


@contextlib.contextmanager
def running_system(
    folder: Path, settings: Mapping[str, Any], *, env: Mapping[str, str] | None = None
) -> Iterator[RunningSystem]:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "eyeline.toml"
    config.write_text(tomli_w.dumps(dict(settings)))
    log = folder / "log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EYELINE_")}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "eyeline", "up", "--config", str(config)],
            stdout=stream,
            stderr=stream,
            env={**environ, **(env or {})},
            start_new_session=True,
        )
    system = RunningSystem(f"http://127.0.0.1:{settings['gateway']['port']}", Path(settings["data_dir"]), process, log)
    try:
        until(lambda: _alive(system) and system.ready(), 60, "the system is ready")
        yield system
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _alive(system: RunningSystem) -> bool:
    assert system.process.poll() is None, system.log.read_text()[-3000:]
    return True
