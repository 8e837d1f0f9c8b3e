"""Small bodies of requests, read within a limit and understood strictly."""

from typing import TypeVar

import msgspec
from fastapi import Request

from eyeline.core.errors import InputError, TooLarge

T = TypeVar("T")
LARGEST = 16_384


async def read(request: Request, limit: int = LARGEST) -> bytes:
    """The body. Raises TooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"the body is over {limit} bytes")
    return bytes(body)


async def parsed(request: Request, kind: type[T], limit: int = LARGEST) -> T:
    """The JSON body as `kind`. Raises InputError naming the field, TooLarge."""
    try:
        return msgspec.json.decode(await read(request, limit), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the JSON body does not fit: {error}") from error
