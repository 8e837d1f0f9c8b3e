"""Odd and broken images, made here byte by byte or by Pillow, each with what must come of it.

All good ones show the same picture: four quadrants of one colour each (grey ones: its grey, and so on), so that
a wrong turn, a clipped depth or a swapped colour is seen in the means of the quadrants.
"""

import base64
import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms

Array = NDArray[Any]
Quadrants = tuple[tuple[int, int, int], ...]

WIDTH, HEIGHT = 64, 48
COLORS: Quadrants = ((200, 40, 30), (40, 180, 60), (30, 60, 210), (220, 200, 90))
LOSSLESS, LOSSY = 2.0, 6.0
#: The picture with arithmetic coding, which no writer in Python makes (by libjpeg-turbo's jpegtran).
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoK"
    "CgoKBggLDAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK"
    "CgoKCgoKCgr/yQARCAAwAEADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AN2GMWIAyxlrE7QPvfAm1udmmrjE"
    "3K2++ZUAgF/njH3E7wTBoq7TmspZWYhm92/rpGv96CEOX/xZPzs+sXlIE0aGFpTqxlpc5Gvfk5Iecd11SEspERPS9EI3QP/Z"
)
TURNS: dict[int, Callable[[Array], Array]] = {  # EXIF orientation → what turns the upright picture into the stored one
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, *range(2, a.ndim)),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, *range(2, a.ndim)),
    8: lambda a: np.rot90(a, -1),
}


@dataclass(frozen=True)
class Odd:
    """`size` (width, height) and `quadrants` of a good one; `codes` of a refused one; neither: it may be either."""

    name: str
    data: bytes
    size: tuple[int, int] | None = None
    quadrants: Quadrants | None = None
    tolerance: float = LOSSLESS
    codes: tuple[str, ...] = ()
    frames_ignored: bool = False


def picture(width: int = WIDTH, height: int = HEIGHT, colors: Quadrants = COLORS) -> Array:
    """RGB uint8 [height, width, 3] of four quadrants."""
    out = np.empty((height, width, 3), np.uint8)
    out[: height // 2, : width // 2], out[: height // 2, width // 2 :] = colors[0], colors[1]
    out[height // 2 :, : width // 2], out[height // 2 :, width // 2 :] = colors[2], colors[3]
    return out


def srgb_profile() -> bytes:
    """An ICC profile."""
    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile


def grey_of(colors: Quadrants = COLORS) -> Quadrants:
    """The quadrants of Pillow's grey."""
    values = [int(np.asarray(Image.fromarray(picture(2, 2, (c,) * 4)).convert("L"))[0, 0]) for c in colors]
    return tuple((v, v, v) for v in values)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """`image` as a file of `kind`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block with one tag, without prefix."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("H2x" if kind == 3 else "I"), orientation)
    return head + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + b"\0\0\0\0"


def with_app(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with an APP segment after its first marker."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def chunk(kind: bytes, payload: bytes, *, crc: int | None = None) -> bytes:
    """A PNG chunk."""
    right = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", right if crc is None else crc)


def png(
    rows: bytes,
    width: int,
    height: int,
    depth: int,
    color: int,
    *,
    extra: bytes = b"",
    interlace: int = 0,
    tail: bytes | None = None,
) -> bytes:
    """A PNG of filtered rows."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    body = chunk(b"IDAT", zlib.compress(rows, 6))
    end = chunk(b"IEND", b"") if tail is None else tail
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body + end


def packed(samples: Array, depth: int) -> bytes:
    """PNG rows (filter 0) of samples [height, width, channels] at `depth` bits."""
    rows = []
    for row in samples.reshape(samples.shape[0], -1):
        if depth == 16:
            line = row.astype(">u2").tobytes()
        elif depth == 8:
            line = row.astype(np.uint8).tobytes()
        else:
            bits = ((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
            line = np.packbits(bits.ravel()).tobytes()
        rows.append(b"\0" + line)
    return b"".join(rows)


def adam7(samples: Array, depth: int) -> bytes:
    """Interlaced PNG rows."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    return b"".join(packed(samples[y::dy, x::dx], depth) for x, y, dx, dy in passes)


def tiff(
    samples: Array,
    *,
    photometric: int,
    bits: int,
    order: str = "<",
    tags: dict[int, tuple[int, int]] | None = None,
    big: bool = False,
    pages: int = 1,
) -> bytes:
    """An uncompressed TIFF of samples [height, width(, channels)], 8 or 16 bits; `tags`: number → (type, value) over it."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    body = samples.astype(f"{order}u{bits // 8}").tobytes()
    out = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8))
    )
    for page in range(pages):
        entries = {
            256: (4, width),
            257: (4, height),
            258: (3, bits),
            259: (3, 1),
            262: (3, photometric),
            273: (4, 0),
            277: (3, channels),
            278: (4, height),
            279: (4, len(body)),
            **(tags or {}),
        }
        start = len(out)
        directory = (8 + 20 * len(entries) + 8) if big else (2 + 12 * len(entries) + 4)
        extra = struct.pack(order + "HHHH", *[bits] * 4) if channels > 1 else b""
        data_at = start + directory + len(extra)
        following = data_at + len(body)
        table = struct.pack(order + ("Q" if big else "H"), len(entries))
        for tag, (kind, value) in sorted(entries.items()):
            count = channels if tag == 258 else 1
            number = data_at if tag == 273 else value
            if tag == 258 and channels > (4 if big else 2):
                field = struct.pack(order + ("Q" if big else "I"), start + directory)
            elif tag == 258:
                field = struct.pack(order + "H" * channels, *[bits] * channels).ljust(8 if big else 4, b"\0")
            else:
                field = struct.pack(order + ("H" if kind == 3 else "I"), number).ljust(8 if big else 4, b"\0")
            table += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + field
        last = page == pages - 1
        table += struct.pack(order + ("Q" if big else "I"), 0 if last else following)
        out += table + extra + body
    return out


def good(
    name: str,
    data: bytes,
    quadrants: Quadrants | None = COLORS,
    tolerance: float = LOSSLESS,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    *,
    more: bool = False,
) -> Odd:
    """One that must decode."""
    return Odd(name, data, size, quadrants, tolerance, frames_ignored=more)


def bad(name: str, data: bytes, *codes: str) -> Odd:
    """One that must be refused, with one of `codes` (none given: any)."""
    return Odd(name, data, codes=codes or ("*",))


def turned() -> Iterator[Odd]:
    """Every orientation in every format that carries one."""
    for turn, store in TURNS.items():
        image = Image.fromarray(np.ascontiguousarray(store(picture())))
        block = exif(turn)
        yield good(
            f"jpeg-turn-{turn}",
            save(image, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + block),
            tolerance=LOSSY,
        )
        yield good(
            f"jpeg-420-turn-{turn}",
            save(image, "JPEG", quality=95, exif=b"Exif\0\0" + exif(turn, ">")),
            tolerance=LOSSY,
        )
        yield good(
            f"jpeg-progressive-turn-{turn}",
            save(image, "JPEG", quality=95, progressive=True, exif=b"Exif\0\0" + block),
            tolerance=LOSSY,
        )
        yield good(
            f"jpeg-grey-turn-{turn}",
            save(image.convert("L"), "JPEG", quality=95, exif=b"Exif\0\0" + block),
            grey_of(),
            LOSSY,
        )
        yield good(f"png-turn-{turn}", save(image, "PNG", exif=block))
        yield good(f"png-big-endian-turn-{turn}", save(image, "PNG", exif=exif(turn, ">")))
        yield good(f"webp-lossless-turn-{turn}", save(image, "WEBP", lossless=True, exif=block))
        yield good(f"webp-prefixed-turn-{turn}", save(image, "WEBP", lossless=True, exif=b"Exif\0\0" + block))
        yield good(f"webp-lossy-turn-{turn}", save(image, "WEBP", quality=95, exif=block), tolerance=LOSSY)
        stored = np.asarray(image)
        for order in "<>":
            for big in (False, True):
                data = tiff(stored, photometric=2, bits=8, order=order, big=big, tags={274: (3, turn)})
                name = f"tiff-{order}{'big' if big else ''}-turn-{turn}"
                yield bad(name, data, "unsupported_format") if big and order == ">" else good(name, data)
        yield good(f"tiff-lzw-turn-{turn}", save(image, "TIFF", compression="tiff_lzw", tiffinfo={274: turn}))
        yield good(
            f"avif-turn-{turn}", save(image, "AVIF", quality=95, subsampling="4:4:4", exif=block), tolerance=LOSSY
        )


def odd_turns() -> Iterator[Odd]:
    """Orientations that do not count: out of range, of another type, in XMP alone, within broken EXIF."""
    image = Image.fromarray(picture())
    plain = save(image, "JPEG", quality=95, subsampling=0)
    for value in (0, 9, 255, 65535):
        yield good(f"jpeg-orientation-{value}", with_app(plain, 0xE1, b"Exif\0\0" + exif(value)), tolerance=LOSSY)
        yield good(f"png-orientation-{value}", save(image, "PNG", exif=exif(value)))
        yield good(f"webp-orientation-{value}", save(image, "WEBP", lossless=True, exif=exif(value)))
        yield good(f"tiff-orientation-{value}", tiff(picture(), photometric=2, bits=8, tags={274: (3, value)}))
    yield good("jpeg-orientation-as-long", with_app(plain, 0xE1, b"Exif\0\0" + exif(6, "<", 4)), tolerance=LOSSY)
    described = b'<rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF>'
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + described + b"</x:xmpmeta>"
    yield good("jpeg-xmp-only", with_app(plain, 0xE1, xmp), tolerance=LOSSY)
    yield good(
        "png-xmp-only",
        save(image, "PNG", pnginfo=None)[:-12]
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp[29:])
        + chunk(b"IEND", b""),
    )
    yield good("tiff-xmp-only", save(image, "TIFF", tiffinfo={700: xmp[29:]}))
    yield good("webp-xmp-only", save(image, "WEBP", lossless=True, xmp=xmp[29:]))
    rng = random.Random(1)
    for index in range(24):
        mangled = bytearray(exif(6) + bytes(40))
        for _ in range(6):
            mangled[rng.randrange(4, len(mangled))] = rng.randrange(256)
        yield Odd(f"jpeg-mangled-exif-{index}", with_app(plain, 0xE1, b"Exif\0\0" + bytes(mangled)))
    for name, block in {
        "empty": b"",
        "short": b"II",
        "text": b"<script>alert(1)</script>",
        "far": b"II*\0\xff\xff\xff\xff",
        "self": b"II*\0\x04\0\0\0" + b"\xff" * 60,
        "full": b"II*\0\x08\0\0\0" + b"\xff" * 65000,
    }.items():
        yield good(f"jpeg-exif-{name}", with_app(plain, 0xE1, b"Exif\0\0" + block), tolerance=LOSSY)
        yield good(f"png-exif-{name}", save(image, "PNG", exif=block or b"\0"))
        yield good(f"webp-exif-{name}", save(image, "WEBP", lossless=True, exif=block or b"\0"))


def depths() -> Iterator[Odd]:
    """PNGs of every colour type and depth, plain and interlaced; TIFFs and BMPs of several."""
    rgb = picture().astype(np.uint32)
    grey = np.asarray(Image.fromarray(picture()).convert("L")).astype(np.uint32)[..., None]
    for name, rows in (("", packed), ("-interlaced", adam7)):
        lace = int(bool(name))
        for depth in (1, 2, 4, 8, 16):
            top = (1 << depth) - 1
            level = np.round(grey * top / 255).astype(np.uint32)
            quads = tuple(
                (round(int(level[y, x, 0]) * 255 / top),) * 3 for y, x in ((5, 5), (5, 60), (40, 5), (40, 60))
            )
            yield good(
                f"png-grey-{depth}{name}", png(rows(level, depth), WIDTH, HEIGHT, depth, 0, interlace=lace), quads
            )
        for depth in (8, 16):
            wide = rgb * (257 if depth == 16 else 1)
            yield good(f"png-rgb-{depth}{name}", png(rows(wide, depth), WIDTH, HEIGHT, depth, 2, interlace=lace))
            alpha = np.full((HEIGHT, WIDTH, 1), (1 << depth) - 1, np.uint32)
            alpha[:, WIDTH // 2 :] = 0
            white = (COLORS[0], (255, 255, 255), COLORS[2], (255, 255, 255))
            rgba = np.concatenate([wide, alpha], axis=2)
            yield good(
                f"png-rgba-{depth}{name}", png(rows(rgba, depth), WIDTH, HEIGHT, depth, 6, interlace=lace), white
            )
            la = np.concatenate([grey * (257 if depth == 16 else 1), alpha], axis=2)
            quads = (grey_of()[0], (255, 255, 255), grey_of()[2], (255, 255, 255))
            yield good(
                f"png-grey-alpha-{depth}{name}", png(rows(la, depth), WIDTH, HEIGHT, depth, 4, interlace=lace), quads
            )
        index = np.zeros((HEIGHT, WIDTH, 1), np.uint32)
        index[:, WIDTH // 2 :] += 1
        index[HEIGHT // 2 :] += 2
        palette = chunk(b"PLTE", bytes(v for c in COLORS for v in c))
        for depth in (2, 4, 8):
            yield good(
                f"png-palette-{depth}{name}",
                png(rows(index, depth), WIDTH, HEIGHT, depth, 3, extra=palette, interlace=lace),
            )
            clear = palette + chunk(b"tRNS", b"\xff\x00")
            quads = (COLORS[0], (255, 255, 255), COLORS[2], COLORS[3])
            yield good(
                f"png-palette-clear-{depth}{name}",
                png(rows(index, depth), WIDTH, HEIGHT, depth, 3, extra=clear, interlace=lace),
                quads,
            )
        two = (COLORS[0], COLORS[1], COLORS[0], COLORS[1])
        yield good(
            f"png-palette-1{name}", png(rows(index % 2, 1), WIDTH, HEIGHT, 1, 3, extra=palette, interlace=lace), two
        )
    half = np.concatenate([rgb, np.full((HEIGHT, WIDTH, 1), 128, np.uint32)], axis=2)
    faded: Quadrants = tuple(
        (round(r * 128 / 255 + 127), round(g * 128 / 255 + 127), round(b * 128 / 255 + 127)) for r, g, b in COLORS
    )
    yield good("png-half-clear", png(packed(half, 8), WIDTH, HEIGHT, 8, 6), faded)
    keyed = chunk(b"tRNS", struct.pack(">HHH", *COLORS[1]))
    yield good(
        "png-colour-key",
        png(packed(rgb, 8), WIDTH, HEIGHT, 8, 2, extra=keyed),
        (COLORS[0], (255, 255, 255), *COLORS[2:]),
    )


def tiffs() -> Iterator[Odd]:
    """Depths, orders, compressions, pages."""
    image = Image.fromarray(picture())
    grey = np.asarray(image.convert("L"))
    for order in "<>":
        deep = grey.astype(np.uint32) * 257
        yield good(f"tiff-grey16-{order}", tiff(deep, photometric=1, bits=16, order=order), grey_of())
        yield good(f"tiff-rgb16-{order}", tiff(picture().astype(np.uint32) * 257, photometric=2, bits=16, order=order))
        yield good(f"tiff-grey8-{order}", tiff(grey, photometric=1, bits=8, order=order), grey_of())
        yield good(f"tiff-inverted8-{order}", tiff(255 - grey, photometric=0, bits=8, order=order), grey_of())
        yield good(f"tiff-pages-{order}", tiff(picture(), photometric=2, bits=8, order=order, pages=5), more=True)
    yield good("bigtiff-pages", tiff(picture(), photometric=2, bits=8, pages=3, big=True), more=True)
    yield good("tiff-inverted16", tiff((255 - grey.astype(np.uint32)) * 257, photometric=0, bits=16), grey_of())
    yield bad("tiff-float", save(Image.fromarray(grey.astype(np.float32)), "TIFF"), "unsupported_format")
    yield bad("tiff-int32", save(Image.fromarray(grey.astype(np.int32)), "TIFF"), "unsupported_format")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_deflate", "lzma", "zstd"):
        yield good(f"tiff-{compression}", save(image, "TIFF", compression=compression))
        yield good(f"tiff-grey-{compression}", save(image.convert("L"), "TIFF", compression=compression), grey_of())
    yield good("tiff-jpeg", save(image, "TIFF", compression="jpeg", quality=95), tolerance=LOSSY)
    bilevel = Image.fromarray(np.asarray(picture()[..., 1] > 100)).convert("1")
    black_white: Quadrants = tuple(((255,) * 3 if c[1] > 100 else (0,) * 3) for c in COLORS)
    for compression in ("group3", "group4", "raw", "tiff_lzw"):
        yield good(f"tiff-bilevel-{compression}", save(bilevel, "TIFF", compression=compression), black_white)
    palette = save(image.quantize(4), "TIFF")
    yield good("tiff-palette", palette)
    short = palette.replace(struct.pack("<HHI", 320, 3, 768), struct.pack("<HHI", 320, 3, 9))
    yield bad("tiff-colour-outside-its-palette", short, "corrupt")
    yield good("tiff-cmyk", save(image.convert("CMYK"), "TIFF"))
    alpha = image.convert("RGBA")
    alpha.putalpha(
        Image.fromarray(np.where(np.arange(WIDTH) < WIDTH // 2, 255, 0).astype(np.uint8)[None].repeat(HEIGHT, 0))
    )
    yield good("tiff-alpha", save(alpha, "TIFF"), (COLORS[0], (255, 255, 255), COLORS[2], (255, 255, 255)))


def jpegs() -> Iterator[Odd]:
    """Samplings, sizes, colour spaces, odd segments."""
    image = Image.fromarray(picture())
    for sampling in ("444", "422", "420", "440", "411"):
        data = simplejpeg.encode_jpeg(picture(), quality=95, colorsubsampling=sampling)
        yield good(f"jpeg-{sampling}", data, tolerance=LOSSY)
    for quality in (30, 60, 100):
        yield good(
            f"jpeg-quality-{quality}", save(image, "JPEG", quality=quality), tolerance=LOSSY if quality > 50 else 12
        )
    for side in (
        (1, 1),
        (1, 7),
        (7, 1),
        (2, 2),
        (15, 17),
        (8, 8),
        (16, 16),
        (17, 33),
        (3, 1000),
        (1000, 3),
        (1, 65500),
        (65500, 1),
    ):
        for progressive in (False, True):
            flat = Image.fromarray(picture(*side, (COLORS[0],) * 4))
            name = f"jpeg-{side[0]}x{side[1]}{'-progressive' if progressive else ''}"
            yield good(name, save(flat, "JPEG", quality=95, progressive=progressive), (COLORS[0],) * 4, LOSSY, side)
    yield good("jpeg-restarts", save(image, "JPEG", quality=95, restart_marker_blocks=1), tolerance=LOSSY)
    yield good("jpeg-optimised", save(image, "JPEG", quality=95, optimize=True), tolerance=LOSSY)
    yield good("jpeg-rgb", save(image, "JPEG", quality=95, keep_rgb=True), tolerance=LOSSY)
    yield good("jpeg-cmyk", save(image.convert("CMYK"), "JPEG", quality=95), tolerance=LOSSY)
    yield good(
        "jpeg-cmyk-progressive", save(image.convert("CMYK"), "JPEG", quality=95, progressive=True), tolerance=LOSSY
    )
    adobe_cmyk = 255 - np.asarray(image.convert("CMYK"))
    yield good(
        "jpeg-ycck",
        simplejpeg.encode_jpeg(np.ascontiguousarray(adobe_cmyk), quality=95, colorspace="CMYK", colorsubsampling="444"),
        tolerance=LOSSY,
    )
    profile = srgb_profile()
    yield good("jpeg-icc", save(image, "JPEG", quality=95, icc_profile=profile), tolerance=LOSSY)
    plain = save(image, "JPEG", quality=95, subsampling=0)
    for name, app in {
        "php": b"<?php system($_GET[0]); ?>",
        "html": b"<script>alert(1)</script>",
        "long": bytes(65_000),
    }.items():
        yield good(f"jpeg-comment-{name}", with_app(plain, 0xFE, app), tolerance=LOSSY)
    for name, tail in {
        "zip": b"PK\x03\x04" + bytes(200),
        "zeros": bytes(4096),
        "jpeg": plain,
        "html": b"<html>" * 30,
    }.items():
        yield good(f"jpeg-then-{name}", plain + tail, tolerance=LOSSY)
    yield good("jpeg-fill-bytes", plain[:2] + b"\xff" * 20 + plain[2:], tolerance=LOSSY)
    thumb = save(image.resize((16, 12)), "JPEG")
    yield good("jpeg-thumbnail-within", with_app(plain, 0xE1, b"Exif\0\0" + exif(1) + thumb), tolerance=LOSSY)
    second = Image.fromarray(picture(32, 32))
    yield good("mpo", save(image, "MPO", save_all=True, append_images=[second], quality=95), tolerance=LOSSY, more=True)
    yield good("jpeg-arithmetic", ARITHMETIC, tolerance=LOSSY)
    yield bad("jpeg-arithmetic-cut", ARITHMETIC[:200], "truncated", "corrupt")
    yield bad("jpeg-800-scans", many_scans(800), "too_many_scans")
    yield bad("jpeg-101-scans", many_scans(101), "too_many_scans")
    yield bad("jpeg-800-scans-baseline", many_scans(800, "sequential"), "too_many_scans")
    yield bad("jpeg-zero-height", patched_sof(plain, height=0), "corrupt")
    yield bad("jpeg-zero-width", patched_sof(plain, width=0), "corrupt")
    yield bad("jpeg-huge", patched_sof(plain, width=65500, height=65500), "too_large")
    yield bad("jpeg-51-megapixels", patched_sof(plain, width=7200, height=7200), "too_large")
    yield bad("jpeg-12-bit", patched_sof(plain, precision=12), "unsupported_format")
    yield bad("jpeg-lossless", patched_sof(plain, marker=0xC3), "unsupported_format")
    yield bad(
        "jpeg-two-frames", plain[: sof(plain)] + plain[sof(plain) : sof(plain) + 19] + plain[sof(plain) :], "corrupt"
    )
    yield bad("jpeg-taller-than-its-data", patched_sof(plain, height=HEIGHT * 4), "truncated", "corrupt")
    yield bad("jpeg-no-frame", plain[: sof(plain)] + plain[sof(plain) + 19 :], "corrupt")


def sof(jpeg: bytes) -> int:
    """Where the frame header lies."""
    return next(at for at in (jpeg.find(bytes([0xFF, m])) for m in (0xC0, 0xC2)) if at >= 0)


def patched_sof(
    jpeg: bytes, *, width: int | None = None, height: int | None = None, precision: int = 8, marker: int | None = None
) -> bytes:
    """A JPEG whose frame header lies."""
    at = sof(jpeg)
    out = bytearray(jpeg)
    out[at + 1] = marker or out[at + 1]
    out[at + 4] = precision
    if height is not None:
        out[at + 5 : at + 7] = struct.pack(">H", height)
    if width is not None:
        out[at + 7 : at + 9] = struct.pack(">H", width)
    return bytes(out)


def many_scans(count: int, kind: str = "progressive") -> bytes:
    """A progressive JPEG whose last scan stands many times (or a sequential one whose only scan does)."""
    jpeg = save(Image.fromarray(picture()), "JPEG", quality=90, progressive=kind == "progressive")
    last = jpeg.rfind(b"\xff\xda")
    if kind == "sequential":  # claims one component a scan, so that readers look for more
        scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x00" * 20
        return jpeg[:last] + scan * count + b"\xff\xd9"
    return jpeg[:last] + jpeg[last:-2] * count + b"\xff\xd9"


def other_formats() -> Iterator[Odd]:
    """GIF, WebP, BMP and AVIF varieties."""
    image = Image.fromarray(picture())
    second = Image.fromarray(picture(colors=COLORS[::-1]))
    yield good("gif", save(image, "GIF"))
    yield good("gif-interlaced", save(image, "GIF", interlace=1))
    yield good(
        "gif-animated",
        save(image.quantize(8), "GIF", save_all=True, append_images=[second] * 3, duration=50),
        more=True,
    )
    yield good("gif-grey", save(image.convert("L"), "GIF"), grey_of())
    yield good("gif-20000-frames", many_frames(20_000), more=True)
    yield good("gif-small-frame", gif(canvas=(64, 48), frame=(0, 0, 32, 24)), (COLORS[0], *[(255, 255, 255)] * 3))
    yield good("gif-frame-beyond", gif(canvas=(8, 6), frame=(0, 0, 64, 48)), ((200, 40, 30),) * 4)
    yield bad("gif-huge-canvas", gif(canvas=(65535, 65535), frame=(0, 0, 8, 8)), "too_large")
    yield bad("gif-huge-frame", gif(canvas=(8, 8), frame=(0, 0, 65535, 65535)), "too_large")
    yield bad("gif-no-picture", gif(canvas=(8, 8), frame=(0, 0, 8, 8))[:25] + b";", "corrupt", "truncated")
    yield bad("gif-empty-frame", gif(canvas=(8, 8), frame=(0, 0, 0, 8)), "corrupt")
    yield bad("gif-colour-outside-its-palette", gif(canvas=(64, 48), frame=(0, 0, 64, 48), color=2), "corrupt")
    yield good(
        "gif-clear-outside-its-palette",
        gif(canvas=(64, 48), frame=(0, 0, 64, 48), color=2, clear=2),
        ((255, 255, 255),) * 4,
    )
    clear = image.quantize(4)
    yield good(
        "gif-clear",
        save(clear, "GIF", transparency=int(np.asarray(clear)[5, 60])),
        (COLORS[0], (255, 255, 255), *COLORS[2:]),
    )
    yield good("webp-lossless", save(image, "WEBP", lossless=True))
    yield good("webp-lossy", save(image, "WEBP", quality=95), tolerance=LOSSY)
    yield good("webp-animated", save(image, "WEBP", lossless=True, save_all=True, append_images=[second]), more=True)
    yield good(
        "webp-icc",
        save(image, "WEBP", lossless=True, icc_profile=srgb_profile()),
    )
    alpha = image.convert("RGBA")
    alpha.putalpha(
        Image.fromarray(np.where(np.arange(WIDTH) < WIDTH // 2, 255, 0).astype(np.uint8)[None].repeat(HEIGHT, 0))
    )
    white = (COLORS[0], (255, 255, 255), COLORS[2], (255, 255, 255))
    yield good("webp-alpha", save(alpha, "WEBP", lossless=True), white)
    yield good("webp-alpha-lossy", save(alpha, "WEBP", quality=95), white, LOSSY)
    yield good("avif-alpha", save(alpha, "AVIF", quality=95, subsampling="4:4:4"), white, LOSSY)
    plain = save(image, "AVIF", quality=95, subsampling="4:4:4")
    yield good("avif-as-mif1", plain[:8] + b"mif1" + plain[12:], tolerance=LOSSY)
    yield good("avif", save(image, "AVIF", quality=95, subsampling="4:4:4"), tolerance=LOSSY)
    yield good(
        "avif-animated",
        save(image, "AVIF", quality=95, subsampling="4:4:4", save_all=True, append_images=[second]),
        tolerance=LOSSY,
        more=True,
    )
    yield bad("heic-without-its-extra-or-pixels", heic(64, 48), "unsupported_format", "corrupt")
    yield bad("heic-huge", heic(60_000, 60_000), "too_large")
    yield good("apng", save(image, "PNG", save_all=True, append_images=[second], duration=50), more=True)
    yield good(
        "apng-default",
        save(image, "PNG", save_all=True, default_image=True, append_images=[second, second], duration=50),
        more=True,
    )
    yield good("bmp-24", save(image, "BMP"))
    yield good("bmp-8", save(image.quantize(4), "BMP"))
    data = save(image.quantize(4), "BMP")
    yield bad("bmp-colour-outside-its-palette", data[:46] + b"\3" + data[47:], "corrupt")
    two = Image.fromarray((picture()[..., 0] > 100).astype(np.uint8), "P")
    two.putpalette([0, 0, 0, 255, 255, 255])
    yield good("bmp-8-black-white", save(two, "BMP"), ((255,) * 3, (0,) * 3, (0,) * 3, (255,) * 3))
    yield good("bmp-grey", save(image.convert("L"), "BMP"), grey_of())
    yield good("bmp-1", save(image.convert("L").point(lambda v: 255 if v > 100 else 0).convert("1"), "BMP"), None)
    yield good("bmp-top-down", bmp(picture(), top_down=True))
    yield good("bmp-os2", bmp(picture(), os2=True))
    yield good("bmp-32", bmp(np.dstack([picture(), np.zeros((HEIGHT, WIDTH), np.uint8)])))
    yield bad("bmp-huge", bmp(picture(), claim=(60_000, 60_000)), "too_large")
    yield bad("bmp-zero", bmp(picture(), claim=(0, 10)), "corrupt")
    yield bad("bmp-negative-width", bmp(picture(), claim=(-64, 48)), "corrupt")


def heic(width: int, height: int) -> bytes:
    """The boxes of a HEIC file up to its size."""

    def box(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload) + 8) + kind + payload

    size = box(b"ispe", struct.pack(">III", 0, width, height))
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", size)))


def gif(canvas: tuple[int, int], frame: tuple[int, int, int, int], color: int = 0, clear: int | None = None) -> bytes:
    """A GIF of two colours whose one frame is all of `color` and whose ground is colour 1; `clear` is transparent."""
    palette = bytes(v for c in (COLORS[0], COLORS[1]) for v in c)
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 1, 0) + palette
    control = b"\x21\xf9\x04" + bytes([clear is not None, 0, 0, clear or 0, 0])
    data = lzw(color, min(frame[2] * frame[3], 100_000))
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return head + control + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02" + blocks + b"\0;"


def lzw(color: int, count: int) -> bytes:
    """`count` times `color` in GIF's LZW of a minimum code size of 2, a clear code before each so that codes stay 3 bits long."""
    codes = np.array([4, color] * count + [5], np.uint8)
    return np.packbits(codes[:, None] >> np.arange(3, dtype=np.uint8) & 1, bitorder="little").tobytes()


def many_frames(count: int) -> bytes:
    """A GIF whose later frames are one pixel each."""
    first = save(Image.fromarray(picture()), "GIF")
    frame = b"\x21\xf9\x04\x00\x05\x00\x00\x00," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return first[:-1] + frame * count + b";"


def bmp(samples: Array, *, top_down: bool = False, os2: bool = False, claim: tuple[int, int] | None = None) -> bytes:
    """A BMP of 24 or 32 bits."""
    height, width, channels = samples.shape
    wide, tall = claim or (width, height)
    order = [2, 1, 0, 3][:channels]
    rows = samples[..., order] if top_down else samples[::-1][..., order]
    pad = bytes(-width * channels % 4)
    body = b"".join(row.tobytes() + pad for row in np.ascontiguousarray(rows))
    if os2:
        header = struct.pack("<IHHHH", 12, wide, tall, 1, 8 * channels)
    else:
        header = struct.pack(
            "<IiiHHIIiiII", 40, wide, -tall if top_down else tall, 1, 8 * channels, 0, len(body), 0, 0, 0, 0
        )
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body


def broken_pngs() -> Iterator[Odd]:
    """Structure, checksums, early ends, bombs in chunks that are not needed."""
    rgb = packed(picture(), 8)
    whole = png(rgb, WIDTH, HEIGHT, 8, 2)
    row = 1 + 3 * WIDTH
    for rows in (0, 1, 24, 47):
        yield bad(f"png-{rows}-rows-of-48", png(rgb[: rows * row], WIDTH, HEIGHT, 8, 2), "truncated")
    yield bad("png-last-row-half", png(rgb[: 47 * row + 50], WIDTH, HEIGHT, 8, 2), "truncated")
    dark = packed(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 8)
    yield good("png-black", png(dark, WIDTH, HEIGHT, 8, 2), ((0, 0, 0),) * 4)
    yield bad("png-black-early-end", png(dark[: 40 * row], WIDTH, HEIGHT, 8, 2), "truncated")
    laced = adam7(picture(), 8)
    yield bad(
        "png-interlaced-early-end",
        png(laced[: len(laced) // 2], WIDTH, HEIGHT, 8, 2, interlace=1),
        "truncated",
        "corrupt",
    )
    yield good("png-more-pixels-than-needed", png(rgb + rgb, WIDTH, HEIGHT, 8, 2))
    index = packed(np.zeros((HEIGHT, WIDTH, 1), np.uint8), 8)
    yield bad("png-no-palette", png(index, WIDTH, HEIGHT, 8, 3), "corrupt")
    two, outside = (
        chunk(b"PLTE", bytes(v for c in COLORS[:2] for v in c)),
        packed(np.full((HEIGHT, WIDTH, 1), 2, np.uint8), 8),
    )
    yield bad("png-colour-outside-its-palette", png(outside, WIDTH, HEIGHT, 8, 3, extra=two), "corrupt")
    yield bad("png-no-end", png(rgb, WIDTH, HEIGHT, 8, 2, tail=b""), "truncated")
    yield bad("png-critical-unknown", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(b"ABCD", b"x")), "corrupt")
    yield good("png-private-chunk", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(b"prVt", b"x" * 99)))
    for kind in (b"tEXt", b"gAMA", b"eXIf", b"iCCP"):
        yield bad(
            f"png-bad-crc-{kind.decode()}", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(kind, b"abcd", crc=1)), "bad_crc"
        )
    flipped = bytearray(whole)
    flipped[60] ^= 1
    yield bad("png-bad-crc-IDAT", bytes(flipped), "bad_crc")
    yield bad("png-bad-crc-IHDR", whole[:29] + b"\0\0\0\0" + whole[33:], "bad_crc")
    bomb = zlib.compress(bytes(50_000_000), 9)
    yield good("png-ztxt-bomb", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(b"zTXt", b"a\0\0" + bomb)))
    yield good("png-iccp-bomb", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(b"iCCP", b"a\0\0" + bomb)))
    yield good("png-itxt-bomb", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)))
    yield good("png-many-texts", png(rgb, WIDTH, HEIGHT, 8, 2, extra=chunk(b"tEXt", b"a\0b") * 5000))
    yield good("png-then-zip", whole + b"PK\x03\x04" + bytes(100))
    for width, height in ((0, 8), (8, 0)):
        yield bad(f"png-{width}x{height}", png(b"", width, height, 8, 2), "corrupt")
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (50_000_001, 1), (1, 70_000), (7072, 7071)):
        yield bad(f"png-claims-{width}x{height}", png(b"\0", width, height, 1, 0), "too_large")
    for depth, color in ((3, 0), (16, 3), (4, 2), (8, 1), (8, 7)):
        yield bad(f"png-depth-{depth}-color-{color}", png(b"", 8, 8, depth, color), "corrupt")
    yield bad(
        "png-no-pixels",
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IEND", b""),
        "corrupt",
    )
    yield bad(
        "png-not-zlib",
        whole[:33] + chunk(b"IDAT", b"this is no zlib stream") + chunk(b"IEND", b""),
        "corrupt",
        "truncated",
    )


def huge_claims() -> Iterator[Odd]:
    """Declared sizes that no reader may believe."""
    yield bad(
        "tiff-huge", tiff(picture(), photometric=2, bits=8, tags={256: (4, 60_000), 257: (4, 60_000)}), "too_large"
    )
    yield bad(
        "tiff-huge-tile",
        tiff(picture(), photometric=2, bits=8, tags={322: (4, 1 << 20), 323: (4, 1 << 20)}),
        "too_large",
    )
    far = b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(40)
    yield bad("bigtiff-that-begins-beyond-the-world", far, "corrupt", "truncated")
    yield bad("tiff-zero", tiff(picture(), photometric=2, bits=8, tags={256: (4, 0)}), "corrupt")
    canvas = (16_383).to_bytes(3, "little") * 2
    body = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas
    yield bad("webp-huge-canvas", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body, "too_large", "corrupt")
    avif = save(Image.fromarray(picture()), "AVIF")
    at = avif.find(b"ispe")
    yield bad("avif-huge", avif[: at + 8] + struct.pack(">II", 60_000, 60_000) + avif[at + 16 :], "too_large")
    yield bad("avif-zero", avif[: at + 8] + struct.pack(">II", 0, 0) + avif[at + 16 :], "corrupt")
    big = png(b"\0" * 0, 7071, 7071, 1, 0)
    yield bad("png-50-megapixels-empty", big, "truncated", "corrupt")


def not_images() -> Iterator[Odd]:
    """Other things, and images of formats that are not taken."""
    things = {
        "empty": b"",
        "one-byte": b"\xff",
        "two-bytes": b"\xff\xd8",
        "three-bytes": b"\xff\xd8\xff",
        "text": b"hello, world",
        "zeros": bytes(1000),
        "pdf": b"%PDF-1.7\n" + bytes(100),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "xml": b"<?xml version='1.0'?><svg/>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "psd": b"8BPS\0\1" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
        "html": b"<html><img src=x onerror=alert(1)></html>",
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "ico": b"\0\0\1\0\1\0" + bytes(100),
        "ppm": b"P6\n1 1\n255\nabc",
        "wav": b"RIFF\x24\0\0\0WAVEfmt ",
        "mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
        "j2k": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "elf": b"\x7fELF" + bytes(100),
        "mvg": b"push graphic-context\nviewbox 0 0 1 1\nfill 'url(https://x/)'",
        "fli": struct.pack("<IHHHHHH", 128, 0xAF11, 1, 8, 8, 8, 0) + bytes(110),
        "qoi": b"qoif\0\0\0\1\0\0\0\1\3\0" + bytes(20),
        "dds": b"DDS \x7c\0\0\0" + bytes(120),
        "sgi": b"\x01\xda\1\1\0\3" + bytes(600),
        "jxl": b"\xff\x0a" + bytes(40),
    }
    for name, data in things.items():
        yield bad(f"not-{name}", data)


def truncated_and_flipped() -> Iterator[Odd]:
    """Every format cut at many points (refused), and with bytes flipped (refused, or whole and of the right size)."""
    rng = random.Random(2)
    noise = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    image = Image.fromarray((picture() * 0.7 + noise * 0.3).astype(np.uint8))
    files = {
        "jpeg": save(image, "JPEG", quality=90),
        "jpeg-progressive": save(image, "JPEG", quality=90, progressive=True),
        "jpeg-cmyk": save(image.convert("CMYK"), "JPEG", quality=90),
        "png": save(image, "PNG"),
        "png-palette": save(image.quantize(16), "PNG"),
        "webp": save(image, "WEBP", quality=90),
        "webp-lossless": save(image, "WEBP", lossless=True),
        "gif": save(image, "GIF"),
        "bmp": save(image, "BMP"),
        "tiff": tiff(np.asarray(image), photometric=2, bits=8),
        "tiff-lzw": save(image, "TIFF", compression="tiff_lzw"),
        "avif": save(image, "AVIF", quality=90),
    }
    for name, data in files.items():
        for percent in (1, 5, 20, 40, 50, 60, 80, 95, 99):
            yield bad(f"{name}-cut-at-{percent}", data[: len(data) * percent // 100])
        if name.startswith("jpeg"):
            yield bad(f"{name}-without-end", data[:-2])
        for index in range(10):
            flipped = bytearray(data)
            for _ in range(1 + index % 3):
                flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield Odd(f"{name}-flipped-{index}", bytes(flipped))


GROUPS: tuple[Callable[[], Iterator[Odd]], ...] = (
    turned,
    odd_turns,
    depths,
    tiffs,
    jpegs,
    other_formats,
    broken_pngs,
    huge_claims,
    not_images,
    truncated_and_flipped,
)


def all_odd() -> list[Odd]:
    """Every one of them; names are unique."""
    return [odd for group in GROUPS for odd in group()]
