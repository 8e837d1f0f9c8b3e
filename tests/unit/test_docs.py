"""The docs say what the code says: settings, commands, metrics, error codes, links."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import REGISTRY

from eyeline.core import errors, telemetry

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "cli.md"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    made: str = _generator().PAGES[page]()
    assert (DOCS / page).read_text() == made, "run: python docs/generate.py"


def test_every_setting_is_described() -> None:
    assert [line for line in (DOCS / "settings.md").read_text().splitlines() if line.endswith("|  |")] == []


def test_every_proof_of_a_promise_exists() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (DOCS / "promises.md").read_text())
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_metric_is_documented() -> None:
    assert telemetry.IMAGES is not None
    text = (DOCS / "metrics.md").read_text()
    names = {family.name for family in REGISTRY.collect() if family.name.startswith("eyeline_")}
    assert names
    assert [name for name in sorted(names) if name not in text] == []


def test_every_error_is_documented() -> None:
    text = (DOCS / "metrics.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EyelineError)]
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in text] == []


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *DOCS.rglob("*.md")], key=str), ids=lambda p: p.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
