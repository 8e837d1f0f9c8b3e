"""Pictures for people: answers drawn over an image, thumbnails, and encoding without any metadata."""

import contextlib
import io
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import simplejpeg
from PIL import Image, ImageColor, ImageDraw, ImageFont

from eyeline.core.types import Classification, Code, Detection, Pixels
from eyeline.pipeline.geometry import resize

#: Eight colours that stay apart for colour-blind eyes, each readable under black text.
PALETTE = ("#3D8BFF", "#E8590C", "#2BD1A0", "#F0E442", "#D55FA8", "#C9F27B", "#A8E6FF", "#B9A3FF")
_CASING = (0, 0, 0, 204)
_INK = (0, 0, 0, 255)
_VEIL = 90
_CHIP_TEXT = 13
_LONGEST = 40
_REFERENCE_SIDE = 1280  # lines and text grow with pictures larger than this

Box = tuple[float, float, float, float]


def overlay(
    pixels: Pixels,
    detections: Sequence[Detection] = (),
    classifications: Sequence[Classification] = (),
    codes: Sequence[Code] = (),
    *,
    original: tuple[int, int] | None = None,
    labels: Sequence[str] = (),
) -> Pixels:
    """A copy of `pixels` (RGB uint8 HWC) with boxes, chips (label and score) and whole-image labels drawn on it.

    original: (width, height) in whose pixels the boxes are; None: those of `pixels`. labels: a model's labels, whose
    order gives the colours; without them a label's own name does, the same in every picture.
    """
    image = Image.fromarray(pixels)
    width, height = original or image.size
    across, down = image.width / width, image.height / height
    canvas = _Canvas(image, tuple(labels))
    entries = [(found.box, _chip(found.label, found.score), found.label) for found in detections]
    entries += [(code.box, _printable(code.text), code.format) for code in codes]
    scaled = [
        ((box[0] * across, box[1] * down, box[2] * across, box[3] * down), text, label) for box, text, label in entries
    ]
    for found in detections:
        for polygon in found.attributes.get("mask", {}).get("polygons", ()):
            canvas.shape([(x * across, y * down) for x, y in points_of(polygon)], found.label)
    for box, _, label in scaled:
        canvas.box(box, label)
    for classification in classifications:
        canvas.title(_chip(classification.label, classification.score), classification.label)
    for number, (box, text, label) in enumerate(scaled, 1):
        canvas.chip(box, text, label, number)
    return np.asarray(image)


def points_of(polygon: Sequence[float]) -> list[tuple[float, float]]:
    """[x, y, x, y, …] → [(x, y), …]."""
    return list(zip(polygon[::2], polygon[1::2], strict=False))


def outline(pixels: Pixels, polygon: Sequence[tuple[float, float]], *, good: bool) -> Pixels:
    """A copy with a polygon (shares of the picture) drawn on it: green where things count, red where they do not."""
    image = Image.fromarray(pixels)
    corners = [(x * image.width, y * image.height) for x, y in polygon]
    width = max(2, round(max(image.size) / _REFERENCE_SIDE * 3))
    ImageDraw.Draw(image).line([*corners, corners[0]], fill=PALETTE[2] if good else PALETTE[1], width=width)
    return np.asarray(image)


def thumbnail(pixels: Pixels, width: int) -> Pixels:
    """`pixels` at `width`, keeping its shape; never enlarged."""
    old_height, old_width = pixels.shape[:2]
    if width >= old_width:
        return pixels
    return resize(pixels, width, max(1, round(old_height * width / old_width)))


def encode_jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """RGB uint8 HWC → JPEG without metadata."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420" if quality < 95 else "444"
    )
    return encoded


def encode_png(pixels: Pixels) -> bytes:
    """RGB uint8 HWC → PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def encode_webp(pixels: Pixels, quality: int = 80) -> bytes:
    """RGB uint8 HWC → WebP without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


class _Canvas:
    """Boxes first, then chips above all of them, none upon another."""

    def __init__(self, image: Image.Image, labels: tuple[str, ...]) -> None:
        self.size = image.size
        self.labels = labels
        self.draw = ImageDraw.Draw(image, "RGBA")
        self.unit = max(1.0, max(image.size) / _REFERENCE_SIDE)
        self.font = _font(round(_CHIP_TEXT * self.unit))
        self.taken: list[Box] = []

    def box(self, box: Box, label: str) -> None:
        """A class-coloured stroke in a black casing, visible on any picture."""
        left, top, right, bottom = (round(edge) for edge in box)
        right, bottom = max(left, right), max(top, bottom)
        casing, stroke = round(4 * self.unit), round(2 * self.unit)
        inset = (casing - stroke) // 2
        self.draw.rectangle((left - inset, top - inset, right + inset, bottom + inset), outline=_CASING, width=casing)
        self.draw.rectangle((left, top, right, bottom), outline=self.color(label), width=stroke)

    def shape(self, corners: list[tuple[float, float]], label: str) -> None:
        """A mask: its class's colour laid over the picture thinly, with an edge."""
        red, green, blue = ImageColor.getrgb(self.color(label))[:3]
        if len(corners) >= 3:
            self.draw.polygon(corners, fill=(red, green, blue, _VEIL))
            self.draw.line([*corners, corners[0]], fill=self.color(label), width=max(1, round(self.unit)))

    def title(self, text: str, label: str) -> None:
        """A label of the whole picture, in its top left corner, one below the other."""
        width, height = self.chip_size(text)
        place = (4.0, 4.0, 4.0 + width, 4.0 + height)
        while self.collides(place):
            place = (place[0], place[1] + height + 2, place[2], place[3] + height + 2)
        self.plate(place, text, label)

    def chip(self, box: Box, text: str, label: str, number: int) -> None:
        """The chip of a box at the first free place round it; a numbered dot where there is none."""
        for place in self.places(box, *self.chip_size(text)):
            if not self.collides(place):
                self.plate(place, text, label)
                return
        width, height = self.chip_size(str(number))
        self.plate((box[0], box[1], box[0] + width, box[1] + height), str(number), label)

    def places(self, box: Box, width: float, height: float) -> list[Box]:
        """Above the box (inside it near the picture's top), then along that edge, then below."""
        top = box[1] - height if box[1] >= max(16.0, height) else box[1]
        corners = [(box[0] + step * width / 2, top) for step in range(4)] + [(box[0], box[3])]
        return [self.inside(x, y, width, height) for x, y in corners]

    def inside(self, x: float, y: float, width: float, height: float) -> Box:
        """A chip's rectangle moved into the picture."""
        left = max(0.0, min(x, self.size[0] - width))
        top = max(0.0, min(y, self.size[1] - height))
        return (left, top, left + width, top + height)

    def plate(self, place: Box, text: str, label: str) -> None:
        """Black text on the class's colour."""
        self.taken.append(place)
        self.draw.rectangle(place, fill=self.color(label))
        pad = 3 * self.unit
        self.draw.text((place[0] + pad, (place[1] + place[3]) / 2), text, fill=_INK, font=self.font, anchor="lm")

    def chip_size(self, text: str) -> tuple[float, float]:
        """(width, height) of a chip."""
        return self.draw.textlength(text, font=self.font) + 6 * self.unit, 18 * self.unit

    def collides(self, place: Box) -> bool:
        """Whether a chip is there already."""
        return any(
            place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3]
            for other in self.taken
        )

    def color(self, label: str) -> str:
        """A label's colour: by its place among the model's labels, or by its name."""
        index = self.labels.index(label) if label in self.labels else zlib.crc32(label.encode("utf-8", "replace"))
        return PALETTE[index % len(PALETTE)]


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of the system that knows more than English, where there is one."""
    for name in ("DejaVuSans.ttf", "Arial.ttf"):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _chip(label: str, score: float) -> str:
    return f"{_printable(label)} {score:.0%}"


def _printable(text: str) -> str:
    """Any label as one short line that can be drawn."""
    shown = "".join(letter if letter.isprintable() else "·" for letter in text.encode("utf-8", "replace").decode())
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
