"""The one thing read from EXIF: orientation. Anything broken or odd counts as upright; it never refuses a good picture."""

import struct

ORIENTATION_TAG = 0x0112
_MAX_ENTRIES = 512
_PREFIX = b"Exif\x00\x00"


def orientation(block: bytes) -> int:
    """1..8 from an EXIF block (with or without its Exif prefix); 1 where it is absent, broken or out of range."""
    tiff = block.removeprefix(_PREFIX)
    try:
        return _from_tiff(tiff)
    except struct.error:
        return 1


def _from_tiff(tiff: bytes) -> int:
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for index in range(min(count, _MAX_ENTRIES)):
        tag, kind, number, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * index)
        if tag == ORIENTATION_TAG:
            good = kind == 3 and number == 1 and 1 <= value <= 8
            return int(value) if good else 1
    return 1
