"""What may be given to `submit`: a path, bytes, a URL, or an array of pixels with its colour order stated."""

import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import msgspec

from eyeline_client.errors import BadImage

if TYPE_CHECKING:  # an array can only come from someone who has NumPy; nobody else needs it
    import numpy as np
    from numpy.typing import NDArray

Color = Literal["rgb", "bgr", "gray"]
Source: TypeAlias = "str | PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8]"

BINARY, JSON = "application/octet-stream", "application/json"
LEVEL = 1  # of zlib: the network is near, time is dear


def body_of(image: Source, color: Color | None) -> tuple[str, bytes]:
    """Content type and body of the request. Reads files and packs pixels: call it in a thread where that matters."""
    if color is not None and not hasattr(image, "dtype"):
        raise BadImage(f"color={color!r} is said of pixels; a {type(image).__name__} is a file, a URL or encoded bytes")
    if isinstance(image, bytes | bytearray | memoryview):
        return BINARY, _not_empty(bytes(image))
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return JSON, msgspec.json.encode({"url": image})
    if isinstance(image, str | PathLike):
        return BINARY, _not_empty(_read(Path(image)))
    return BINARY, png(image, color)


def png(pixels: "NDArray[np.uint8]", color: Color | None) -> bytes:
    """Pixels as PNG, without loss. Raises BadImage where they are not uint8 of the shape that `color` says."""
    _check(pixels, color)
    pixels = pixels[..., ::-1] if color == "bgr" else pixels
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    less = rows.copy()
    less[1:] -= rows[:-1]  # each row as its difference to the one above (PNG's filter 2): packs well, wraps as it must
    lines = b"".join(b"\x02" + line.tobytes() for line in less)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if color == "gray" else 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines, LEVEL)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _check(pixels: "NDArray[np.uint8]", color: Color | None) -> None:
    if not hasattr(pixels, "dtype") or not hasattr(pixels, "shape"):
        raise BadImage(f"a {type(pixels).__name__} cannot be sent; give a path, bytes, a URL or an array of pixels")
    if color not in get_args(Color):
        known = ", ".join(get_args(Color))
        raise BadImage(f"color={color!r}: say how the pixels are ordered ({known}); OpenCV gives bgr, Pillow rgb")
    shape = "[height, width]" if color == "gray" else "[height, width, 3]"
    fits = pixels.ndim == (2 if color == "gray" else 3) and (color == "gray" or pixels.shape[2] == 3)
    if str(pixels.dtype) != "uint8" or not fits or not pixels.size:
        raise BadImage(f"{color} pixels must be uint8 {shape}, not {pixels.dtype} {list(pixels.shape)}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path} cannot be read: {error.strerror or error}") from error


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise BadImage("the image is empty (0 bytes); nothing was sent")
    return data
