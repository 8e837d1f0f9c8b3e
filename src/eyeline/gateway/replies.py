"""Answers as JSON, the same bytes that events and exports carry."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` (plain data or our structs) as a JSON answer."""
    safe = {"X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(content), status, safe, media_type="application/json")
