"""Headers: what an image's first bytes say, told by magic bytes alone. One line for each format; no pixel is decoded here."""

import struct
from collections.abc import Callable

from eyeline.core.errors import BadImage
from eyeline.pipeline.headers import avif, bmp, gif, jpeg, png, tiff, webp
from eyeline.pipeline.headers.base import Header, corrupt

_READERS: dict[str, Callable[[bytes], Header]] = {
    "jpeg": jpeg.read,
    "png": png.read,
    "webp": webp.read,
    "gif": gif.read,
    "bmp": bmp.read,
    "tiff": tiff.read,
    "avif": avif.read,
    "heic": avif.read,
}
#: What people send by mistake, so that the refusal can name it.
_KNOWN_OTHERS = {
    b"%PDF": "a PDF",
    b"<svg": "an SVG",
    b"<?xm": "an XML or SVG file",
    b"%!PS": "a PostScript file",
    b"PK\x03\x04": "a ZIP archive",
    b"8BPS": "a Photoshop file",
    b"\x1f\x8b": "a gzip file",
    b"<htm": "an HTML page",
    b"<!DO": "an HTML page",
    b"RIFF": "a RIFF file that is no WebP",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 file",
    b"\x1aE\xdf\xa3": "a Matroska video",
    b"\x89HDF": "an HDF5 file",
    b"v/1\x01": "an OpenEXR file",
}


def sniff(data: bytes) -> str | None:
    """The format by magic bytes, never by a name: jpeg, png, webp, gif, bmp, tiff, avif, heic, or None."""
    head = data[:16]
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == png.SIGNATURE:
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in {b"GIF87a", b"GIF89a"}:
        return "gif"
    if head[:4] in {b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"}:
        return "tiff"
    if head[:2] == b"BM":
        return "bmp"
    if head[4:8] == b"ftyp":
        return avif.kind_of(data)
    return None


def read(data: bytes) -> Header:
    """The header of an image. Raises BadImage (empty, not_an_image, unsupported_format, truncated, corrupt …) or TooLarge."""
    if not data:
        raise BadImage("an empty body; send the bytes of an image", code="empty")
    name = sniff(data)
    if name is not None:
        try:
            return _READERS[name](data)
        except (struct.error, IndexError, OverflowError) as error:  # a length or an offset that leads out of the file
            raise corrupt(f"a {name} whose header points beyond its end") from error
    for magic, what in _KNOWN_OTHERS.items():
        if data[: len(magic)].lower() == magic.lower():
            raise BadImage(f"{what} is no image that is decoded here; send JPEG, PNG or WebP", code="not_an_image")
    start = data[:8].hex(" ")
    raise BadImage(
        f"not an image: it begins with {start}; send JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF", code="not_an_image"
    )
