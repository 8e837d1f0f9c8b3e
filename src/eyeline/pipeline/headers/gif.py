"""GIF headers: the canvas, grown by a first frame that reaches beyond it."""

import struct

from eyeline.pipeline.headers.base import Header, corrupt, truncated

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def read(data: bytes) -> Header:
    """The header of a GIF file; looks one frame far, never further. Raises BadImage (truncated, corrupt)."""
    if len(data) < 13:
        raise truncated("the GIF header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    table = _table_bytes(flags)
    at = _next_image(data, 13 + table)
    if at is None:
        raise corrupt("a GIF without a picture")
    if at + 10 > len(data):
        raise truncated("the GIF's first frame")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    if not frame_width or not frame_height:
        raise corrupt(f"a GIF whose first frame has {frame_width} × {frame_height} pixels")
    own = _table_bytes(flags)
    after = _skip_blocks(data, at + 11 + own)
    more = after is not None and _next_image(data, after) is not None
    right, bottom = left + frame_width, top + frame_height
    window = (left, top, right, bottom)
    covers = not left and not top and right >= width and bottom >= height
    free = None if covers else window
    return Header("gif", max(width, right), max(height, bottom), 1, more, colors=(own or table) // 3, window=free)


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _next_image(data: bytes, at: int) -> int | None:
    """The offset of the next frame, extensions skipped; None at the trailer or at the end."""
    while at < len(data) and data[at] == _EXTENSION:
        after = _skip_blocks(data, at + 2)
        if after is None:
            return None
        at = after
    return at if at < len(data) and data[at] == _IMAGE else None


def _skip_blocks(data: bytes, at: int) -> int | None:
    """The offset after a run of sub-blocks; None where the file ends before."""
    while at < len(data):
        size = data[at]
        at += 1 + size
        if not size:
            return at
    return None
