"""multipart/x-mixed-replace, as cameras send motion JPEG: bytes in, parts out, with limits. Pure.

Cameras disagree about the details: the boundary is announced with or without its dashes, Content-Length is there or not
and sometimes wrong. A part ends where its length says so and a boundary follows, else at the next boundary.
"""

import re
from collections.abc import Iterator, Mapping
from email.message import Message

from eyeline.core.errors import CameraError

LONGEST_HEAD = 8192
LARGEST_PART = 25_000_000
#: What may stand between two parts beside line ends.
MOST_FILLING = 8192


class Parts:
    """Takes chunks as they come and gives whole parts: (headers by lower-case name, body)."""

    def __init__(self, boundary: str, largest: int = LARGEST_PART) -> None:
        self._mark = b"--" + boundary.removeprefix("--").encode("latin-1")
        self._largest = largest
        self._buffer = bytearray()
        self._headers: dict[str, str] | None = None
        self._searched = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[Mapping[str, str], bytes]]:
        """The parts that this chunk completes. Raises CameraError for one over the limits."""
        self._buffer += chunk
        while True:
            if self._headers is None and not self._head():
                return
            body = self._body()
            if body is None:
                return
            headers, self._headers, self._searched = self._headers or {}, None, 0
            yield headers, body

    def _head(self) -> bool:
        """Read a boundary and the headers behind it. Whether they are there already."""
        start = self._buffer.find(self._mark)
        if start < 0:
            if len(self._buffer) > MOST_FILLING:
                raise CameraError(f"{len(self._buffer)} bytes without the boundary {self._mark!r}: no motion JPEG")
            return False
        head = re.compile(rb"\r?\n\r?\n").search(self._buffer, start)
        if head is None:
            if len(self._buffer) - start > LONGEST_HEAD:
                raise CameraError(f"the headers of a picture are over {LONGEST_HEAD} bytes")
            return False
        lines = bytes(self._buffer[start + len(self._mark) : head.start()]).decode("latin-1").splitlines()
        self._headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        del self._buffer[: head.end()]
        return True

    def _body(self) -> bytes | None:
        length = self._length()
        if length is not None and len(self._buffer) < length + 2 + len(self._mark):
            return None
        end = length if length is not None and self._boundary_follows(length) else self._next_boundary()
        if end is None:
            return None
        body = bytes(self._buffer[:end])
        del self._buffer[:end]
        return body

    def _length(self) -> int | None:
        text = (self._headers or {}).get("content-length", "")
        if not text.isdecimal() or self._searched:
            return None
        if int(text) > self._largest:
            raise CameraError(f"the camera announces a picture of {int(text):,} bytes; {self._largest:,} are the most")
        return int(text)

    def _boundary_follows(self, end: int) -> bool:
        return bytes(self._buffer[end : end + 4 + len(self._mark)]).lstrip(b"\r\n").startswith(self._mark)

    def _next_boundary(self) -> int | None:
        found = self._buffer.find(self._mark, self._searched)
        if found < 0:
            if len(self._buffer) > self._largest:
                raise CameraError(f"a picture is over {self._largest:,} bytes")
            self._searched = max(1, len(self._buffer) - len(self._mark))
            return None
        line_end = 2 if self._buffer[:found].endswith(b"\r\n") else int(self._buffer[:found].endswith(b"\n"))
        return found - line_end


def boundary_of(content_type: str) -> str:
    """The boundary in a Content-Type. Raises CameraError where there is none."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise CameraError(f"the camera sends {content_type!r} without a boundary; use another address of it")
    return boundary
