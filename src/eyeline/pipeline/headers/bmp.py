"""BMP headers."""

import struct

from eyeline.pipeline.headers.base import Header, corrupt, truncated


def read(data: bytes) -> Header:
    """The header of a BMP file. Raises BadImage (truncated, corrupt)."""
    if len(data) < 26:
        raise truncated("the BMP header")
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    elif header_size >= 40:
        width, height = struct.unpack_from("<ii", data, 18)
    else:
        raise corrupt(f"a BMP whose header has {header_size} bytes")
    height = abs(height)  # negative: rows from the top
    if width <= 0 or not height:
        raise corrupt(f"a BMP of {width} × {height} pixels")
    return Header("bmp", width, height)
