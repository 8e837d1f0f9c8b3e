"""The README's first hour, step by step, as it is written there."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.pictures import jpeg
from tests.system import free_port, running_system, settings_for, until

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _command(start: str) -> list[str]:
    lines = [line for block in _blocks("bash") for line in block.splitlines()]
    return next(line for line in lines if line.startswith(start)).split()


def _run(words: list[str], cwd: Path, timeout: float = 170, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout, check=False)


def test_each_step_is_three_lines_at_most() -> None:
    assert max(len(block.strip().splitlines()) for block in _blocks("bash")) <= 3


@pytest.mark.timeout(330)  # on a busy machine the start alone may take its two minutes
def test_make_demo_finds_what_was_planted(tmp_path: Path) -> None:
    # not as a part of the make that runs the tests, which would add its own lines
    done = _run([*_command("make demo"), "FOR=15"], ROOT, 300, MAKEFLAGS="", MAKELEVEL="0")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    last = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r"planted \d+, found \d+, missed \d+, falsely raised \d+", last), last
    assert int(re.findall(r"found (\d+)", last)[0]) > 0
    size = sum(path.stat().st_size for path in (ROOT / ".demo").rglob("*") if path.is_file())
    assert size <= 500_000_000


class _Chat(http.server.BaseHTTPRequestHandler):
    heard: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def chat() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_picture_of_your_own_by_command_and_by_curl(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(640, 480))
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened\n')
    browser.chmod(0o755)
    settings = settings_for(tmp_path / "data", tmp_path / "models")
    with running_system(tmp_path / "run", settings) as system:
        done = _run([*_command("eyeline submit"), "--url", system.url], tmp_path, BROWSER=f"{browser} %s")
        assert done.returncode == 0, done.stderr
        assert "completed" in done.stdout
        opened = Path((tmp_path / "opened").read_text().strip().removeprefix("file://"))
        assert opened.read_bytes()[:2] == b"\xff\xd8"
        line = re.findall(r"`(curl [^`]+)`", README)[0].replace("'", "").replace("localhost:8080", system.url[7:])
        if shutil.which("curl"):
            answered = _run(line.split(), tmp_path)
            assert '"status":"completed"' in answered.stdout.replace(" ", ""), answered.stdout


def test_your_own_model_a_camera_and_an_alert_on_your_chat(tmp_path: Path, shared_data: Path, chat: int) -> None:
    shutil.copy(shared_data / "models" / "yolox_nano.onnx", tmp_path / "yours.onnx")
    shutil.copy(shared_data / "video" / "bottle-detection.mp4", tmp_path / "belt.mp4")
    imported = _run([*_command("eyeline models import"), "--no-tune"], tmp_path)
    assert imported.returncode == 0, imported.stderr
    assert len(list((tmp_path / "models" / "yours").rglob("preview.png"))) == 1
    tested = _run(_command("eyeline cameras test"), tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert (tmp_path / "camera-test.jpg").read_bytes()[:2] == b"\xff\xd8"
    (text,) = _blocks("toml")
    text = text.replace("https://chat.example.com/hooks/your-hook", f"http://127.0.0.1:{chat}/hooks/your-hook")
    text = text.replace('name = "chat"\n', 'name = "chat"\nallow = ["127.0.0.0/8"]\n')
    port, inference = free_port(), free_port()
    (tmp_path / "eyeline.toml").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", "up", "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, "EYELINE_INFERENCE__URL": f"http://127.0.0.1:{inference}"},
        stderr=(tmp_path / "log").open("wb"),
    )
    try:
        heard = until(lambda: list(_Chat.heard), 60, "the alert reaches the chat")
    finally:
        process.terminate()
        process.wait(60)
    assert "something seen" in json.dumps(heard[0])
    assert heard[0]["text"]
