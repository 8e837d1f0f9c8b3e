"""The real inference server in a process of its own, on a free port, for tests of any room."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class InferenceProcess:
    """A running server. `url` is for clients; `process` may be killed."""

    process: subprocess.Popen[str]
    port: int
    models: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def request(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """(status, decoded JSON or bytes) of one request; POST where there is a body."""
        asked = urllib.request.Request(self.url + path, data=body, headers=headers or {})
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Until all models serve. Raises TimeoutError with what the server says."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status, said = self.request("/v2/health/ready")
            if status == 200:
                return
            time.sleep(0.05)
        raise TimeoutError(f"the inference server is not ready after {seconds} s: {said}")

    def wait_settled(self, seconds: float = 60.0) -> dict[str, dict[str, Any]]:
        """Until no model is loading; the repository index by name."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            _, rows = self.request("/v2/repository/index", b"{}")
            if rows and all(row["state"] != "LOADING" for row in rows):
                return {row["name"]: row for row in rows}
            time.sleep(0.05)
        raise TimeoutError(f"models still load after {seconds} s: {rows}")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def inference_process(
    models: Path, *, port: int = 0, ready: bool = True, **settings: Any
) -> Iterator[InferenceProcess]:
    """Start it over the bundles in `models` (the bundled reference models are left out), stop it at the end."""
    given = {"models": str(models), "url": f"http://127.0.0.1:{port}", **settings}
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.inference_process", json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the inference server ended with {process.wait(10)}")
        server = InferenceProcess(process, int(line), models)
        if ready:
            server.wait_ready()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


async def _announce(server: Any) -> None:
    await server.started.wait()
    print(server.port, flush=True)


def main() -> None:
    """The child."""
    from eyeline.core.service import run_service
    from eyeline.core.settings import InferenceSettings
    from eyeline.core.telemetry import configure_logging
    from eyeline.inference import bundles
    from eyeline.inference.server import InferenceServer

    configure_logging("warning", "inference")
    settings = json.loads(sys.argv[1])
    bundled = settings.pop("bundled", False)
    if not bundled:
        bundles.bundled_folder = lambda: Path(settings["models"])
    announcing: list[asyncio.Task[None]] = []

    def make() -> InferenceServer:
        server = InferenceServer(InferenceSettings(**settings))
        announcing.append(asyncio.get_running_loop().create_task(_announce(server)))
        return server

    run_service(make)


if __name__ == "__main__":
    main()
