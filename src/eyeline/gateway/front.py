"""What stands before every route: which hosts are answered, measured times, and no exception that gets out."""

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eyeline.core.errors import EyelineError, Forbidden, InputError
from eyeline.core.pages import SESSION
from eyeline.core.telemetry import API_SECONDS, printable
from eyeline.gateway.body import Headers
from eyeline.gateway.problem import problem_of
from eyeline.gateway.sessions import from_elsewhere, from_here, token_of
from eyeline.gateway.state import State
from eyeline.gateway.upload import PATH, Upload, refuse

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
PROBES = {"/healthz", "/readyz"}  # orchestrators ask by address
#: They last, or wait for a camera; their time says nothing.
STREAMS = {"/v1/events", "/v1/cameras/{name}/captures", "/v1/cameras/{name}/capture"}
SAFE = {"GET", "HEAD", "OPTIONS"}
#: A page asks by itself, with nobody at it: that keeps nobody signed in who may act.
BACKGROUND = b"x-eyeline-background"


class Front:
    """The outermost application."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._upload = Upload(state)
        self._hosts = {host.lower() for host in state.settings.gateway.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, measure, pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        try:
            self._check(scope, headers)
            if b"cookie" in headers and b"authorization" not in headers:
                scope[SESSION] = await self._state.sessions.recognise(headers, counts=BACKGROUND not in headers)
        except EyelineError as error:
            await refuse(error, headers, receive, send)
            return
        if scope["path"] == PATH and scope["method"] == "POST":
            await self._upload(scope, receive, send)  # the hot path: measures itself and answers all errors
        else:
            await self._measured(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """The Host header, and that no foreign web page knocks on behalf of a browser that would be let in."""
        keyless = not self._state.keyring.required
        if scope["method"] not in SAFE and (keyless or b"authorization" not in headers):
            _check_origin(headers)
        if not keyless and not self._hosts:
            return
        host = _name(headers.get(b"host", b""))
        answered = self._hosts | LOOPBACK if keyless else self._hosts
        if host not in answered and scope["path"] not in PROBES:
            raise InputError(
                f"the host {printable(host, 80)!r} is not answered here; add it to gateway.allowed_hosts",
                code="unknown_host",
            )

    async def _measured(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - a handler that broke must not break the connection
            status = await _broken(error, send, started=status)
        _observe(scope, status, time.perf_counter() - began)


async def _broken(error: Exception, send: Send, *, started: int) -> int:
    """Say that something broke; where an answer had begun already, it has been said or can only be cut off."""
    if started:
        return started
    problem = problem_of(error)
    body = problem.body()
    await send({"type": "http.response.start", "status": problem.status, "headers": problem.all_headers(body)})
    await send({"type": "http.response.body", "body": body})
    return problem.status


def _observe(scope: Scope, status: int, seconds: float) -> None:
    """By the route's pattern, never by the path: what callers write must not become a series."""
    route: Any = scope.get("route")
    name = getattr(route, "path", "unknown")
    if name in STREAMS:
        return
    if b"wait=" in scope["query_string"]:
        name += "?wait"
    API_SECONDS.labels(route=name, status=str(status)).observe(seconds)


def _name(host: bytes) -> str:
    """The host without its port, lower case; IPv6 without brackets."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _check_origin(headers: Headers) -> None:
    """Raises Forbidden for what the page of another site, or of another port, may have sent.

    No page can send a key unasked, so that a key needs no such check; a cookie needs the browser's own word.
    """
    if from_elsewhere(headers) or (token_of(headers) is not None and not from_here(headers)):
        raise Forbidden(
            "a browser must say that a page of this very host sent this (Origin, Sec-Fetch-Site), and it does not; "
            "a proxy before Eyeline must pass on the Host header as it came",
            code="cross_site",
        )
