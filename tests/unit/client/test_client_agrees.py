"""What the clients believe of the API is what the gateway says of itself. A change of the API fails here."""

import re
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest

import eyeline_client
from eyeline.core.clock import utcnow
from eyeline.gateway import events as gateway_events
from eyeline.gateway.app import build_api
from eyeline.gateway.holds import told
from eyeline.gateway.params import MAX_WAIT, NAMES
from eyeline.gateway.state import State
from eyeline.stores.results.retaining import Hold
from eyeline_client import events, protocol, types
from tests.gateways import settings_for

ROOT = Path(__file__).resolve().parents[3]
API = (ROOT / "docs/api.md").read_text()
SCRIPT = (ROOT / "clients/javascript/eyeline.js").read_text()
STRUCTS = ["ChainRef", "Classification", "Code", "Detection", "ImageInfo", "ModelRef", "Result", "Reuse", "Verdict"]


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    """The gateway's /openapi.json."""
    return build_api(State(settings_for(tmp_path), *[cast("Any", None)] * 4)).openapi()


def _bare(schema: Any) -> Any:
    """A schema without its prose."""
    if isinstance(schema, dict):
        return {name: _bare(value) for name, value in schema.items() if name != "description"}
    return [_bare(each) for each in schema] if isinstance(schema, list) else schema


def _query(described: dict[str, Any], method: str, path: str) -> set[str]:
    return {each["name"] for each in described["paths"][path][method]["parameters"] if each["in"] == "query"}


def test_results_have_the_same_fields_of_the_same_types(described: dict[str, Any]) -> None:
    _, mine = msgspec.json.schema_components([types.Result], ref_template="#/components/schemas/{name}")
    assert sorted(mine) == STRUCTS
    for name in STRUCTS:
        assert _bare(mine[name]) == _bare(described["components"]["schemas"][name]), name


def test_an_upload_takes_what_the_client_says(described: dict[str, Any]) -> None:
    said = set(protocol.Picture.__annotations__) - {"meta"} | {"wait"}
    assert said == _query(described, "post", "/v1/images") == set(NAMES)


def test_lists_take_the_clients_filters(described: dict[str, Any]) -> None:
    assert set(protocol.Filters.__annotations__) | {"cursor", "limit"} == _query(described, "get", "/v1/results")


def test_holds_name_and_tell_the_same(described: dict[str, Any]) -> None:
    placed = described["components"]["schemas"]["Placed"]["properties"]
    assert set(protocol.Scope.__annotations__) | {"reason"} == set(placed)
    assert set(types.Hold.__struct_fields__) == set(told(Hold(id="h", placed_at=utcnow())))


def test_every_route_of_the_clients_is_one_of_the_gateways(described: dict[str, Any]) -> None:
    source = (Path(protocol.__file__).read_text(), Path(events.__file__).read_text(), SCRIPT)
    for text in source:
        routes = {
            re.sub(r"\$?\{.*?\}", "{id}", route)
            for route in re.findall(r"/v1/[a-z]+(?:/\$?\{.*?\}(?:/[a-z]+)?)?", text)
        }
        assert routes
        assert routes <= set(described["paths"])


def test_pages_jobs_and_events_have_the_documented_shapes() -> None:
    def listed(kind: type[msgspec.Struct]) -> str:
        return "{" + ", ".join(f'"{name}"' for name in kind.__struct_fields__) + "}"

    assert f"`{listed(eyeline_client.Page)}`" in API
    assert f"`{listed(eyeline_client.Job)}`" in API
    assert set(get_args(types.Kind)) == {*gateway_events.KINDS, "resync"}
    assert set(events.KINDS) == set(gateway_events.KINDS)
    assert all(f"`{kind}`" in API for kind in get_args(types.Kind))


def test_the_client_waits_no_longer_than_the_gateway_lets_it() -> None:
    assert protocol.LONGEST_WAIT < MAX_WAIT
    assert events.SILENCE > 2 * gateway_events.HEARTBEAT


@pytest.mark.parametrize("name", [*STRUCTS, "Job", "Page", "Picture", "Filters", "Event", "Hold", "Scope"])
def test_the_script_has_the_same_fields(name: str) -> None:
    found = re.search(rf"@typedef \{{Object\}} {name}\b(.*?)\*/", SCRIPT, re.DOTALL)
    assert found, f"no typedef {name}"
    theirs = re.findall(r"@property \{.+\} \[?([a-z_0-9]+)", found[1])
    kind: Any = getattr(eyeline_client, name)
    assert sorted(theirs) == sorted(getattr(kind, "__struct_fields__", None) or kind.__annotations__)
