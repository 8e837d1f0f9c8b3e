"""What a header says of an image, and how a reader of headers refuses one."""

from dataclasses import dataclass

from eyeline.core.errors import BadImage


@dataclass(frozen=True)
class Header:
    """As stored, before any turning. What follows `frames_ignored` is for the decoder alone."""

    format: str
    width: int
    height: int
    orientation: int = 1  # 1..8 as in EXIF
    frames_ignored: bool = False
    color: str = ""  # a word of the format's own: "cmyk", "palette" …
    colors: int | None = None  # that the palette has, where pixels are places in one
    orientation_at: tuple[int, int] | None = None  # TIFF: where the tag's value lies, and its size in bytes
    window: tuple[int, int, int, int] | None = (
        None  # GIF: the first frame on its canvas, xyxy, where it leaves some free
    )

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) after turning."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def truncated(what: str) -> BadImage:
    """The refusal of a file that ends before its header does."""
    return BadImage(f"the file ends within {what}; send it whole", code="truncated")


def corrupt(what: str) -> BadImage:
    """The refusal of a file whose structure contradicts itself."""
    return BadImage(f"{what}; export the picture again", code="corrupt")


def unsupported(what: str) -> BadImage:
    """The refusal of a variety that is not decoded on purpose."""
    return BadImage(f"{what} is not decoded here; send JPEG, PNG, WebP, TIFF, BMP or GIF", code="unsupported_format")
