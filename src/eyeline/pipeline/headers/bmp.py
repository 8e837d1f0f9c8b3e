"""BMP headers."""

import struct

from eyeline.pipeline.headers.base import Header, corrupt, truncated

_USED = 46  # where the number of colours lies


def read(data: bytes) -> Header:
    """The header of a BMP file. Raises BadImage (truncated, corrupt)."""
    if len(data) < 26:
        raise truncated("the BMP header")
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        used = 0
    elif header_size >= 40:
        if len(data) < _USED + 4:
            raise truncated("the BMP header")
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        (used,) = struct.unpack_from("<I", data, _USED)
    else:
        raise corrupt(f"a BMP whose header has {header_size} bytes")
    height = abs(height)  # negative: rows from the top
    if width <= 0 or not height:
        raise corrupt(f"a BMP of {width} × {height} pixels")
    return Header("bmp", width, height, colors=(used or 1 << bits) if bits <= 8 else None)


def with_full_table(data: bytes) -> bytes:
    """The same BMP, said to have as many colours as its pixels can name: Pillow takes a table of just black and white as
    if each pixel were one bit, and shows a black picture where it has four or eight.
    """
    start, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12 or start == 14 + header_size:
        return data
    return data[:_USED] + bytes(4) + data[_USED + 4 :]
