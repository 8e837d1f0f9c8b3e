"""POST /v1/images: the hot path, written on bare ASGI. Refused early, kept before it is answered."""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive, Scope, Send

from eyeline.core.access import Principal
from eyeline.core.errors import EyelineError, InputError
from eyeline.core.telemetry import API_SECONDS, REFUSED, new_traceparent
from eyeline.gateway import captures
from eyeline.gateway.body import (
    ClientGone,
    Headers,
    declared_size,
    json_image,
    kind_of,
    limit_of,
    multipart_images,
    read_body,
)
from eyeline.gateway.ingest import Accepted, Request
from eyeline.gateway.params import ImageParams
from eyeline.gateway.problem import problem_of
from eyeline.gateway.state import State, authenticated

PATH = "/v1/images"
LONGEST_KEY = 255
#: A body of up to this many bytes is let run out after a refusal, so that the connection can be used again.
DRAIN = 1_000_000
LINGER = 2.0  # seconds for which a refused client may go on sending before it is hung up on

_TRACE = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_JSON = (b"content-type", b"application/json")


class Incoming:
    """What comes of a request, and whether that was all of it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def __call__(self) -> Message:
        """The next message."""
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message


class Upload:
    """The ASGI application behind POST /v1/images."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._seconds: dict[tuple[str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one upload."""
        began = time.perf_counter()
        receive = Incoming(receive)
        headers: Headers = dict(scope["headers"])
        route = PATH
        try:
            who = authenticated(self._state, scope)
            who.need("submit")
            params = self._state.known.parse(scope["query_string"], who)
            if params.wait:
                route = f"{PATH}?wait"
            status = await self._admitted(scope, headers, params, who, receive, send)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - every error becomes an answer, in one place
            self._state.noticed(error)
            status = await refuse(error, headers, receive, send)
        self._observe(route, status, time.perf_counter() - began)

    async def _admitted(
        self, scope: Scope, headers: Headers, params: ImageParams, who: Principal, receive: Receive, send: Send
    ) -> int:
        """Take a place in the line before a byte of the body is read."""
        state = self._state
        kind = kind_of(headers)
        limit = limit_of(kind, state.settings.gateway.max_bytes)
        declared = declared_size(headers, limit)
        place = state.admission.enter(params.lane, params.pipeline)
        try:
            with state.budget.hold(declared or 0) as hold:
                body = await read_body(receive, limit, hold)
                images, url = await self._images(kind, headers, body)
                place.arrived()
                accepted = await state.intake.accept(images, _request(scope, headers, params, who, url))
                await captures.announce(state, params, accepted)
        finally:
            place.leave()
        return await self._answer(accepted, params.wait, send)

    async def _images(self, kind: str, headers: Headers, body: bytes) -> tuple[Sequence[bytes], str | None]:
        """The images, and the URL where they came from one."""
        if kind == "multipart":
            return await multipart_images(headers[b"content-type"], body), None
        if kind == "raw":
            return [body], None
        wanted = await json_image(body)
        if isinstance(wanted, bytes):
            return [wanted], None
        return [await self._state.fetcher.fetch(wanted)], wanted

    async def _answer(self, accepted: list[Accepted], wait: float, send: Send) -> int:
        """Register who waits, have the jobs enqueued, answer."""
        state = self._state
        alone = accepted[0] if len(accepted) == 1 else None
        waiting = state.follower.expect(alone.job.id) if alone and wait and alone.result is None else None
        state.relay.offer([each.job for each in accepted if each.fresh and each.result is None])
        if alone is None:
            return await _send(send, 202, {"images": [_short(each) for each in accepted]})
        found: Any = alone.result
        if waiting is not None:
            found = await state.follower.wait(alone.job.id, waiting, wait)
        if found is not None:
            return await _send(send, 200, found)
        location = (b"location", f"/v1/jobs/{alone.job.id}".encode())
        return await _send(send, 202, _short(alone), location)

    def _observe(self, route: str, status: int, seconds: float) -> None:
        key = (route, status)
        if key not in self._seconds:
            self._seconds[key] = API_SECONDS.labels(route=route, status=str(status))
        self._seconds[key].observe(seconds)


def _short(accepted: Accepted) -> dict[str, Any]:
    id = accepted.job.id  # noqa: A001 - the API's word
    return {
        "id": id,
        "status": accepted.status,
        "links": {"job": f"/v1/jobs/{id}", "result": f"/v1/results/{id}"},
    }


def _request(scope: Scope, headers: Headers, params: ImageParams, who: Principal, url: str | None) -> Request:
    trace = headers.get(b"traceparent", b"")
    key = headers.get(b"idempotency-key")
    return Request(
        who=who,
        params=params,
        key=None if key is None else _key(key),
        words=scope["query_string"] if key is not None else b"",
        url=url,
        trace=trace.decode() if _TRACE.fullmatch(trace) else new_traceparent(),
    )


def idempotency_key(request: HttpRequest) -> str | None:
    """The key that makes a retry of this request safe, if it has one. Raises InputError."""
    key = request.headers.get("idempotency-key")
    return None if key is None else _key(key.encode("latin-1"))


def _key(key: bytes) -> str:
    text = key.decode("latin-1")
    if not 0 < len(text) <= LONGEST_KEY or not text.isascii() or not text.isprintable():
        raise InputError(f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters")
    return text


async def _send(send: Send, status: int, content: Any, *extra: tuple[bytes, bytes]) -> int:
    body = msgspec.json.encode(content)
    headers = [_JSON, (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return status


async def refuse(error: Exception, headers: Headers, receive: Receive, send: Send) -> int:
    """Answer at once, whole, and then see to the rest of the body, so that the client is neither cut off nor kept hanging."""
    problem = problem_of(error)
    if isinstance(error, EyelineError):
        REFUSED.labels(reason=problem.code).inc()
    body = problem.body()
    answer = problem.all_headers(body)
    close = _must_close(headers) and not (isinstance(receive, Incoming) and receive.ended)
    if close:
        answer.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": answer})
    # the client has the whole answer with its length now; closing waits until it has stopped sending
    await send({"type": "http.response.body", "body": body, "more_body": close})
    if close:
        await _let_run_out(receive, 0.0 if b"expect" in headers else LINGER)
        await send({"type": "http.response.body", "body": b""})
    return problem.status


def _must_close(headers: Headers) -> bool:
    """A small declared body runs out by itself; a large, endless or not yet sent one would not."""
    size = headers.get(b"content-length")
    if b"expect" in headers or (size is None and b"transfer-encoding" in headers):
        return True
    return size is not None and int(size) > DRAIN


async def _let_run_out(receive: Receive, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
