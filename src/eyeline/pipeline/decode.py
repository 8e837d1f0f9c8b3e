"""Bytes to pixels: one decoder policy for everything that enters (docs/preprocessing.md).

Format by magic bytes · size limits from the header, before any pixel · JPEG by libjpeg-turbo, at 1/2, 1/4 or 1/8 where a
model needs no more · all else by Pillow with an allow-list · EXIF orientation applied once · deep samples scaled by their
declared depth · alpha over white · colour profiles ignored · the first frame · what is truncated or fails a checksum is refused.
"""

import io
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from eyeline.core.errors import BadImage, InputError, TooLarge
from eyeline.core.types import Pixels
from eyeline.pipeline import headers
from eyeline.pipeline.geometry import Region, grey_to_rgb, upright
from eyeline.pipeline.headers.base import Header, corrupt, unsupported
from eyeline.pipeline.headers.bmp import with_full_table
from eyeline.pipeline.headers.png import essential, pixel_stream_is_whole

MAX_PIXELS = 50_000_000
MAX_BYTES = 25_000_000
MAX_SIDE = 65_535
#: What transparent parts show, as on a white page.
BACKGROUND = (255, 255, 255)

Exif = Literal["apply", "ignore"]

# Sizes are checked from our own reading of the header, and Pillow's reading must agree with it (`_open`) before it
# decodes; its own limit would only warn where ours refuses.
Image.MAX_IMAGE_PIXELS = None

_PILLOW_NAMES = {
    "jpeg": ("JPEG", "MPO"), "png": ("PNG",), "webp": ("WEBP",), "gif": ("GIF",), "bmp": ("BMP",),
    "tiff": ("TIFF",), "avif": ("AVIF",), "heic": ("HEIF",),
}  # fmt: skip
_BAND_PIXELS = 1 << 20
_ALPHA_MODES = {"RGBA", "LA", "PA", "RGBa", "La"}


@dataclass(frozen=True)
class ProbedImage:
    """What the header says. `width` and `height` are upright; `orientation` is EXIF's 1..8."""

    width: int
    height: int
    format: str
    frames_ignored: bool
    orientation: int


@dataclass(frozen=True)
class Decoded:
    """`pixels`: upright RGB uint8 [h, w, 3], contiguous, perhaps smaller than the upright original's `width` × `height`."""

    pixels: Pixels
    width: int
    height: int
    format: str
    frames_ignored: bool

    @property
    def region(self) -> Region:
        """What the pixels show, for `place` and `crop`: all of the original."""
        return Region.whole(self.width, self.height)


def probe(
    data: bytes | bytearray | memoryview, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> ProbedImage:
    """Format, upright size and limits from the header alone, in microseconds; nothing is decoded.

    Raises BadImage (codes empty, not_an_image, unsupported_format, truncated, corrupt, too_many_scans) or TooLarge.
    """
    header = _header(bytes(data), max_pixels, max_bytes)
    width, height = header.upright
    return ProbedImage(width, height, header.format, header.frames_ignored, header.orientation)


def decode(
    data: bytes | bytearray | memoryview,
    *,
    at_least: tuple[int, int] | None = None,
    exif: Exif = "apply",
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Decoded:
    """The first picture in `data` as upright RGB.

    at_least: (height, width) of the upright image that the result must reach; a JPEG may then come at 1/2, 1/4 or 1/8 of
    its size. None: full size. exif "ignore": orientation counts as 1. Raises BadImage (as `probe`, and bad_crc) or
    TooLarge; never answers with a picture that is partly missing.
    """
    blob = bytes(data)
    header = _header(blob, max_pixels, max_bytes)
    turn = header.orientation if exif == "apply" else 1
    width, height = header.upright if exif == "apply" else (header.width, header.height)
    if header.format == "jpeg" and header.color != "cmyk":
        needed = at_least if turn < 5 or at_least is None else (at_least[1], at_least[0])
        stored = _jpeg(blob, header, needed)
    else:
        stored = _by_pillow(blob, header)
    pixels = np.ascontiguousarray(upright(stored, turn))
    return Decoded(pixels, width, height, header.format, header.frames_ignored)


def _header(data: bytes, max_pixels: int, max_bytes: int) -> Header:
    if len(data) > max_bytes:
        raise TooLarge(f"{len(data):,} bytes; at most {max_bytes:,} are accepted")
    header = headers.read(data)
    if header.width * header.height > max_pixels or max(header.width, header.height) > MAX_SIDE:
        raise TooLarge(
            f"{header.width} × {header.height} pixels; at most {max_pixels:,} in all and {MAX_SIDE:,} on a side"
        )
    return header


def _jpeg(data: bytes, header: Header, at_least: tuple[int, int] | None) -> Pixels:
    height, width = _scaled(header, at_least)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=height, min_width=width, min_factor=1, strict=True
        )
    except ValueError as error:
        raise _refusal("jpeg", error) from error
    if at_least is None and pixels.shape[:2] != (header.height, header.width):
        raise BadImage(f"a JPEG that decodes to {pixels.shape[:2]}, not its declared size", code="corrupt")
    return pixels


def _scaled(header: Header, at_least: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) to ask libjpeg-turbo for, 0 for full; only factors that it does with SIMD pay."""
    if at_least is not None:
        for factor in (8, 4, 2):
            height, width = -(-header.height // factor), -(-header.width // factor)
            if height >= at_least[0] and width >= at_least[1]:
                return height, width
    return 0, 0


def _by_pillow(data: bytes, header: Header) -> Pixels:
    if header.format == "png":
        data = essential(data)
    elif header.format == "bmp":
        data = with_full_table(data) if header.colors in {1, 2} else data
    elif header.orientation_at is not None:
        data = _turned_off(data, header)
    try:
        with _open(data, header) as image:
            image.load()
            if header.format == "png":
                _check_whole(image, data, header)
            if header.colors is not None:
                _check_palette(image, header.format, header.colors)
            return _on_canvas(_in_bands(image, header), header)
    except InputError:
        raise
    except MemoryError as error:
        raise TooLarge(f"no memory for {header.width} × {header.height} pixels of {header.format}") from error
    except Exception as error:  # Pillow's readers raise whatever broken bytes lead them to
        raise _refusal(header.format, error) from error


def _open(data: bytes, header: Header) -> Image.Image:
    """Pillow's image, once it agrees with the header; nothing is decoded yet."""
    if header.format == "heic":
        _register_heif()
    image = Image.open(io.BytesIO(data), formats=_PILLOW_NAMES[header.format])
    image.info.pop("xmp", None)  # an orientation that stands only in XMP is not applied
    if image.size != (header.width, header.height):
        raise BadImage(
            f"the {header.format} header says {header.width} × {header.height}, its reader {image.width} × {image.height}",
            code="corrupt",
        )
    return image


def _register_heif() -> None:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadImage("HEIC needs an extra: pip install 'eyeline[heif]'", code="unsupported_format") from error
    pillow_heif.register_heif_opener()


def _turned_off(data: bytes, header: Header) -> bytes:
    """A TIFF whose orientation says 1, so that Pillow does not turn it as well."""
    at, size = header.orientation_at or (0, 0)
    patched = bytearray(data)
    patched[at : at + size] = (1).to_bytes(size, "little" if data[:2] == b"II" else "big")
    return bytes(patched)


def _check_whole(image: Image.Image, data: bytes, header: Header) -> None:
    """Pillow takes a PNG whose compressed pixels end early; the rows that are missing are zero.

    A last row that is not zero was written, and rows are written in order (but for interlaced files).
    """
    interlaced = data[28] == 1
    last = image.crop((0, image.height - 1, image.width, image.height)).tobytes()
    if (interlaced or not any(last)) and not pixel_stream_is_whole(data, header):
        raise BadImage("a PNG whose pixels end early; send it whole", code="truncated")


def _check_palette(image: Image.Image, name: str, colors: int) -> None:
    """A pixel of a colour that the palette does not have would be black to one reader and anything to another."""
    counts = image.histogram()
    if name == "gif" and "transparency" in image.info:
        counts[image.info["transparency"]] = 0  # no colour, so it needs none
    highest = max((index for index, count in enumerate(counts) if count), default=0)
    if image.mode == "1":
        highest = min(highest, 1)  # a table of black and white: Pillow gives what it says
    if highest >= colors:
        raise corrupt(f"a {name.upper()} with colour {highest} of a palette that has {colors}, counted from 0")


def _in_bands(image: Image.Image, header: Header) -> Pixels:
    """The whole picture as RGB, a few rows at a time: conversions of 50 megapixels at once would need a gigabyte."""
    out = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        out[top:bottom] = _rgb(image.crop((0, top, image.width, bottom)), header)
    return out


def _rgb(image: Image.Image, header: Header) -> Pixels:
    """The declared policy for every mode that Pillow's readers give."""
    if header.format == "tiff" and header.color.startswith("grey"):
        return _deep_grey(np.asarray(image), header.color)
    if image.mode.startswith("I;16"):
        return _deep_grey(np.asarray(image), "grey16")
    if image.mode in {"I", "F"}:
        raise unsupported(f"a {header.format} of 32-bit samples")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _over_background(image.convert("RGBA"))
    if image.mode in {"1", "L"}:
        return grey_to_rgb(np.asarray(image.convert("L")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _on_canvas(pixels: Pixels, header: Header) -> Pixels:
    """What a GIF's first frame leaves free of its canvas shows the background."""
    if header.window is None:
        return pixels
    left, top, right, bottom = header.window
    page = np.full_like(pixels, BACKGROUND)
    page[top:bottom, left:right] = pixels[top:bottom, left:right]
    return page


def _deep_grey(samples: NDArray[Any], color: str) -> Pixels:
    """Grey of more than 8 bits, scaled by its declared depth: full scale becomes 255."""
    bits = int(color.removeprefix("grey").removesuffix("-inverted"))
    grey = (samples.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    return grey_to_rgb(255 - grey if color.endswith("-inverted") else grey)


def _over_background(image: Image.Image) -> Pixels:
    page = Image.new("RGB", image.size, BACKGROUND)
    page.paste(image, mask=image.getchannel("A"))
    return np.asarray(page)


#: How Pillow names what it was given: an address in this process, which is nobody's business and never the same twice.
_OBJECT = re.compile(r"image file <[^>]*>")


def _refusal(name: str, error: Exception) -> BadImage:
    """A reader's complaint in our words; `truncated` where it says so."""
    text = _OBJECT.sub("its structure", str(error))[:200] or type(error).__name__
    ended = any(word in text.lower() for word in ("truncated", "premature", "end of file", "unexpected end"))
    return BadImage(f"the {name} cannot be decoded: {text}", code="truncated" if ended else "corrupt")
