"""Barcodes and two-dimensional codes: pixels in, texts with their places out; and which box a code lies in.

The one file that knows ZXing-C++. An image is decoded whole for it: what is half the size has half as many pixels in each bar.
"""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
import zxingcpp

from eyeline.core.errors import ConfigError
from eyeline.core.types import Code, Detection, Pixels
from eyeline.pipeline.geometry import Region, resize, rgb_to_grey

#: Pixels that are read at most; a larger picture is made smaller. Noise of this size takes about 3 s, and a decoder child has 5.
MOST_PIXELS = 16_000_000
#: Codes of one picture that are kept; a sheet of labels has a few dozen.
MOST = 100
#: Characters of one code that are kept: the most that the largest QR code holds as digits.
LONGEST = 7089
#: What a zero byte is written as: no text column of PostgreSQL holds one.
_NUL = "\N{SYMBOL FOR NULL}"
_NO_KIND = ("NONE", "All", "Linear", "Matrix", "Other")


class CodesStep(msgspec.Struct, frozen=True):
    """Read codes. `on`: the step whose boxes they are tied to (None: those of every step before); no `formats`: all of them."""

    name: str
    on: str | None = None
    formats: tuple[str, ...] = ()


def known_formats() -> list[str]:
    """The names that `formats` may hold: `QRCode`, `EAN13` …"""
    return sorted(name for name in zxingcpp.BarcodeFormat.__members__ if not name.startswith(_NO_KIND))


def check_formats(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that no symbology has."""
    known = known_formats()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"no kind of barcode is called {name!r}{hint}; known: {', '.join(known)}")


def read(pixels: Pixels, region: Region, formats: Sequence[str] = ()) -> list[Code]:
    """The codes in `pixels` (RGB), boxes in pixels of the upright original; those that fail their checksum are no codes.

    From the top of the picture to its foot, each text of a kind once at each place.
    """
    # plain: exactly what the code holds, group separators too; the form for people puts brackets and symbols in
    wanted: dict[str, Any] = {"text_mode": zxingcpp.TextMode.Plain}
    if formats:
        wanted["formats"] = [zxingcpp.BarcodeFormat.__members__[name] for name in formats]
    grey = rgb_to_grey(_bounded(pixels))
    found = zxingcpp.read_barcodes(grey, **wanted)
    height, width = grey.shape
    scale = (region.width / width, region.height / height)
    codes = {_code(one, region, scale) for one in found if one.valid and one.text}
    return sorted(codes, key=lambda code: (code.box[1], code.box[0], code.text))[:MOST]


def _bounded(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    shrink = math.sqrt(MOST_PIXELS / (height * width))
    return pixels if shrink >= 1 else resize(pixels, max(1, int(width * shrink)), max(1, int(height * shrink)))


def tie(codes: Sequence[Code], detections: Sequence[Detection], on: str | None) -> None:
    """Write each code into the attributes of the smallest box (of step `on`; None: of any) in which its middle lies."""
    for code in codes:
        x, y = (code.box[0] + code.box[2]) / 2, (code.box[1] + code.box[3]) / 2
        around = [
            found
            for found in detections
            if (on is None or found.step == on)
            and found.box[0] <= x <= found.box[2]
            and found.box[1] <= y <= found.box[3]
        ]
        if around:
            attributes = min(around, key=_area).attributes
            entry = {"text": code.text, "format": code.format}
            attributes["codes"] = [*attributes.get("codes", []), entry]


def _code(found: Any, region: Region, scale: tuple[float, float]) -> Code:
    corners = [getattr(found.position, name) for name in ("top_left", "top_right", "bottom_right", "bottom_left")]
    across = [region.x + corner.x * scale[0] for corner in corners]
    down = [region.y + corner.y * scale[1] for corner in corners]
    box = (round(min(across), 2), round(min(down), 2), round(max(across), 2), round(max(down), 2))
    return Code(found.text[:LONGEST].replace("\0", _NUL), found.format.name, box)


def _area(found: Detection) -> float:
    return (found.box[2] - found.box[0]) * (found.box[3] - found.box[1])
