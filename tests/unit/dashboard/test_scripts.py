"""The dashboard's scripts: their types hold, and what is pure in them does what it says."""

import re
import subprocess
from pathlib import Path

from eyeline.dashboard.assets import FOLDER
from tests.javascript import ROOT, deno, environment

SCRIPTS = sorted((FOLDER / "js").rglob("*.js"))
PURE = sorted((ROOT / "tests" / "unit" / "dashboard").glob("*_test.js"))
CONFIG = ROOT / "tests" / "unit" / "dashboard" / "deno.json"


def _deno(tmp_path: Path, *words: str) -> str:
    done = subprocess.run(
        [deno(), *words], cwd=ROOT, env=environment(tmp_path), capture_output=True, check=False, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_their_types_hold(tmp_path: Path) -> None:
    _deno(tmp_path, "check", "--quiet", "--config", str(CONFIG), *map(str, [*SCRIPTS, *PURE]))


def test_what_is_pure_does_what_it_says(tmp_path: Path) -> None:
    said = _deno(tmp_path, "test", "--quiet", "--no-check", "--allow-read", "--config", str(CONFIG), *map(str, PURE))
    assert "0 failed" in said


def test_nothing_writes_markup_and_nothing_is_loaded_from_elsewhere() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|https?://(?!www\.w3\.org)"
    )
    found = [
        f"{path.name}:{number}"
        for path in SCRIPTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []
    assert all("// @ts-check" in path.read_text() for path in SCRIPTS)
