"""Connections under watch: slow or oversized heads, trickling bodies, readers that stop reading, too many at once.
Who is hung up on is told why first.

uvicorn bounds none of these. One sweep a second looks at every connection, so that a request costs no timer of its own.
"""

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eyeline.core.telemetry import REFUSED, logger
from eyeline.gateway.problem import Problem, retry_header

log = logger("gateway")

MAX_CONNECTIONS = 4096
MAX_PER_ADDRESS = 1024
MAX_HEAD = 16_384  # bytes of request line and headers
MAX_HEADERS = 100
HEAD_SECONDS = 5.0
BODY_WINDOW = 5.0  # seconds within which BODY_BYTES of a body must come
BODY_BYTES = 50_000
READ_SECONDS = 30.0  # for which a client may leave an answer unread

_SLOW_HEAD = Problem(408, "slow_head", f"the request's head was not here after {HEAD_SECONDS:g} s; send it at once")
_SLOW_BODY = Problem(
    408,
    "slow_body",
    f"fewer than {BODY_BYTES} bytes of the body came within {BODY_WINDOW:g} s; send it faster, or in parts",
)
_TOO_MANY = Problem(
    503, "too_many_connections", "too many connections are open; close some, or use them again", retry_header(2)
)


class Guard:
    """All open connections."""

    def __init__(self) -> None:
        self._open: set[GuardedProtocol] = set()
        self._by_address: Counter[str] = Counter()

    def protocol(self) -> type["GuardedProtocol"]:
        """The protocol class for uvicorn, bound to this guard."""
        return type("Guarded", (GuardedProtocol,), {"guard": self})

    def enter(self, connection: "GuardedProtocol", address: str) -> bool:
        """Count it. Whether there is room."""
        self._open.add(connection)
        self._by_address[address] += 1
        return len(self._open) <= MAX_CONNECTIONS and self._by_address[address] <= MAX_PER_ADDRESS

    def leave(self, connection: "GuardedProtocol", address: str) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def sweep(self) -> None:
        """Once a second, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self._open):
                connection.inspect(now)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, strict about what comes and when."""

    guard: Guard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._address = self.client[0] if self.client else ""
        self._phase: str | None = "head"
        self._since = self.loop.time()
        self._bytes = 0
        self._head = 0
        self._unread_since: float | None = None
        if not self.guard.enter(self, self._address):
            self._hang_up(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self.guard.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A head that does not end is counted here; one that does, by its headers."""
        super().data_received(data)
        if self._phase == "head":
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """Another request on this connection."""
        super().on_message_begin()
        if self._phase != "head":
            self._phase, self._since = "head", self.loop.time()
        self._head = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count; an exception here is answered 400."""
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """What a strict parser still lets pass, and the size of all of it."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        names = [name for name, _ in self.headers]
        old = self.parser.get_http_version() == "1.0"
        if size > MAX_HEAD or names.count(b"host") != 1 - (old and b"host" not in names):
            raise ValueError("head too large, or not exactly one Host")
        if b"transfer-encoding" in names and (old or b"content-length" in names):
            raise ValueError("ambiguous length")
        self._phase, self._since, self._bytes = "body", self.loop.time(), 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what comes, also what nobody wants any more."""
        self._bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._phase = None
        super().on_message_complete()

    def inspect(self, now: float) -> None:
        """Hang up on what is too slow."""
        if self.transport.is_closing():
            return
        if self._phase == "head" and now - self._since > HEAD_SECONDS:
            self._hang_up(_SLOW_HEAD, told=self._head > 0)
        elif self._phase == "body":
            self._inspect_body(now)
        self._inspect_reader(now)

    def _inspect_body(self, now: float) -> None:
        """Waiting for us does not count as being slow."""
        waits = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not waits and now - self._since <= BODY_WINDOW:
            return
        if not waits and self._bytes < BODY_BYTES:
            self._hang_up(_SLOW_BODY, told=not self.cycle.response_started)
            return
        self._since, self._bytes = now, 0

    def _inspect_reader(self, now: float) -> None:
        if not self.flow.write_paused:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > READ_SECONDS:
            REFUSED.labels(reason="slow_reader").inc()
            self.transport.abort()

    def _hang_up(self, why: Problem, *, told: bool = True) -> None:
        REFUSED.labels(reason=why.code).inc()
        log.info("hung up", reason=why.code, client=self._address)
        if told:
            self.transport.write(_last_words(why))
        self.transport.close()


def _last_words(problem: Problem) -> bytes:
    """The whole answer, on a connection that is closed behind it."""
    body = problem.body()
    headers = [*problem.all_headers(body), (b"connection", b"close")]
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()
    return b"\r\n".join([status, *(name + b": " + value for name, value in headers), b"", body])


def bound(guard: Guard) -> Any:
    """The protocol class, typed loosely for uvicorn's settings."""
    return guard.protocol()
