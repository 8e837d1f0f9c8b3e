"""JPEG headers: size, colour, orientation, and the number of scans, by walking segments."""

import struct

from eyeline.core.errors import BadImage
from eyeline.pipeline.headers import exif
from eyeline.pipeline.headers.base import Header, corrupt, truncated, unsupported

#: A scan costs a pass over all blocks and may be a few bytes long: 800 of them in 68 kB take 7 s.
#: Ordinary progressive files have 12 or fewer, 20 was the most found in good ones.
MAX_SCANS = 100

_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_DECODED = {0xC0: "sequential", 0xC1: "sequential", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "arithmetic"}
_SOS, _EOI, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2
_STANDALONE = {0x01, *range(0xD0, 0xD9)}


def read(data: bytes) -> Header:
    """The header of a JPEG file. Raises BadImage (truncated, corrupt, unsupported_format, too_many_scans)."""
    at, turn, frames_ignored = 2, 0, False
    frame: tuple[int, int, int, int] | None = None
    while True:
        marker, at = _marker(data, at)
        if marker in _STANDALONE:
            continue
        if marker == _EOI:
            raise corrupt("a JPEG without picture data")
        end = _end_of_segment(data, at)
        if marker in _FRAME:
            if frame is not None:
                raise corrupt("a JPEG with two frame headers")
            frame = _frame(marker, data[at + 2 : end])
        elif marker == _APP1 and not turn and data[at + 2 : at + 8] == b"Exif\x00\x00":
            turn = exif.orientation(data[at + 2 : end])
        elif marker == _APP2 and data[at + 2 : at + 6] == b"MPF\x00":
            frames_ignored = True
        elif marker == _SOS:
            break
        at = end
    if frame is None:
        raise corrupt("a JPEG whose picture data come before its frame header")
    kind, width, height, components = frame
    if kind in {0xC2, 0xCA} or data[at + 2 : at + 3] != bytes([components]):
        _check_scans(data, end)
    color = {1: "grey", 3: "color", 4: "cmyk"}[components]
    return Header("jpeg", width, height, turn or 1, frames_ignored, color)


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """The marker at `at` (fill bytes skipped) and the offset after it."""
    if data[at : at + 1] not in {b"\xff", b""}:
        raise corrupt(f"a JPEG with no marker at byte {at}")
    while data[at : at + 1] == b"\xff":
        at += 1
    if at >= len(data):
        raise truncated("the JPEG header")
    return data[at], at + 1


def _end_of_segment(data: bytes, at: int) -> int:
    if at + 2 > len(data):
        raise truncated("the JPEG header")
    length = data[at] << 8 | data[at + 1]
    if length < 2:
        raise corrupt(f"a JPEG segment of length {length} at byte {at}")
    if at + length > len(data):
        raise truncated("the JPEG header")
    return at + length


def _frame(marker: int, segment: bytes) -> tuple[int, int, int, int]:
    if len(segment) < 6:
        raise corrupt("a JPEG frame header that is too short")
    precision, height, width, components = struct.unpack_from(">BHHB", segment)
    if marker not in _DECODED:
        raise unsupported(f"a lossless or hierarchical JPEG (marker FF{marker:02X})")
    if precision != 8:
        raise unsupported(f"a JPEG of {precision} bits")
    if components not in {1, 3, 4}:
        raise unsupported(f"a JPEG of {components} components")
    if not width or not height:
        raise corrupt(f"a JPEG of {width} × {height} pixels")
    return marker, width, height, components


def _check_scans(data: bytes, at: int) -> None:
    """Count scans up to the end of the picture; the cheap upper bound settles nearly all files."""
    if data.count(b"\xff\xda", at) < MAX_SCANS:
        return
    scans = 1
    while scans <= MAX_SCANS:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data) or data[at + 1] == _EOI:
            return
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0 or marker in _STANDALONE:
            at += 2
        else:
            scans += marker == _SOS
            at = _end_of_segment(data, at + 2)
    raise BadImage(f"a JPEG of more than {MAX_SCANS} scans; save it again as an ordinary JPEG", code="too_many_scans")
