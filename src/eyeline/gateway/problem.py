"""One handler turns errors into answers: RFC 9457 problem JSON with a stable `code`, and nothing of the inside.

What the caller did wrong is said with the value and the way out; what broke on our side is logged under an id and
answered with one plain sentence.
"""

import math
from dataclasses import dataclass, field

import msgspec

from eyeline.core.errors import BackendError, EyelineError, InputError, Overloaded
from eyeline.core.ids import uuid7
from eyeline.core.telemetry import logger

log = logger("gateway")

MEDIA_TYPE = b"application/problem+json"
RETRY_AFTER = 2.0  # seconds; long enough for a store to come back, short enough to notice

TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not acceptable",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
    504: "Not in time",
}


@dataclass(frozen=True)
class Problem:
    """What is answered: status, code, sentence, and headers besides the content type."""

    status: int
    code: str
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    extra: dict[str, object] = field(default_factory=dict)

    def body(self) -> bytes:
        """The problem JSON."""
        members = {
            "type": f"urn:eyeline:problem:{self.code}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        return msgspec.json.encode(members | self.extra)

    def all_headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Content type and length first, then the problem's own."""
        length = str(len(body)).encode()
        return [(b"content-type", MEDIA_TYPE), (b"content-length", length), *self.headers]


def problem_of(error: Exception) -> Problem:
    """The answer for any exception; what is not the caller's fault is logged here."""
    if isinstance(error, InputError):
        return Problem(error.status, error.code, str(error), _challenge(error.status), error.told)
    if isinstance(error, Overloaded):
        return Problem(error.status, "overloaded", str(error), retry_header(error.retry_after))
    if isinstance(error, BackendError) and error.transient:
        log.warning("backend failed", error=str(error), kind=type(error).__name__)
        detail = f"a part of the service is not reachable ({type(error).__name__}); nothing was kept, try again"
        return Problem(503, "unavailable", detail, retry_header(RETRY_AFTER))
    return _internal(error)


def _internal(error: Exception) -> Problem:
    number = uuid7()
    expected = isinstance(error, EyelineError)
    log.error(
        "request failed", id=number, error=str(error), kind=type(error).__name__, exc_info=None if expected else error
    )
    return Problem(500, "internal", f"something broke here; the log names it by the id {number}", extra={"id": number})


def retry_header(seconds: float) -> tuple[tuple[bytes, bytes], ...]:
    """`Retry-After` in whole seconds, at least one."""
    return ((b"retry-after", str(max(1, math.ceil(seconds))).encode()),)


def _challenge(status: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"www-authenticate", b'Bearer realm="eyeline"'),) if status == 401 else ()
