"""Boxes as arrays: overlap, suppression of repeats, clipping. Boxes are float32 [N, 4] xyxy."""

import numpy as np
from numpy.typing import NDArray

from eyeline.core.types import Floats

#: Boxes compared at once: a matrix of this size stays in the cache.
_CHUNK = 256
#: Up to so many boxes, comparing them one by one costs less than making arrays of all pairs.
_FEW = 40


def area(boxes: Floats) -> Floats:
    """[N] areas; 0 for boxes turned inside out."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def iou(first: Floats, second: Floats) -> Floats:
    """[N, M] intersection over union of every pair; 0 where both are empty."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def nms(boxes: Floats, scores: Floats, class_ids: NDArray[np.int64], threshold: float, limit: int) -> NDArray[np.int64]:
    """Indices to keep, best first, at most `limit`: of two of one class that overlap more than `threshold` the better one."""
    order = np.argsort(-scores, kind="stable")
    if len(order) <= _FEW:
        return _one_by_one(boxes, order, class_ids, threshold, limit)
    # classes are moved apart so that one pass does them all
    reach = float(boxes.max() - boxes.min()) + 1.0
    apart = boxes + (class_ids * reach).astype(np.float32)[:, None]
    return _greedy(apart, order, threshold, limit)[:limit].astype(np.int64)


def _one_by_one(
    boxes: Floats, order: NDArray[np.int64], class_ids: NDArray[np.int64], threshold: float, limit: int
) -> NDArray[np.int64]:
    corners, kinds = boxes.tolist(), class_ids.tolist()
    kept: dict[int, list[list[float]]] = {}  # of each class
    chosen: list[int] = []
    for index in order.tolist():
        if len(chosen) >= limit:
            break
        better = kept.setdefault(kinds[index], [])
        if not any(_overlap(corners[index], other) > threshold for other in better):
            better.append(corners[index])
            chosen.append(index)
    return np.array(chosen, np.int64)


def _overlap(first: list[float], second: list[float]) -> float:
    """Intersection over union of two boxes; 0 where both are empty."""
    left, top, right, bottom = first
    x1, y1, x2, y2 = second
    width = min(right, x2) - max(left, x1)
    if width <= 0:
        return 0.0
    height = min(bottom, y2) - max(top, y1)
    if height <= 0:
        return 0.0
    shared = width * height
    return shared / ((right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - shared)


def _greedy(boxes: Floats, order: NDArray[np.int64], threshold: float, limit: int) -> NDArray[np.int64]:
    """Best first, in chunks: one matrix of overlaps a chunk costs far less than one call for each box."""
    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        if len(kept):
            chunk = chunk[(iou(boxes[chunk], boxes[kept]) <= threshold).all(axis=1)]
        kept = np.concatenate([kept, chunk[_survivors(boxes[chunk], threshold)]])
        if len(kept) >= limit:
            break
    return kept


def _survivors(boxes: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which of `boxes`, best first, no better survivor overlaps."""
    alive = np.ones(len(boxes), bool)
    rivals = np.triu(iou(boxes, boxes) > threshold, 1)
    for row in np.flatnonzero(rivals.any(axis=1)):
        if alive[row]:
            alive &= ~rivals[row]
    return alive


def clip(boxes: Floats, width: float, height: float) -> Floats:
    """Boxes cut at the borders of an image."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)
