"""Whatever is sent to the inference server, it answers with a client error or closes, and goes on serving."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fake_models import grey_picture, write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process

MANY = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    models = tmp_path_factory.mktemp("models")
    write_brightness_bundle(models)
    with inference_process(models) as running:
        yield running
        assert running.process.poll() is None
        assert running.request("/predict?model=brightness", grey_picture(0.5))[0] == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["name", "shape", "datatype", "data", "parameters"]
PARAMETERS = [
    "binary_data_size",
    "binary_data",
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
]


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A right request with a few of its fields replaced."""
    given_input: dict[str, Any] = {"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [1] * 3072}
    for field in draw(st.sets(st.sampled_from(FIELDS), max_size=3)):
        given_input[field] = draw(JSON)
    if draw(st.booleans()):
        given_input["parameters"] = {key: draw(JSON) for key in draw(st.sets(st.sampled_from(PARAMETERS), max_size=3))}
    request: dict[str, Any] = {"inputs": [given_input]}
    for field in draw(st.sets(st.sampled_from(["id", "outputs", "parameters", "inputs"]), max_size=2)):
        request[field] = draw(JSON)
    return json.dumps(request).encode()


@MANY
@given(body=nearly_right() | st.binary(max_size=200), length=st.none() | st.integers(-5, 4000))
def test_no_request_body_breaks_infer(server: InferenceProcess, body: bytes, length: int | None) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    status, said = server.request("/v2/models/brightness/infer", body, headers)
    assert status in {200, 400, 413, 422}, said
    assert status == 200 or said["error"]


PATHS = [
    "/v2/systemsharedmemory/region/x/register",
    "/v2/systemsharedmemory/region/x/unregister",
    "/v2/repository/index",
    "/v2/repository/models/nothing/load",
    "/v2/repository/models/nothing/unload",
    "/v2/models/nothing/infer",
    "/predict?model=brightness",
]


@MANY
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_request_body_breaks_another_route(server: InferenceProcess, path: str, body: bytes) -> None:
    status, said = server.request(path, body, {"Content-Type": "application/json"})
    assert status < 500, said


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=300)
    | st.sampled_from(
        [
            b"GET /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
            b"POST /v2/models/brightness/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"GET /v2/models/%00%ff/config HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
        ]
    )
)
def test_no_bytes_on_the_wire_end_the_server(server: InferenceProcess, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except ConnectionError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 5")
    assert server.request("/v2/health/live")[0] == 200
