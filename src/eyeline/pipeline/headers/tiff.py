"""TIFF headers (classic and BigTIFF): the first page, its tile sizes, and what its samples mean."""

import struct
from collections.abc import Mapping
from typing import NamedTuple

from eyeline.core.errors import TooLarge
from eyeline.pipeline.headers.base import Header, corrupt, truncated, unsupported

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274
_SAMPLES, _COLOR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 277, 320, 322, 323, 339
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}
_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_MAX_ENTRIES = 4096
_MAX_TILE_PIXELS = 50_000_000


class Tag(NamedTuple):
    """A tag's first value, where it lies, its size in bytes, and how many there are."""

    value: int
    at: int
    size: int
    values: int


def read(data: bytes) -> Header:
    """The header of a TIFF file. Raises BadImage (truncated, corrupt, unsupported_format) or TooLarge (tiles)."""
    try:
        tags, more = _first_page(data)
    except struct.error as error:
        raise truncated("the TIFF header") from error
    width, height = _value(tags, _WIDTH), _value(tags, _HEIGHT)
    if not width or not height:
        raise corrupt(f"a TIFF of {width} × {height} pixels")
    tile = _value(tags, _TILE_WIDTH) * _value(tags, _TILE_HEIGHT)
    if tile > _MAX_TILE_PIXELS:
        raise TooLarge(f"a TIFF with tiles of {tile} pixels; write tiles of 256 × 256")
    turn = tags.get(_ORIENTATION)
    known = turn is not None and 1 <= turn.value <= 8
    return Header(
        "tiff",
        width,
        height,
        turn.value if turn and known else 1,
        more,
        _color(tags),
        _colors(tags),
        (turn.at, turn.size) if turn else None,
    )


def _color(tags: Mapping[int, Tag]) -> str:
    """`grey16`/`grey12` and `…-inverted` for deep grey, which has to be scaled by hand; else empty."""
    bits, samples = _value(tags, _BITS, 1), _value(tags, _SAMPLES, 1)
    if _value(tags, _SAMPLE_FORMAT, 1) not in {1, 4} or bits > 16:
        raise unsupported(f"a TIFF of signed, floating-point or {bits}-bit samples")
    if samples == 1 and bits > 8:
        return f"grey{bits}" + ("-inverted" if _value(tags, _PHOTOMETRIC, 1) == 0 else "")
    return ""


def _colors(tags: Mapping[int, Tag]) -> int | None:
    palette = _value(tags, _PHOTOMETRIC) == 3 and _value(tags, _SAMPLES, 1) == 1
    return tags[_COLOR_MAP].values // 3 if palette and _COLOR_MAP in tags else None


def _value(tags: Mapping[int, Tag], tag: int, default: int = 0) -> int:
    return tags[tag].value if tag in tags else default


def _first_page(data: bytes) -> tuple[dict[int, Tag], bool]:
    """The tags of the first page, and whether another page follows."""
    order = "<" if data[:2] == b"II" else ">"
    (magic,) = struct.unpack_from(order + "H", data, 2)
    big = magic == 43
    if big and order == ">":
        raise unsupported("a big-endian BigTIFF")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if count > _MAX_ENTRIES:
        raise corrupt(f"a TIFF page of {count} tags")
    entries = start + (8 if big else 2)
    step = 20 if big else 12
    tags = dict(filter(None, (_tag(data, order, big, entries + step * index) for index in range(count))))
    return tags, _has_next(data, order, big, entries + step * count)


def _tag(data: bytes, order: str, big: bool, at: int) -> tuple[int, Tag] | None:
    tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
    if kind not in _SIZES or not count:
        return None
    inline, room = (at + 12, 8) if big else (at + 8, 4)
    where = inline
    if count * _SIZES[kind] > room:
        (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, inline)
    if where + _SIZES[kind] > len(data):
        return None
    (value,) = struct.unpack_from(order + _CODES[kind], data, where)
    return tag, Tag(int(value), where, _SIZES[kind], count)


def _has_next(data: bytes, order: str, big: bool, at: int) -> bool:
    code = order + ("Q" if big else "I")
    return at + struct.calcsize(code) <= len(data) and bool(struct.unpack_from(code, data, at)[0])
