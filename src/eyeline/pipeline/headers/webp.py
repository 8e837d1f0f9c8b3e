"""WebP headers: canvas size, orientation, animation."""

import struct

from eyeline.pipeline.headers import exif
from eyeline.pipeline.headers.base import Header, corrupt, truncated

_MAX_CHUNKS = 100_000
_EXIF_FLAG, _ANIMATION_FLAG = 0x08, 0x02


def read(data: bytes) -> Header:
    """The header of a WebP file. Raises BadImage (truncated, corrupt)."""
    if len(data) < 30:
        raise truncated("the WebP header")
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise truncated("the WebP file")
    kind = data[12:16]
    if kind == b"VP8X":
        return _extended(data)
    if kind == b"VP8L":
        return _lossless(data)
    if kind == b"VP8 ":
        return _lossy(data)
    raise corrupt(f"a WebP that begins with the chunk {kind!r}")


def _lossy(data: bytes) -> Header:
    if data[23:26] != b"\x9d\x01\x2a":
        raise corrupt("a WebP whose first frame is no key frame")
    width, height = struct.unpack_from("<HH", data, 26)
    return _checked(width & 0x3FFF, height & 0x3FFF)


def _lossless(data: bytes) -> Header:
    if data[20] != 0x2F:
        raise corrupt("a lossless WebP without its signature")
    (bits,) = struct.unpack_from("<I", data, 21)
    return _checked((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)


def _extended(data: bytes) -> Header:
    flags = data[20]
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    turn = exif.orientation(_chunk(data, b"EXIF")) if flags & _EXIF_FLAG else 1
    return _checked(width, height, turn, bool(flags & _ANIMATION_FLAG))


def _checked(width: int, height: int, turn: int = 1, animated: bool = False) -> Header:
    if not width or not height:
        raise corrupt(f"a WebP of {width} × {height} pixels")
    return Header("webp", width, height, turn, animated)


def _chunk(data: bytes, wanted: bytes) -> bytes:
    """The payload of the first chunk of that kind, at most 64 kB; empty where there is none."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == wanted:
            return data[at + 8 : at + 8 + min(size, 65_536)]
        at += 8 + size + (size & 1)
    return b""
