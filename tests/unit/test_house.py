"""Tests that watch the house: floors, tables, what must not stand in the tree."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eyeline.core.registry import Registry
from eyeline.queues import QUEUES
from eyeline.stores.blobs import BLOBS
from eyeline.stores.cache import CACHES
from eyeline.stores.results import RESULTS

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".md", ".toml", ".txt", ".in", ".sh", ".yml", ""}


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("registry", [QUEUES, CACHES, BLOBS, RESULTS], ids=lambda r: r.kind)
def test_every_scheme_of_a_table_loads_or_names_its_extra(registry: Registry[Any]) -> None:
    for scheme in registry.schemes():
        assert registry.load(scheme) is not None


@pytest.mark.parametrize("lock", ["runtime.txt", "cluster.txt", "test.txt"])
def test_locks_are_hashed_and_name_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    pins = re.findall(r"^[a-zA-Z0-9_.\[\]-]+==[^\s;\\]+", text, re.MULTILINE)
    assert len(pins) > 20
    assert text.count("--hash=sha256:") >= len(pins)


@pytest.mark.parametrize("lock", ["cluster.txt", "test.txt"])
def test_the_other_locks_pin_what_the_runtime_lock_pins(lock: str) -> None:
    pattern = re.compile(r"^([a-zA-Z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)
    runtime = set(pattern.findall((ROOT / "requirements" / "runtime.txt").read_text()))
    other = set(pattern.findall((ROOT / "requirements" / lock).read_text()))
    assert runtime - other == set()


def test_nothing_unfinished_and_no_path_of_a_machine_stands_in_the_tree() -> None:
    unfinished = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b|NotImplemented" + "Error")
    path = re.compile(r"(^|[^A-Za-z0-9_.])/(ro" + "ot|wo" + r"rk)/")
    found = []
    for file in _tracked():
        if file.suffix not in TEXT or file.name == "LICENSE":
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if path.search(line) or (file.suffix == ".py" and unfinished.search(line)):
                found.append(f"{file.relative_to(ROOT)}:{number}")
    assert found == []


def test_no_pickle_eval_or_shell_in_the_product() -> None:
    pattern = re.compile(r"\bimport pickle\b|\bpickle\.|(?<![\w.])eval\(|(?<![\w.])exec\(|shell=True|os\.system\(")
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in sorted((ROOT / "src").rglob("*.py"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_committed_files_stay_small() -> None:
    assert [str(file) for file in _tracked() if file.stat().st_size > 12_000_000] == []
