"""docs/api.md names every route and every code that the gateway gives."""

import re
from pathlib import Path
from typing import Any, cast

from eyeline.gateway.app import build_api
from eyeline.gateway.params import NAMES
from eyeline.gateway.state import State
from tests.gateways import settings_for

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "api.md").read_text()


async def test_every_route_is_documented(tmp_path: Path) -> None:
    stores = [cast("Any", None)] * 4
    routes = build_api(State(settings_for(tmp_path), *stores)).routes
    assert [route.path for route in routes if f" {route.path}" not in PAGE] == []  # type: ignore[attr-defined]


def test_every_parameter_of_an_upload_is_documented() -> None:
    assert [name for name in NAMES if f"`{name}`" not in PAGE] == []


def test_every_code_is_documented() -> None:
    sources = [*(ROOT / "src/eyeline/gateway").glob("*.py"), *(ROOT / "src/eyeline/core").glob("*.py")]
    codes = {code for path in sources for code in re.findall(r'code(?:: str)? ?= ?"([a-z_]+)"', path.read_text())}
    assert len(codes) > 10
    assert sorted(code for code in codes if f"`{code}`" not in PAGE) == []


async def test_the_description_tells_what_kind_of_thing_each_answer_is(tmp_path: Path) -> None:
    """Generated clients and testers believe it: no JSON is promised where text, pictures or problems come."""
    paths = build_api(State(settings_for(tmp_path), *[cast("Any", None)] * 4)).openapi()["paths"]
    answers = {path: paths[path]["get"]["responses"]["200"]["content"] for path in paths if "get" in paths[path]}
    assert set(answers["/metrics"]) == {"text/plain"}
    assert set(answers["/v1/events"]) == {"text/event-stream"}
    assert set(answers["/v1/results/export"]) >= {"application/x-ndjson", "text/csv"}
    assert set(answers["/v1/results/{id}/image"]) == {"image/jpeg"}
    for methods in paths.values():
        for operation in methods.values():
            assert "422" not in operation["responses"]
            assert "application/problem+json" in operation["responses"]["default"]["content"]
