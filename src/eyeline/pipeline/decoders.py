"""What a model says, in numbers, to what it means: detections and classifications. One line for each decoder in DECODERS."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import InferenceError
from eyeline.core.types import Detections, Floats
from eyeline.pipeline.boxes import nms
from eyeline.pipeline.contract import ModelContract
from eyeline.pipeline.geometry import Placement
from eyeline.pipeline.maps import ANOMALOUS, NORMAL, anomaly, regions
from eyeline.pipeline.masks import instance_masks
from eyeline.pipeline.outputs import Outputs, row_of, told, wrong_shape

#: More than this many boxes over the threshold say nothing new, and would make suppression slow.
_MAX_CANDIDATES = 3000
_STRIDES = (8, 16, 32)
#: Numbers of a box that an export has chosen itself: x1, y1, x2, y2, score, class.
_END2END = 6


class Candidates(NamedTuple):
    """Boxes over the score threshold, before suppression; xyxy in tensor pixels."""

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.int64]
    coefficients: Floats | None = None  # [N, M]: of each box's mask


class Answer(NamedTuple):
    """One label with its score 0..1, and the name of the head that gave it where there are several."""

    label: str
    score: float
    head: str | None


def detections(
    outputs: Outputs, contract: ModelContract, placement: Placement, index: int = 0, *, finite: bool = False
) -> Detections:
    """Detections of image `index` of a batch, in pixels of the upright original, best first.

    finite: who gave the outputs has looked for NaN and infinity; a second look costs as much as all the rest.
    Raises InferenceError for NaN or infinity, a wrong shape, or a decoder that gives no boxes.
    """
    decoder = contract.output.decoder
    prototypes = None
    if decoder in MAPS:
        return regions(outputs, contract, placement, index)
    if decoder in PAIRED:
        boxes, classes = _pair(outputs, contract, boxes_and_classes(outputs), "boxes [queries, 4] and classes", index)
        found = PAIRED[decoder](boxes, classes, contract)
    elif decoder in MASKED:
        wanted = "boxes with M coefficients each and prototypes [M, height, width]"
        row, prototypes = _pair(outputs, contract, boxes_and_prototypes(outputs), wanted, index)
        found = MASKED[decoder](row, len(prototypes), contract)
    elif decoder in DETECTORS:
        found = DETECTORS[decoder](row_of(next(iter(outputs.values())), contract, index, finite), contract)
    else:
        raise InferenceError(f"{contract.name}: the decoder {decoder!r} gives no boxes; it is a classifier's")
    if not len(found.scores):
        return Detections.empty(contract.labels)
    keep = nms(
        found.boxes, found.scores, found.class_ids, contract.output.iou_threshold, contract.output.max_detections
    )
    boxes = placement.to_original(found.boxes[keep])
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # what lay in the letterbox's bars is gone
    keep, boxes = keep[solid], boxes[solid]
    if prototypes is None or found.coefficients is None:
        return Detections(boxes, found.scores[keep], found.class_ids[keep], contract.labels)
    masks = instance_masks(found.coefficients[keep], prototypes, found.boxes[keep], contract.input.size, placement)
    seen = np.array([mask is not None for mask in masks], bool)
    shapes = tuple(mask for mask in masks if mask is not None)
    return Detections(boxes[seen], found.scores[keep][seen], found.class_ids[keep][seen], contract.labels, shapes)


def classifications(
    outputs: Outputs, contract: ModelContract, index: int = 0, *, placement: Placement | None = None
) -> list[Answer]:
    """The best `top` labels of image `index` of a batch, for each head. Raises InferenceError as `detections` does.

    placement: for an anomaly model, whose score may be its map's peak within the picture; None: the map is all picture.
    """
    if contract.output.decoder == "anomaly":
        score = anomaly(outputs, contract, placement, index).score
        both = [Answer(ANOMALOUS, score, None), Answer(NORMAL, 1 - score, None)]
        return sorted(both, key=lambda answer: -answer.score)[: contract.output.top]
    scale = CLASSIFIERS.get(contract.output.decoder)
    if scale is None:
        raise InferenceError(f"{contract.name}: the decoder {contract.output.decoder!r} gives boxes, not labels")
    if not contract.output.heads:
        return _top(row_of(next(iter(outputs.values())), contract, index), contract.labels, None, contract, scale)
    answers = []
    for head in contract.output.heads:
        if head.output not in outputs:
            raise InferenceError(f"{contract.name}: no output {head.output!r}; there are {sorted(outputs)}")
        answers += _top(row_of(outputs[head.output], contract, index), head.labels, head.name, contract, scale)
    return answers


def boxes_and_classes(outputs: Outputs) -> tuple[str, str] | None:
    """The names of a DETR's two outputs, [N, queries, 4] and [N, queries, classes]; None where these are no such two."""
    if len(outputs) != 2 or any(value.ndim != 3 for value in outputs.values()):
        return None
    first, second = outputs
    if outputs[first].shape[1] != outputs[second].shape[1]:
        return None
    four = [name for name in outputs if outputs[name].shape[2] == 4]
    named = [name for name in four if "box" in name.lower() or "det" in name.lower()] if len(four) == 2 else four
    if len(named) != 1:
        return None
    return (first, second) if named[0] == first else (second, first)


def boxes_and_prototypes(outputs: Outputs) -> tuple[str, str] | None:
    """The names of YOLO's two outputs with masks, [N, rows, anchors] (suppressed: [N, boxes, 6 + M]) and [N, M, h, w].

    None where these are no such two.
    """
    boxes = [name for name, value in outputs.items() if value.ndim == 3]
    prototypes = [name for name, value in outputs.items() if value.ndim == 4]
    if len(outputs) != 2 or len(boxes) != 1:
        return None
    rows, masks = outputs[boxes[0]].shape, outputs[prototypes[0]].shape[1]
    return (boxes[0], prototypes[0]) if rows[1] > 4 + masks or rows[2] == _END2END + masks else None


def _pair(
    outputs: Outputs, contract: ModelContract, names: tuple[str, str] | None, wanted: str, index: int
) -> tuple[Floats, Floats]:
    if names is None:
        raise InferenceError(
            f"{contract.name}: {contract.output.decoder} wants {wanted}; there are {told(outputs)}: "
            "check labels and decoder of the bundle"
        )
    first, second = (row_of(outputs[name], contract, index) for name in names)
    return first, second


def _yolov8(row: Floats, contract: ModelContract) -> Candidates:
    """[4 + C, A]: cx, cy, w, h in tensor pixels, then probabilities."""
    classes = len(contract.labels)
    if row.ndim != 2 or row.shape[0] != 4 + classes:
        raise wrong_shape(contract, row, f"[{4 + classes}, anchors]")
    scores = row[4:].max(axis=0)
    chosen = _best(scores, contract.output.score_threshold)
    return Candidates(_corners(row[:4, chosen].T), scores[chosen], row[4:, chosen].argmax(axis=0))


def _yolov8_seg(row: Floats, masks: int, contract: ModelContract) -> Candidates:
    """[4 + C + M, A]: as `_yolov8`, then the coefficients of each box's mask."""
    if row.shape[0] - masks != 4 + len(contract.labels):
        raise wrong_shape(contract, row, f"[{4 + len(contract.labels)} + {masks}, anchors]")
    scores = row[4:-masks].max(axis=0)
    chosen = _best(scores, contract.output.score_threshold)
    kinds = row[4:-masks, chosen].argmax(axis=0)
    return Candidates(_corners(row[:4, chosen].T), scores[chosen], kinds, row[-masks:, chosen].T)


def _end2end(row: Floats, contract: ModelContract) -> Candidates:
    """[boxes, 6]: x1, y1, x2, y2 in tensor pixels, score, class; chosen inside of the graph, rows of noughts fill up."""
    return _chosen_inside(row, 0, contract)


def _end2end_seg(row: Floats, masks: int, contract: ModelContract) -> Candidates:
    """[boxes, 6 + M]: as `_end2end`, then the coefficients of each box's mask."""
    return _chosen_inside(row, masks, contract)


def _chosen_inside(row: Floats, masks: int, contract: ModelContract) -> Candidates:
    if row.ndim != 2 or row.shape[1] != _END2END + masks:
        raise wrong_shape(contract, row, f"[boxes, {_END2END + masks}]")
    part = row[_best(row[:, 4], contract.output.score_threshold)]
    class_ids = np.round(part[:, 5]).astype(np.int64)
    if len(part) and not 0 <= class_ids.min() <= class_ids.max() < len(contract.labels):
        raise InferenceError(
            f"{contract.name} answered class {class_ids.max()} and has {len(contract.labels)} labels: give it all of them"
        )
    return Candidates(part[:, :4], part[:, 4], class_ids, part[:, _END2END:] if masks else None)


def _yolox(row: Floats, contract: ModelContract) -> Candidates:
    """[A, 5 + C]: x, y relative to the grid, log w, log h in strides; objectness; probabilities."""
    classes = len(contract.labels)
    grid, stride = _grid(contract.input.size)
    if row.shape != (len(stride), 5 + classes):
        raise wrong_shape(contract, row, f"[{len(stride)}, {5 + classes}]")
    threshold = contract.output.score_threshold
    objects = np.flatnonzero(row[:, 4] >= threshold)  # a score is at most its objectness
    part = row[objects]
    class_ids = part[:, 5:].argmax(axis=1)
    scores = part[:, 4] * part[np.arange(len(part)), 5 + class_ids]
    chosen = _best(scores, threshold)
    part, step = part[chosen], stride[objects[chosen], None]
    centres = (part[:, :2] + grid[objects[chosen]]) * step
    sides = np.exp(np.minimum(part[:, 2:4], 20.0)) * step
    return Candidates(_corners(np.concatenate([centres, sides], axis=1)), scores[chosen], class_ids[chosen])


def _yolov5(row: Floats, contract: ModelContract) -> Candidates:
    """[3 A, 5 + C]: cx, cy, w, h in tensor pixels; objectness; probabilities."""
    classes = len(contract.labels)
    if row.ndim != 2 or row.shape[1] != 5 + classes:
        raise wrong_shape(contract, row, f"[anchors, {5 + classes}]")
    part = row[np.flatnonzero(row[:, 4] >= contract.output.score_threshold)]  # a score is at most its objectness
    class_ids = part[:, 5:].argmax(axis=1)
    scores = part[:, 4] * part[np.arange(len(part)), 5 + class_ids]
    chosen = _best(scores, contract.output.score_threshold)
    return Candidates(_corners(part[chosen, :4]), scores[chosen], class_ids[chosen])


def _detr(boxes: Floats, classes: Floats, contract: ModelContract) -> Candidates:
    """[Q, 4] and [Q, C + 1]: cx, cy, w, h as shares of the tensor; logits, the last of which says that there is nothing."""
    if classes.shape[1] != len(contract.labels) + 1:
        raise wrong_shape(contract, classes, f"[queries, {len(contract.labels) + 1}]")
    weights = np.exp(classes - classes.max(axis=1, keepdims=True))
    return _queries(boxes, (weights / weights.sum(axis=1, keepdims=True))[:, :-1], contract)


def _rfdetr(boxes: Floats, classes: Floats, contract: ModelContract) -> Candidates:
    """[Q, 4] and [Q, C]: cx, cy, w, h as shares of the tensor; logits, each class for itself."""
    if classes.shape[1] != len(contract.labels):
        raise wrong_shape(contract, classes, f"[queries, {len(contract.labels)}]")
    return _queries(boxes, np.asarray(1 / (1 + np.exp(-np.clip(classes, -50, 50))), np.float32), contract)


def _queries(boxes: Floats, scores: Floats, contract: ModelContract) -> Candidates:
    best = scores.max(axis=1)
    chosen = _best(best, contract.output.score_threshold)
    height, width = contract.input.size
    pixels = boxes[chosen] * np.array([width, height, width, height], np.float32)
    return Candidates(_corners(pixels), best[chosen].astype(np.float32), scores[chosen].argmax(axis=1))


@lru_cache(maxsize=16)
def _grid(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """([A, 2] cell corners x, y; [A] strides) of a YOLOX head."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = size[0] // stride, size[1] // stride
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full(rows * columns, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _best(scores: Floats, threshold: float) -> NDArray[np.int64]:
    chosen = np.flatnonzero(scores >= threshold)
    if len(chosen) > _MAX_CANDIDATES:
        chosen = chosen[np.argpartition(-scores[chosen], _MAX_CANDIDATES)[:_MAX_CANDIDATES]]
    return chosen


def _corners(boxes: Floats) -> Floats:
    """cx, cy, w, h → xyxy."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _softmax(row: Floats, _contract: ModelContract) -> Floats:
    """Already probabilities."""
    return row


def _logits(row: Floats, contract: ModelContract) -> Floats:
    """Logits → probabilities, cooled by the contract's temperature."""
    exponent = row.astype(np.float64) / contract.output.temperature
    weights = np.exp(exponent - exponent.max())
    return np.asarray(weights / weights.sum(), np.float32)


def _top(
    row: Floats,
    labels: tuple[str, ...],
    head: str | None,
    contract: ModelContract,
    scale: Callable[[Floats, ModelContract], Floats],
) -> list[Answer]:
    flat = row.reshape(-1)
    if len(flat) != len(labels):
        raise wrong_shape(contract, row, f"[{len(labels)}]")
    scores = scale(flat, contract)
    order = np.argsort(-scores, kind="stable")[: contract.output.top]
    return [Answer(labels[i], float(min(1.0, max(0.0, scores[i]))), head) for i in order]


DETECTORS: dict[str, Callable[[Floats, ModelContract], Candidates]] = {
    "yolox": _yolox,
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "end2end": _end2end,
}
#: Detectors with two outputs: boxes and classes.
PAIRED: dict[str, Callable[[Floats, Floats, ModelContract], Candidates]] = {"detr": _detr, "rfdetr": _rfdetr}
CLASSIFIERS: dict[str, Callable[[Floats, ModelContract], Floats]] = {"softmax": _softmax, "logits": _logits}
#: Detectors whose boxes have masks: boxes and prototypes.
MASKED: dict[str, Callable[[Floats, int, ModelContract], Candidates]] = {
    "yolov8-seg": _yolov8_seg,
    "end2end-seg": _end2end_seg,
}
#: Models that answer a map (pipeline/maps.py).
MAPS = frozenset({"segmentation", "segmentation-probabilities", "classmap", "anomaly"})
#: Whose answers have shapes: to follow an edge takes milliseconds, however few numbers there are.
SHAPED = MAPS | set(MASKED)
#: All known decoders, by task.
DECODERS: dict[str, str] = {
    **dict.fromkeys([*DETECTORS, *PAIRED, *MASKED, *(MAPS - {"anomaly"})], "detection"),
    "anomaly": "anomaly",
    **dict.fromkeys(CLASSIFIERS, "classification"),
}
