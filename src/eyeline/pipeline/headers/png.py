"""PNG headers and structure: chunk order, lengths and CRCs are checked; text and colour profiles are never inflated."""

import struct
import zlib

from eyeline.core.errors import BadImage
from eyeline.pipeline.headers import exif
from eyeline.pipeline.headers.base import Header, corrupt, truncated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_COLORS = {0: "grey", 2: "color", 3: "palette", 4: "grey-alpha", 6: "alpha"}
_KNOWN_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def read(data: bytes) -> Header:
    """The header of a PNG file, from the chunks before its pixels. Raises BadImage (truncated, corrupt)."""
    if len(data) < 33:
        raise truncated("the PNG header")
    length, kind, width, height, depth, color, compression, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    if kind != b"IHDR" or length != 13:
        raise corrupt("a PNG that does not begin with IHDR")
    if depth not in _DEPTHS.get(color, ()) or compression or filtering or interlace > 1:
        raise corrupt(f"a PNG of colour type {color} at {depth} bits, compression {compression}, interlace {interlace}")
    if not width or not height:
        raise corrupt(f"a PNG of {width} × {height} pixels")
    turn, animated, colors = _before_pixels(data, color)
    return Header("png", width, height, turn, animated, _COLORS[color], colors)


def _before_pixels(data: bytes, color: int) -> tuple[int, bool, int | None]:
    """(orientation, whether it is animated, colours of the palette). Raises BadImage where a palette is missing."""
    turn, animated, colors = 1, False, None
    at = 33
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            raise truncated("the PNG header")
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            break
        if kind == b"IEND":
            raise corrupt("a PNG without pixels (no IDAT)")
        if kind == b"eXIf":
            turn = exif.orientation(data[at + 8 : at + 8 + min(length, 65_536)])
        animated |= kind == b"acTL"
        if kind == b"PLTE" and color == 3:
            colors = length // 3
        at += 12 + length
    if color == 3 and colors is None:
        raise corrupt("a palette PNG without its palette (PLTE)")
    return turn, animated, colors


def essential(data: bytes) -> bytes:
    """The same PNG with only IHDR, PLTE, tRNS, IDAT and IEND: what follows cannot be made to inflate texts or profiles.

    Every chunk's CRC is checked. Raises BadImage (truncated, bad_crc, corrupt).
    """
    parts = [SIGNATURE]
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            raise truncated("a PNG chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise truncated(f"the PNG chunk {_shown(kind)}")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage(f"the PNG chunk {_shown(kind)} at byte {at} fails its checksum", code="bad_crc")
        if kind in _KNOWN_CRITICAL or kind == b"tRNS":
            parts.append(data[at:end])
        elif not kind[0] & 0x20:
            raise corrupt(f"a PNG with the unknown critical chunk {_shown(kind)}")
        if kind == b"IEND":
            return b"".join(parts)
        at = end
    raise corrupt(f"a PNG of more than {_MAX_CHUNKS} chunks")


def pixel_stream_is_whole(data: bytes, header: Header) -> bool:
    """Whether the compressed pixels of `essential` bytes inflate to all rows; inflates at most what the header declares."""
    expected = _inflated_size(data, header.width, header.height)
    inflater = zlib.decompressobj()
    total = 0
    try:
        for chunk in _pixel_chunks(data):
            rest = chunk
            while rest and total < expected:
                total += len(inflater.decompress(rest, 1 << 20))
                rest = inflater.unconsumed_tail
    except zlib.error:
        return False
    return total >= expected


def _pixel_chunks(data: bytes) -> list[bytes]:
    chunks = []
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            chunks.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return chunks


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _inflated_size(data: bytes, width: int, height: int) -> int:
    depth, color, interlace = data[24], data[25], data[28]
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    total = 0
    for x, y, step_x, step_y in passes:
        columns, rows = max(0, -(-(width - x) // step_x)), max(0, -(-(height - y) // step_y))
        if columns:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _shown(kind: bytes) -> str:
    return repr(kind)[2:-1]
