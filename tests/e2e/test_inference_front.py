"""The inference server's HTTP/1.1 on the wire: order, keep-alive, limits, and what cannot be smuggled."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.fake_models import write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process

LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    models = tmp_path_factory.mktemp("models")
    write_brightness_bundle(models)
    with inference_process(models) as running:
        yield running


def infer(level: int, request_id: str = "") -> bytes:
    given = {"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [level] * 3072}
    body = json.dumps({"id": request_id, "inputs": [given]}).encode()
    return b"POST /v2/models/brightness/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def talk(server: InferenceProcess, *parts: bytes, answers: int = 1) -> list[tuple[int, bytes]]:
    """Send the parts, read that many answers: (status, body) each; fewer where the server closes."""
    got: list[tuple[int, bytes]] = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        reader = connection.makefile("rb")
        while len(got) < answers and (line := reader.readline()):
            length = 0
            while (header := reader.readline().strip()) != b"":
                name, _, value = header.partition(b": ")
                length = int(value) if name == b"content-length" else length
            got.append((int(line.split()[1]), reader.read(length)))
    return got


def test_pipelined_requests_are_answered_in_their_order(server: InferenceProcess) -> None:
    got = talk(server, infer(1, "a") + LIVE + infer(2, "b") + LIVE + infer(3, "c"), answers=5)
    assert [status for status, _ in got] == [200] * 5
    assert [json.loads(body)["id"] for _, body in got if body] == ["a", "b", "c"]


def test_a_thousand_pipelined_requests_neither_nest_nor_mix(server: InferenceProcess) -> None:
    bad = b"POST /v2/models/none/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    got = talk(server, (bad * 9 + LIVE) * 100, answers=1000)
    assert [status for status, _ in got] == ([404] * 9 + [200]) * 100


def test_a_request_may_come_byte_by_byte(server: InferenceProcess) -> None:
    assert talk(server, *(LIVE[index : index + 1] for index in range(len(LIVE)))) == [(200, b"")]


def test_a_chunked_body_is_read(server: InferenceProcess) -> None:
    body = infer(51).partition(b"\r\n\r\n")[2]
    head = b"POST /v2/models/brightness/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    ((status, said),) = talk(server, head, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n")
    assert status == 200
    assert json.loads(said)["outputs"][0]["data"][1] == pytest.approx(0.2)


def test_http_1_0_and_connection_close_are_closed_after_the_answer(server: InferenceProcess) -> None:
    old = b"GET /v2/health/live HTTP/1.0\r\n\r\n"
    close = LIVE.replace(b"host: x", b"host: x\r\nconnection: close")
    assert talk(server, old + LIVE, answers=2) == [(200, b"")]
    assert talk(server, close + LIVE, answers=2) == [(200, b"")]


def test_head_has_no_body(server: InferenceProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"HEAD /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert said.endswith(b"\r\n\r\n")


def test_100_continue_is_said_before_the_body(server: InferenceProcess) -> None:
    head, _, body = infer(1).partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na", 400),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\na: " + b"b" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 70000000\r\n\r\n", 413),
        (b"POST /v2/models/none/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n", 404),
    ],
    ids=[
        "two lengths",
        "length and chunked",
        "negative",
        "nonsense",
        "long header",
        "long path",
        "large",
        "large and unknown",
    ],
)
def test_what_is_wrong_on_the_wire_is_refused_before_a_body_and_closed(
    server: InferenceProcess, request_bytes: bytes, status: int
) -> None:
    got = talk(server, request_bytes, answers=2)
    assert [each[0] for each in got] == [status]
    assert json.loads(got[0][1])["error"]


def test_what_came_before_nonsense_is_still_answered(server: InferenceProcess) -> None:
    assert [status for status, _ in talk(server, infer(1) + b"NONSENSE\r\n\r\n", answers=3)] == [200]


def test_an_origin_cannot_hide_behind_a_second_header(server: InferenceProcess) -> None:
    head = b"POST /v2/repository/models/brightness/unload HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n"
    request = head + b"Origin: http://evil\r\norigin: \r\n\r\n"
    assert talk(server, request)[0][0] == 403
