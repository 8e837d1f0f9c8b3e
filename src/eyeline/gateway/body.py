"""The body of an upload: read under a limit, then taken apart into images (raw, multipart, JSON)."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from eyeline.core.errors import BadImage, InputError, TooLarge
from eyeline.gateway.limits import Hold

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = dict[bytes, bytes]

MAX_PARTS = 10
MAX_BOUNDARY = 200
BIG = 100_000  # bytes above which taking a body apart goes to a thread


class ClientGone(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


class JsonImage(msgspec.Struct, forbid_unknown_fields=True):
    """`{"url": …}` or `{"image": base64}`."""

    url: str | None = None
    image: str | None = None


def kind_of(headers: Headers) -> str:
    """`json`, `multipart` or `raw`: everything else is taken as the bytes of an image, whatever it is called."""
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() not in {b"identity", b""}:
        raise InputError(f"Content-Encoding {encoding.decode('latin-1')!r} is not accepted; send the bytes as they are")
    media = headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
    return {b"application/json": "json", b"multipart/form-data": "multipart"}.get(media, "raw")


def limit_of(kind: str, max_bytes: int) -> int:
    """The largest body of that kind, in bytes."""
    return {"json": max_bytes * 4 // 3 + 4096, "multipart": 4 * max_bytes + 16_384}.get(kind, max_bytes)


def declared_size(headers: Headers, limit: int) -> int | None:
    """Content-Length, or None where the body is chunked. Raises TooLarge before a byte is read."""
    text = headers.get(b"content-length")
    if text is None:
        return None
    size = int(text)
    if size > limit:
        raise TooLarge(f"the body has {size} bytes; at most {limit} are accepted")
    return size


async def read_body(receive: Receive, limit: int, hold: Hold) -> bytes:
    """The whole body. Bytes are counted as they come: the header is only a hint."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        if chunk:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body is over {limit} bytes, which is the most that is accepted")
            hold.grow(size)
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def multipart_images(content_type: bytes, body: bytes) -> list[bytes]:
    """The parts' contents, in order; names and types of the parts mean nothing."""
    if len(body) > BIG:
        return await asyncio.to_thread(_parts, content_type, body)
    return _parts(content_type, body)


def _parts(content_type: bytes, body: bytes) -> list[bytes]:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise InputError("multipart/form-data needs a boundary of 1 to 200 characters in its Content-Type")
    gathered = _Gather()
    parser = MultipartParser(boundary, gathered.callbacks())
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise InputError(f"the multipart body is broken: {error}") from error
    if not gathered.done or not gathered.parts:
        raise InputError("the multipart body holds no complete part; send each image as one part")
    return [b"".join(part) for part in gathered.parts]


class _Gather:
    """What the parser calls back with."""

    def __init__(self) -> None:
        self.parts: list[list[bytes]] = []
        self.done = False

    def callbacks(self) -> Any:
        return {"on_part_begin": self._begin, "on_part_data": self._data, "on_end": self._end}

    def _begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise TooLarge(f"more than {MAX_PARTS} parts; send the others in a second request", code="too_many_parts")
        self.parts.append([])

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].append(data[start:end])

    def _end(self) -> None:
        self.done = True


async def small_body(request: Request, most: int, what: str) -> bytes:
    """The body of a request that is no upload. Raises TooLarge as soon as it is over `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLarge(f"{what} is over {most} bytes")
    return bytes(body)


async def json_image(body: bytes) -> str | bytes:
    """The image's bytes, or the URL that is still to be fetched."""
    if len(body) > BIG:
        return await asyncio.to_thread(_json, body)
    return _json(body)


def _json(body: bytes) -> str | bytes:
    try:
        wanted = msgspec.json.decode(body, type=JsonImage)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f'the JSON body must be {{"url": "https://…"}} or {{"image": "<base64>"}}: {error}') from error
    if wanted.url is not None and wanted.image is None:
        return wanted.url
    if wanted.image is not None and wanted.url is None:
        return _base64(wanted.image)
    raise InputError('give exactly one of "url" and "image" in the JSON body')


def _base64(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(f'"image" is not base64: {error}', code="bad_base64") from error
