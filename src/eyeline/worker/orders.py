"""What a worker and its decoder children say to each other: length-prefixed msgpack over a socket pair.

The image and all pixels lie in shared memory; only places and sizes travel here.
"""

import struct
from typing import Literal

import msgspec

from eyeline.core.types import Code
from eyeline.pipeline.contract import InputContract
from eyeline.pipeline.geometry import Box, Placement
from eyeline.pipeline.quality import Quality

LENGTH = struct.Struct("!I")


class Room(msgspec.Struct, frozen=True, array_like=True):
    """Where the tensor of one model goes: an offset in the tensor memory, with room for `contract.nbytes`.

    roi: the share of the picture that the model is shown; None: all of it.
    """

    contract: InputContract
    offset: int
    roi: Box | None = None


class Order(msgspec.Struct, frozen=True, array_like=True):
    """Decode what lies at `image` (offset, bytes) of the scratch memory and place it into each of `rooms`.

    frame: (offset, bytes of room) in the scratch memory for the decoded picture itself, where crops are cut from it.
    codes: kinds of barcode to read (empty: all), None: none are. measure: whether to measure the picture's quality.
    signature: (offset, bytes of room) in the scratch memory for what tells a repeated frame.
    """

    image: tuple[int, int]
    rooms: tuple[Room, ...]
    frame: tuple[int, int] | None
    exif: Literal["apply", "ignore"]
    max_pixels: int
    max_bytes: int
    codes: tuple[str, ...] | None = None
    measure: bool = False
    signature: tuple[int, int] | None = None


class Prepared(msgspec.Struct, frozen=True, array_like=True, tag="prepared"):
    """Done: upright size of the original, one placement for each room, the (height, width) of the frame, seconds spent, and
    what was read and measured where that was asked for. signature: its (height, width), where it found room.
    """

    width: int
    height: int
    format: str
    frames_ignored: bool
    placements: tuple[Placement, ...]
    frame: tuple[int, int] | None
    decode_seconds: float
    preprocess_seconds: float
    codes: tuple[Code, ...] = ()
    codes_seconds: float = 0.0
    quality: Quality | None = None
    signature: tuple[int, int] | None = None


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The image is at fault: the code and sentence of a BadImage or TooLarge."""

    kind: Literal["bad_image", "too_large"]
    code: str
    message: str


class Broken(msgspec.Struct, frozen=True, array_like=True, tag="broken"):
    """The decoder failed in a way nobody foresaw; charged to the image like a crash."""

    message: str


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The first word of a child: limits are set, libraries loaded. `confined` names the limits that the kernel granted."""

    confined: tuple[str, ...]


Reply = Prepared | Refused | Broken | Ready


def framed(message: msgspec.Struct) -> bytes:
    """`message` as it goes over the wire."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body
