"""AVIF and HEIC headers: size and turning from the property boxes of the primary item's container."""

import struct

from eyeline.pipeline.headers.base import Header, corrupt, truncated

_MAX_BOXES = 10_000
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc"}
#: (irot quarter turns anticlockwise, imir axis or None) → EXIF orientation.
_TURNS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (0, 1): 2, (1, 0): 5, (1, 1): 7, (2, 0): 2, (2, 1): 4, (3, 0): 7, (3, 1): 5,
}  # fmt: skip


def kind_of(data: bytes) -> str | None:
    """Avif or heic by the brands of the `ftyp` box, the main one first; None for any other file of boxes."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    for at in (8, *range(16, end - 3, 4)):
        if data[at : at + 4] in _AVIF_BRANDS:
            return "avif"
        if data[at : at + 4] in _HEIC_BRANDS:
            return "heic"
    return None


def read(data: bytes) -> Header:
    """The header of an AVIF or HEIC file. Raises BadImage (truncated, corrupt)."""
    properties = _find(data, 0, len(data), (b"meta", b"iprp", b"ipco"))
    if properties is None:
        raise truncated("the header") if len(data) < 64 else corrupt("an AVIF or HEIC file without image properties")
    sizes: list[tuple[int, int]] = []
    turn, mirror, aperture = 0, None, None
    for kind, start, end in _boxes(data, *properties):
        if kind == b"ispe" and end - start >= 12:
            sizes.append(struct.unpack_from(">II", data, start + 4))
        elif kind == b"irot" and end > start:
            turn = data[start] & 3
        elif kind == b"imir" and end > start:
            mirror = data[start] & 1
        elif kind == b"clap" and end - start >= 16:
            aperture = _aperture(data, start)
    if not sizes or not all(sizes[0]):
        raise corrupt("an AVIF or HEIC file without a size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    if kind_of(data) == "avif":
        return Header("avif", width, height, _TURNS[turn, mirror], data[8:12] == b"avis")
    width, height = aperture or (width, height)
    if _TURNS[turn, mirror] >= 5:
        width, height = height, width
    return Header("heic", width, height)  # its reader crops and turns by itself


def _aperture(data: bytes, at: int) -> tuple[int, int] | None:
    """(width, height) that a clean aperture leaves; None where it makes no sense."""
    wide, wide_by, tall, tall_by = struct.unpack_from(">IIII", data, at)
    return (wide // wide_by, tall // tall_by) if wide_by and tall_by and wide and tall else None


def _find(data: bytes, start: int, end: int, path: tuple[bytes, ...]) -> tuple[int, int] | None:
    for kind, begin, stop in _boxes(data, start, end):
        if kind == path[0]:
            inner = begin + 4 if kind == b"meta" else begin  # a full box: version and flags first
            return (inner, stop) if len(path) == 1 else _find(data, inner, stop, path[1:])
    return None


def _boxes(data: bytes, at: int, end: int) -> list[tuple[bytes, int, int]]:
    """(kind, start, end) of the boxes' contents between `at` and `end`, as far as they are whole."""
    found: list[tuple[bytes, int, int]] = []
    while at + 8 <= end and len(found) < _MAX_BOXES:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and start + 8 <= end:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if size == 0 else at + size
        if stop > end or stop < start:
            break
        found.append((kind, start, stop))
        at = stop
    return found
