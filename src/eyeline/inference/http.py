"""A small HTTP/1.1 client for the hot path: one request at a time on each kept-alive connection, no redirects, no cookies.

A worker asks the inference server once for each image; a general client's machinery costs three times this file's CPU.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools

#: Idle connections kept for the next request.
KEEP = 64
#: An answer's body may not be larger.
MAX_ANSWER = 256_000_000


class HttpFailure(Exception):
    """No whole answer came: refused, closed, or not HTTP. `fresh`: not one byte of an answer had come."""

    def __init__(self, message: str, *, fresh: bool = False) -> None:
        super().__init__(message)
        self.fresh = fresh


@dataclass
class Answer:
    """Status, headers by lower-case name, body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """One connection. httptools calls the `on_` methods while it is fed."""

    def __init__(self) -> None:
        self.reused = False
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer = Answer()
        self._parts: list[bytes] = []
        self._size = 0
        self._done: asyncio.Future[Answer] | None = None
        self._started = False

    @property
    def usable(self) -> bool:
        """Whether another request may go this way."""
        return self._transport is not None and not self._transport.is_closing()

    async def request(self, head: bytes, body: bytes) -> Answer:
        """Send one request, wait for its answer. Raises HttpFailure; cancelled, it closes the connection."""
        if self._transport is None:
            raise HttpFailure("the connection is closed", fresh=True)
        self._answer, self._parts, self._size, self._started = Answer(), [], 0, False
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(head + body if len(body) < 65536 else head)
        if len(body) >= 65536:
            self._transport.write(body)
        try:
            return await self._done
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._done = None

    def close(self) -> None:
        """Idempotent; nothing that is still to be sent is sent."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in deed, not by class

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._done is None:  # nobody asked for this
            self.close()
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"the server closed the connection{f': {exc}' if exc else ''}")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_ANSWER:
            self._fail(f"the answer is larger than {MAX_ANSWER} bytes")
        else:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        parser, done = self._parser, self._done
        if parser is None or done is None or done.done():
            return
        if parser.get_status_code() < 200:  # 100 Continue and its like come before the answer
            self._answer = Answer()
            return
        self._answer.status = parser.get_status_code()
        self._answer.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if not parser.should_keep_alive():
            self.close()
        done.set_result(self._answer)

    def _fail(self, message: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(HttpFailure(message, fresh=not self._started))
        self.close()


class HttpClient:
    """Connections to one server: `host` and `port`, or a unix socket's path. Used within one event loop."""

    def __init__(self, host: str, port: int, *, socket: str | None = None, tls: bool = False) -> None:
        self._host = host
        self._port = port
        self._socket = socket
        self._tls = ssl.create_default_context() if tls else None
        self._idle: list[Connection] = []
        name = f"[{host}]" if ":" in host else host
        self._name = f"{name}:{port}".encode()

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
        """One request, `seconds` in all. Raises HttpFailure, OSError, TimeoutError.

        A kept connection that the server had closed meanwhile is replaced; what is asked here may be asked twice.
        """
        head = self._head(method, path, headers, len(body))
        async with asyncio.timeout(seconds):
            while True:
                connection = self._kept() or await self._connect()
                try:
                    answer = await connection.request(head, body)
                except HttpFailure as failure:
                    if connection.reused and failure.fresh:
                        continue
                    raise
                if connection.usable and len(self._idle) < KEEP:
                    connection.reused = True
                    self._idle.append(connection)
                else:
                    connection.close()
                return answer

    def close(self) -> None:
        """Close what is idle. Idempotent."""
        while self._idle:
            self._idle.pop().close()

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = [f"{method} {path} HTTP/1.1\r\nhost: ".encode() + self._name + b"\r\n"]
        for name, value in headers.items():
            if "\r" in value or "\n" in value:
                raise HttpFailure(f"the header {name!r} holds a line break")
            lines.append(f"{name}: {value}\r\n".encode("latin-1"))
        if length or method == "POST":
            lines.append(f"content-length: {length}\r\n".encode())
        return b"".join((*lines, b"\r\n"))

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            _, made = await loop.create_unix_connection(Connection, self._socket)
        else:
            _, made = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return made
