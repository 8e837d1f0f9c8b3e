"""Where pixels go: turning, cropping and placing an upright image into a model's tensor, and boxes back again.

The one file of the pipeline that knows OpenCV. Every resize in Eyeline is done by `resize`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eyeline.core.types import Floats, Pixels
from eyeline.pipeline.contract import InputContract

cv2.setNumThreads(1)  # processes side by side use the cores; threads within one resize would only fight them

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC}
#: Below this scale a linear or cubic kernel skips pixels; averaging over areas does not.
_PREFILTER_BELOW = 0.5
#: Left, top, right, bottom.
Box = tuple[float, float, float, float]
#: Crops are cut from a picture of about this many pixels at most.
CROP_PIXELS = 3840 * 2160


@dataclass(frozen=True)
class Region:
    """The part of an upright original that an array of pixels shows, in the original's pixels.

    An array may be smaller than its region (a JPEG decoded at half size). `full_width` and `full_height`
    are the size of the whole original, to which boxes are clipped.
    """

    x: float
    y: float
    width: float
    height: float
    full_width: int
    full_height: int

    @classmethod
    def whole(cls, width: int, height: int) -> "Region":
        """All of an original of that size."""
        return cls(0.0, 0.0, float(width), float(height), width, height)


@dataclass(frozen=True)
class Placement:
    """How a tensor's pixels map to the upright original: tensor = original × scale + offset, per axis.

    `width` and `height` are the whole original's size. Plain floats and ints: travels as it is.
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    width: int
    height: int

    def to_original(self, boxes: Floats) -> Floats:
        """Boxes [N, 4] xyxy in tensor pixels → float32 [N, 4] xyxy in the original's pixels, clipped to it."""
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        limit = np.array([self.width, self.height] * 2, np.float64)
        return np.clip((boxes - offset) / scale, 0.0, limit).astype(np.float32)

    def to_tensor(self, boxes: Floats) -> Floats:
        """The inverse of `to_original`, not clipped."""
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        return (boxes * scale + offset).astype(np.float32)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """`pixels` turned and mirrored as EXIF orientation 1..8 asks; contiguous."""
    if orientation == 2:
        return _pixels(cv2.flip(pixels, 1))
    if orientation == 3:
        return _pixels(cv2.rotate(pixels, cv2.ROTATE_180))
    if orientation == 4:
        return _pixels(cv2.flip(pixels, 0))
    if orientation == 5:
        return _pixels(cv2.transpose(pixels))
    if orientation == 6:
        return _pixels(cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE))
    if orientation == 7:
        return _pixels(cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180))
    if orientation == 8:
        return _pixels(cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE))
    return pixels


def grey_to_rgb(grey: NDArray[np.uint8]) -> Pixels:
    """[H, W] → [H, W, 3]."""
    return _pixels(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))


def rgb_to_grey(pixels: Pixels) -> NDArray[np.uint8]:
    """[H, W, 3] → [H, W], contiguous."""
    grey: Any = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, np.uint8)


def laplacian(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The second derivative of a grey picture: large where it is sharp."""
    derived: Any = cv2.Laplacian(grey, cv2.CV_32F)
    return np.asarray(derived, np.float32)


def resize(pixels: Pixels, width: int, height: int, interpolation: str = "area", dst: Pixels | None = None) -> Pixels:
    """`pixels` at another size, into `dst` where it is given; what shrinks to less than half is averaged over areas."""
    old_height, old_width = pixels.shape[:2]
    if (old_width, old_height) == (width, height):
        if dst is None:
            return pixels
        dst[...] = pixels
        return dst
    scale = min(width / old_width, height / old_height)
    kind = _INTERPOLATION[interpolation]
    if scale < _PREFILTER_BELOW:
        kind = cv2.INTER_AREA
    elif scale > 1.0 and kind == cv2.INTER_AREA:
        kind = cv2.INTER_LINEAR  # areas smaller than a pixel would give blocks
    return _pixels(cv2.resize(pixels, (width, height), dst=dst, interpolation=kind))


def enlarged(values: Floats, width: int, height: int) -> Floats:
    """A map of numbers at another size, bilinear."""
    resized: Any = cv2.resize(np.ascontiguousarray(values, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """([H, W] number of the connected region at each place, 0 for none; [N, 5] left, top, width, height, area of 1 … N)."""
    found: Any = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    _, numbers, stats, _ = found
    return np.asarray(numbers, np.int32), np.asarray(stats[1:], np.int32)


def contours(mask: NDArray[np.bool_], tolerance: float) -> list[Floats]:
    """The outer edges of what is set, largest first, each [N, 2] x, y, simplified by at most `tolerance` pixels."""
    found: Any
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = sorted(found, key=cv2.contourArea, reverse=True)
    simple = [np.asarray(cv2.approxPolyDP(each, tolerance, closed=True), np.float32).reshape(-1, 2) for each in found]
    return [each for each in simple if len(each) >= 3]


def filled(polygons: Sequence[Sequence[float]], width: int, height: int) -> NDArray[np.bool_]:
    """[H, W]: what lies within any of the polygons [x, y, x, y, …]."""
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        corners = np.round((np.asarray(polygon, np.float64).reshape(-1, 2) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [corners], (1,), shift=4)
    return canvas.astype(bool)


def needed_size(contract: InputContract, width: int, height: int) -> tuple[int, int]:
    """(height, width) that an original of `width` × `height` is resized to for this model: decode to at least that."""
    goal_height, goal_width = contract.size
    if contract.fit == "stretch":
        return goal_height, goal_width
    across, down = goal_width / width, goal_height / height
    if contract.fit == "letterbox":
        scale = min(across, down)
        return max(1, min(goal_height, round(height * scale))), max(1, min(goal_width, round(width * scale)))
    scale = max(across, down)
    return max(goal_height, round(height * scale)), max(goal_width, round(width * scale))


def crop_size(width: int, height: int) -> tuple[int, int] | None:
    """(height, width) to decode an original of that size to where crops are cut: all of it (None), up to CROP_PIXELS."""
    scale = math.sqrt(CROP_PIXELS / (width * height))
    return None if scale >= 1 else (math.ceil(height * scale), math.ceil(width * scale))


def share_of(region: Region, share: Box) -> Box:
    """The box, in the original's pixels, that `share` (xyxy, 0..1) of a region names."""
    return (
        region.x + share[0] * region.width,
        region.y + share[1] * region.height,
        region.x + share[2] * region.width,
        region.y + share[3] * region.height,
    )


def view_size(contract: InputContract, share: Box | None, width: int, height: int) -> tuple[int, int]:
    """What the whole picture must measure so that the part which a model is shown has the size that it wants."""
    if share is None:
        return needed_size(contract, width, height)
    across, down = share[2] - share[0], share[3] - share[1]
    part = needed_size(contract, max(1, round(width * across)), max(1, round(height * down)))
    return min(height, math.ceil(part[0] / down)), min(width, math.ceil(part[1] / across))


def place(
    pixels: Pixels, contract: InputContract, out: NDArray[Any] | None = None, *, region: Region | None = None
) -> Placement:
    """Write the model's tensor of `pixels` into `out` and say how it maps back.

    pixels: upright RGB uint8 [H, W, 3]. out: shape `contract.shape` (or with a leading batch dimension of 1), dtype
    `contract.dtype`; made and thrown away where it is None (for the placement alone). region: what part of which
    original `pixels` show; None: all of it, at its own size. Raises ValueError for an `out` of another shape or dtype.
    """
    region = region or Region.whole(pixels.shape[1], pixels.shape[0])
    resized = needed_size(contract, round(region.width), round(region.height))
    top, left = _corner(contract, resized)
    if out is not None:
        canvas = _canvas(out, contract)
        _fill(pixels, contract, canvas, resized, (top, left))
    scale_x, scale_y = resized[1] / region.width, resized[0] / region.height
    return Placement(
        scale_x,
        scale_y,
        left - region.x * scale_x,
        top - region.y * scale_y,
        region.full_width,
        region.full_height,
    )


def tensor(pixels: Pixels, contract: InputContract, *, region: Region | None = None) -> tuple[NDArray[Any], Placement]:
    """A new tensor of `contract.shape` for `pixels`, and its placement."""
    out = np.empty(contract.shape, contract.dtype)
    return out, place(pixels, contract, out, region=region)


def crop(pixels: Pixels, box: Box, margin: float, region: Region) -> tuple[Pixels, Region] | None:
    """The pixels within `box`, grown by `margin` (a share of its size) on each side: a view, and its region.

    box: xyxy in the original's pixels; region: what `pixels` show. None where nothing of the box lies inside.
    """
    height, width = pixels.shape[:2]
    scale_x, scale_y = width / region.width, height / region.height
    grow_x, grow_y = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    left = max(0, int(np.floor((box[0] - grow_x - region.x) * scale_x)))
    top = max(0, int(np.floor((box[1] - grow_y - region.y) * scale_y)))
    right = min(width, int(np.ceil((box[2] + grow_x - region.x) * scale_x)))
    bottom = min(height, int(np.ceil((box[3] + grow_y - region.y) * scale_y)))
    if right <= left or bottom <= top:
        return None
    part = Region(
        region.x + left / scale_x,
        region.y + top / scale_y,
        (right - left) / scale_x,
        (bottom - top) / scale_y,
        region.full_width,
        region.full_height,
    )
    return pixels[top:bottom, left:right], part


def _corner(contract: InputContract, resized: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of the resized image within the tensor; negative where it reaches beyond (fit = crop)."""
    if contract.fit == "letterbox" and contract.align == "top-left":
        return 0, 0
    return (contract.size[0] - resized[0]) // 2, (contract.size[1] - resized[1]) // 2


def _canvas(out: NDArray[Any], contract: InputContract) -> NDArray[Any]:
    """A view of `out` as height × width × channel."""
    if out.shape == (1, *contract.shape):
        out = out[0]
    if out.shape != contract.shape or out.dtype != np.dtype(contract.dtype):
        raise ValueError(
            f"the tensor is {out.dtype} {out.shape}; {contract.name!r} wants {contract.dtype} {contract.shape}"
        )
    return out if contract.layout == "nhwc" else out.transpose(1, 2, 0)


def _fill(
    pixels: Pixels,
    contract: InputContract,
    canvas: NDArray[Any],
    resized: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    (height, width), (top, left) = resized, corner
    if contract.fit == "crop":
        whole = resize(pixels, width, height, contract.interpolation)
        goal_height, goal_width = contract.size
        _write(whole[-top : -top + goal_height, -left : -left + goal_width], contract, canvas)
        return
    _pad(canvas, contract, (top, top + height, left, left + width))
    view = canvas[top : top + height, left : left + width]
    direct = contract.dtype == "uint8" and contract.layout == "nhwc" and contract.color == "rgb"
    if direct:  # the usual case: from the decoder's pixels into shared memory in one pass
        resize(pixels, width, height, contract.interpolation, view)
    else:
        _write(resize(pixels, width, height, contract.interpolation), contract, view)


def _pad(canvas: NDArray[Any], contract: InputContract, inner: tuple[int, int, int, int]) -> None:
    """The letterbox's bars, and only them."""
    top, bottom, left, right = inner
    value: Any = contract.pad
    if contract.dtype == "float32":
        value = (contract.pad - np.array(contract.mean, np.float32)) * np.array(contract.scale, np.float32)
    canvas[:top] = value
    canvas[bottom:] = value
    canvas[top:bottom, :left] = value
    canvas[top:bottom, right:] = value


def _write(pixels: Pixels, contract: InputContract, view: NDArray[Any]) -> None:
    """Colour order, type and scale; `pixels` have the size of `view`."""
    ordered = pixels if contract.color == "rgb" else pixels[:, :, ::-1]
    if contract.dtype == "uint8":
        view[...] = ordered
        return
    np.subtract(ordered, np.array(contract.mean, np.float32), out=view, dtype=np.float32)
    np.multiply(view, np.array(contract.scale, np.float32), out=view)


def _pixels(array: Any) -> Pixels:
    """OpenCV's types say less than they do."""
    pixels: Pixels = array
    return pixels
