"""From numbers on a grid to masks: polygons in pixels of the upright original, few enough to be kept in every result."""

import numpy as np
from numpy.typing import NDArray

from eyeline.core.types import Floats, Mask
from eyeline.pipeline.geometry import Placement, contours, enlarged, filled

#: A mask has so many polygons and points at most; an edge is made simpler until it has.
MOST_POLYGONS, MOST_POINTS = 8, 120
#: Edges are followed on a grid so many times finer, up to this side.
_FINER, _LONGEST = 8, 1024


def mask_of(
    values: Floats, level: float, corner: tuple[float, float], step: tuple[float, float], placement: Placement
) -> Mask | None:
    """The mask of where `values` are over `level`; None where nothing of it lies in the picture.

    values: [H, W], a window of a map whose corner (x, y) and step (x, y) are in tensor pixels.
    """
    height, width = values.shape
    finer = max(1, min(_FINER, _LONGEST // max(height, width)))
    over = enlarged(values, width * finer, height * finer) > level
    tolerance = finer / 4
    while True:
        edges = contours(over, tolerance)[:MOST_POLYGONS]
        if sum(len(edge) for edge in edges) <= MOST_POINTS:
            break
        tolerance *= 1.6
    placed = [_placed((edge + 0.5) / finer * step + corner, placement) for edge in edges]
    polygons = [(polygon, _area(polygon)) for polygon in placed]
    solid = [(polygon, area) for polygon, area in polygons if area > 0]
    if not solid:
        return None
    return Mask(
        [polygon.astype(np.float64).round(1).reshape(-1).tolist() for polygon, _ in solid],
        round(sum(area for _, area in solid), 1),
    )


def instance_masks(
    coefficients: Floats, prototypes: Floats, boxes: Floats, size: tuple[int, int], placement: Placement
) -> list[Mask | None]:
    """YOLO's masks: each box's [M] coefficients mix the [M, h, w] prototypes; over 0 and within the box is the thing.

    boxes: xyxy in tensor pixels; size: the tensor's (height, width).
    """
    _, rows, columns = prototypes.shape
    step = (size[1] / columns, size[0] / rows)
    found: list[Mask | None] = []
    for weights, (left, top, right, bottom) in zip(coefficients, boxes, strict=True):
        x1, x2 = max(0, int(left / step[0])), min(columns, int(np.ceil(right / step[0])))
        y1, y2 = max(0, int(top / step[1])), min(rows, int(np.ceil(bottom / step[1])))
        if x2 <= x1 or y2 <= y1:
            found.append(None)
            continue
        window = np.tensordot(weights, prototypes[:, y1:y2, x1:x2], axes=1).astype(np.float32)
        found.append(mask_of(window, 0.0, (x1 * step[0], y1 * step[1]), step, placement))
    return found


def bounds(mask: Mask) -> tuple[float, float, float, float]:
    """The box round a mask."""
    points = np.concatenate([np.asarray(polygon).reshape(-1, 2) for polygon in mask.polygons])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def overlap(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks, on a grid of 256 places across both."""
    boxes = np.array([bounds(first), bounds(second)])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    scale = 256 / max(1e-6, float((high - low).max()))
    width, height = (max(1, int(side)) for side in np.ceil((high - low) * scale))
    grids = [filled([_moved(each, low, scale) for each in mask.polygons], width, height) for mask in (first, second)]
    union = int((grids[0] | grids[1]).sum())
    return int((grids[0] & grids[1]).sum()) / union if union else 0.0


def _moved(polygon: list[float], low: NDArray[np.float64], scale: float) -> list[float]:
    moved: list[float] = ((np.asarray(polygon).reshape(-1, 2) - low) * scale).reshape(-1).tolist()
    return moved


def _placed(points: Floats, placement: Placement) -> Floats:
    """[N, 2] tensor pixels → the original's, cut at its borders."""
    return placement.to_original(np.tile(points, 2))[:, :2]


def _area(points: Floats) -> float:
    x, y = points.astype(np.float64).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
