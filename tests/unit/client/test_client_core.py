"""The client's core without a network: conversations are played by hand, so that every turn can be told."""

import inspect
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Unpack

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eyeline
from eyeline.pipeline.decode import decode
from eyeline_client import (
    AsyncClient,
    BadImage,
    Client,
    NotFound,
    Overloaded,
    Picture,
    Retry,
    Unreachable,
    WaitTimeout,
    protocol,
)
from eyeline_client.events import Feed
from eyeline_client.images import Color, body_of, png
from eyeline_client.protocol import Answer, Ask, Lost, Pause, Talk

FULL = Answer(429, {"retry-after": "3"}, b'{"code":"overloaded","detail":"full"}')
KEPT = Answer(202, {}, b'{"id":"j1","status":"queued","links":{}}')


def _play(talk: Talk[Any], *answers: Answer | Lost) -> tuple[list[Ask], list[float], Any]:
    """What was asked, the pauses between, and what came out at the end."""
    left, asked, pauses = list(answers), [], []
    step = next(talk)
    try:
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = talk.send(None)
            else:
                asked.append(step)
                step = talk.send(left.pop(0))
    except StopIteration as end:
        return asked, pauses, end.value


def _submit(**said: Unpack[Picture]) -> Talk[Any]:
    return protocol.submit("image/jpeg", b"bytes", said, 0.0, None, Retry())


def test_every_try_of_one_submit_carries_the_same_key_and_another_submit_another() -> None:
    asked, _, job = _play(_submit(), Lost("cut"), Lost("cut"), KEPT)
    other, _, _ = _play(_submit(), KEPT)
    assert len(asked) == 3
    assert len({ask.headers["Idempotency-Key"] for ask in asked}) == 1
    assert other[0].headers["Idempotency-Key"] != asked[0].headers["Idempotency-Key"]
    assert job.id == "j1"


def test_a_full_gateway_is_left_alone_for_as_long_as_it_asks() -> None:
    _, pauses, _ = _play(_submit(), FULL, FULL, KEPT)
    assert all(3.0 < pause <= 3.0 + 0.5 for pause in pauses)
    assert len(pauses) == 2


def test_a_gateway_that_stays_full_is_told_with_its_wish() -> None:
    talk = protocol.submit("image/jpeg", b"bytes", {}, 0.0, None, Retry(patience=2.0))
    with pytest.raises(Overloaded, match="full") as raised:
        _play(talk, FULL)
    assert (raised.value.status, raised.value.retry_after) == (429, 3.0)


def test_no_answer_at_all_is_told_with_the_key_that_makes_another_try_safe() -> None:
    talk = protocol.submit("image/jpeg", b"bytes", {}, 0.0, "mine", Retry(patience=0.0))
    with pytest.raises(Unreachable, match="eyeline up") as raised:
        _play(talk, Lost("ConnectError"))
    assert raised.value.idempotency_key == "mine"


def test_a_refusal_is_not_tried_again() -> None:
    with pytest.raises(NotFound, match="no such job"):
        _play(protocol.job("j1", 0, Retry()), Answer(404, {}, b'{"code":"not_found","detail":"no such job"}'))


def test_a_job_without_a_result_in_time_is_not_lost() -> None:
    with pytest.raises(WaitTimeout, match="wait for it again") as raised:
        _play(protocol.wait("j1", 0.0, Retry()), Answer(200, {}, b'{"id":"j1","status":"queued"}'))
    assert raised.value.id == "j1"


def test_times_need_a_zone() -> None:
    (ask,), _, _ = _play(_submit(captured_at=datetime(2026, 1, 31, tzinfo=UTC), meta={"line": "3"}), KEPT)
    assert ask.params == {"captured_at": "2026-01-31T00:00:00+00:00", "meta.line": "3"}
    with pytest.raises(ValueError, match="time zone"):
        _play(_submit(captured_at=datetime(2026, 1, 31)), KEPT)  # noqa: DTZ001 - what is refused


STREAM = (
    b"retry: 2000\nid: 5\n\n: still here\n\n"
    b'id: 7\nevent: alert\ndata: {"rule":"a: b\xe2\x80\xa8c\xc2\x85"}\n\n'
    b'id: 9\nevent: resync\ndata: {"after":9}\n\n'
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_events_are_the_same_however_the_network_cuts_the_bytes(cuts: list[int]) -> None:
    feed, edges = Feed(None, ["alert"], Retry()), [0, *sorted(cuts), len(STREAM)]
    events = [event for a, b in pairwise(edges) for event in feed.feed(STREAM[a:b])]
    assert [(event.seq, event.kind) for event in events] == [(7, "alert"), (9, "resync")]
    assert events[0].body == {"rule": "a: b\u2028c\x85"}
    assert feed.request().headers["Last-Event-ID"] == "9"


def test_a_stream_goes_on_from_where_it_began_if_it_is_cut_before_the_first_event() -> None:
    feed = Feed(None, ["result"], Retry())
    assert "Last-Event-ID" not in feed.request().headers
    feed.feed(b"retry: 2000\nid: 5\n\nid: 6\nevent: result\nda")
    feed.ended(Lost("cut"))
    assert feed.request().headers["Last-Event-ID"] == "5"


def test_a_stream_that_stays_away_is_given_up_and_one_that_comes_back_is_new() -> None:
    feed = Feed(None, ["result"], Retry(patience=0.1, base=0.01, longest=0.01))

    def stay_away() -> None:
        for _ in range(20):
            time.sleep(feed.ended(Lost("refused")) + 0.01)

    with pytest.raises(Unreachable, match="refused"):
        stay_away()
    feed.feed(b": still here\n\n")
    assert 0.0 < feed.ended(None) <= 0.01


def _pixels() -> Any:
    return np.random.default_rng(1).integers(0, 256, (13, 17, 3), np.uint8)


@pytest.mark.parametrize(("color", "picture"), [("rgb", _pixels()), ("bgr", _pixels()[..., ::-1]), ("gray", _pixels())])
def test_pixels_arrive_as_they_were(color: Color, picture: Any) -> None:
    given = picture[..., 0] if color == "gray" else picture
    wanted = np.stack([given] * 3, -1) if color == "gray" else _pixels()
    assert np.array_equal(decode(png(given, color)).pixels, wanted)


@pytest.mark.parametrize(
    ("image", "color", "words"),
    [
        (_pixels(), None, "OpenCV gives bgr"),
        (_pixels().astype(np.float32), "rgb", "must be uint8"),
        (_pixels(), "gray", r"\[13, 17, 3\]"),
        (b"", None, "empty"),
        (b"\xff", "rgb", "encoded bytes"),
        ("no/such/file.jpg", None, "no/such/file.jpg"),
        (17, None, "a int cannot be sent"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_sent(image: Any, color: Any, words: str) -> None:
    with pytest.raises(BadImage, match=words):
        body_of(image, color)


def test_a_url_is_sent_as_a_url() -> None:
    kind, body = body_of("https://example.com/a.jpg", None)
    assert (kind, msgspec.json.decode(body)) == ("application/json", {"url": "https://example.com/a.jpg"})


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def told(kind: type) -> dict[str, list[str]]:
        public = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
        return {name: list(map(str, inspect.signature(member).parameters.values())) for name, member in public.items()}

    assert told(Client) == told(AsyncClient)
    assert len(told(Client)) >= 8


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"localhost:8080.*scheme"):
        Client("localhost:8080")


def test_what_is_given_for_httpx_reaches_it() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"results": []})

    with Client("http://there/eyeline", key="eyl_live_x", transport=httpx.MockTransport(handler)) as client:
        assert list(client.results(label="box", limit=7)) == []
    assert str(seen[0].url) == "http://there/eyeline/v1/results?label=box&limit=7"
    assert seen[0].headers["authorization"] == "Bearer eyl_live_x"


def test_eyeline_gives_the_clients_when_asked_and_loads_nothing_before() -> None:
    assert (eyeline.Client, eyeline.AsyncClient) == (Client, AsyncClient)
    code = "import sys, eyeline; sys.exit(bool({'httpx', 'eyeline_client', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_client_eyeline_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eyeline_client", None)
    with pytest.raises(ImportError, match="pip install eyeline-client"):
        _ = eyeline.Client
