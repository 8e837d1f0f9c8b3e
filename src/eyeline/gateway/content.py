"""Small bodies of requests, read within a limit and understood strictly."""

from typing import TypeVar
from urllib.parse import parse_qs

import msgspec
from fastapi import Request

from eyeline.core.errors import InputError, TooLarge

T = TypeVar("T")
LARGEST = 16_384
FORM = "application/x-www-form-urlencoded"


async def read(request: Request, limit: int = LARGEST) -> bytes:
    """The body. Raises TooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"the body is over {limit} bytes")
    return bytes(body)


def is_form(request: Request) -> bool:
    """Whether a plain form of a page sends it."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


async def fields(request: Request) -> dict[str, str]:
    """The fields of a plain form, the last of each. Raises InputError, TooLarge."""
    try:
        found = parse_qs((await read(request)).decode("latin-1"), max_num_fields=10, encoding="utf-8")
    except ValueError as error:
        raise InputError(f"the form cannot be read: {error}") from error
    return {name: values[-1] for name, values in found.items()}


async def parsed(request: Request, kind: type[T], limit: int = LARGEST) -> T:
    """The JSON body as `kind`. Raises InputError naming the field, TooLarge."""
    try:
        return msgspec.json.decode(await read(request, limit), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the JSON body does not fit: {error}") from error
