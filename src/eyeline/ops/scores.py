"""Figures of a model on labelled pictures: pure functions over answers and truths, for `eyeline models eval`."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import ConfigError
from eyeline.inference.bundles import ExpectedDetection
from eyeline.inference.golden import overlap

Box = tuple[float, float, float, float]
#: What a truth that nothing found, and a detection that nothing is under, count as in a confusion matrix.
NOTHING = "(nothing)"


@dataclass(frozen=True)
class Truth:
    """A labelled box, xyxy in pixels of the upright original."""

    label: str
    box: Box


@dataclass(frozen=True)
class Seen:
    """One picture: what is in it, and what the model said, best first."""

    truths: Sequence[Truth]
    found: Sequence[ExpectedDetection]


@dataclass(frozen=True)
class Named:
    """One classified picture or head: the true label, the label said, its score, and all scores by label."""

    truth: str
    said: str
    score: float
    scores: Mapping[str, float]


def average_precision(pictures: Sequence[Seen], labels: Sequence[str], iou: float) -> dict[str, float]:
    """Average precision of each class that occurs, at one IoU, by pycocotools. Raises ConfigError where it is not there."""
    try:
        from pycocotools.coco import COCO  # noqa: PLC0415 - an extra
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError("mAP is measured by pycocotools: pip install 'eyeline[eval]'") from error
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _coco_truth(pictures, labels)
        truth.createIndex()
        found = _coco_found(pictures, labels)
        if not found:
            return dict.fromkeys((label for label in labels if _occurs(pictures, label)), 0.0)
        measured = COCOeval(truth, truth.loadRes(found), "bbox")
        measured.params.iouThrs = np.array([iou])
        measured.params.maxDets = [1, 10, max(100, *(len(picture.found) for picture in pictures))]
        measured.evaluate()
        measured.accumulate()
    precision: NDArray[np.float64] = measured.eval["precision"][0, :, :, 0, 2]  # [recall, class], all areas, all boxes
    return {
        label: float(precision[:, index].mean())
        for index, label in enumerate(labels)
        if (precision[:, index] >= 0).any()
    }


def _occurs(pictures: Sequence[Seen], label: str) -> bool:
    return any(truth.label == label for picture in pictures for truth in picture.truths)


def _coco_truth(pictures: Sequence[Seen], labels: Sequence[str]) -> dict[str, Any]:
    rows = [(number, truth) for number, picture in enumerate(pictures, 1) for truth in picture.truths]
    return {
        "info": {},
        "images": [{"id": number} for number in range(1, len(pictures) + 1)],
        "categories": [{"id": number, "name": label} for number, label in enumerate(labels, 1)],
        "annotations": [
            {
                "id": index,
                "image_id": number,
                "category_id": labels.index(truth.label) + 1,
                "bbox": _xywh(truth.box),
                "area": _xywh(truth.box)[2] * _xywh(truth.box)[3],
                "iscrowd": 0,
            }
            for index, (number, truth) in enumerate(rows, 1)
        ],
    }


def _coco_found(pictures: Sequence[Seen], labels: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": labels.index(box.label) + 1, "bbox": _xywh(box.box), "score": box.score}
        for number, picture in enumerate(pictures, 1)
        for box in picture.found
    ]


def _xywh(box: Box) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def matched(picture: Seen, iou: float) -> list[bool]:
    """For each found box, best first: whether it is the first on a truth of its label."""
    return judged(picture, iou)[0]


def judged(picture: Seen, iou: float) -> tuple[list[bool], list[Truth]]:
    """(`matched`, the truths that nothing found)."""
    free = list(picture.truths)
    right = []
    for box in sorted(picture.found, key=lambda each: -each.score):
        best = max(
            (truth for truth in free if truth.label == box.label),
            key=lambda truth: overlap(truth.box, box.box),
            default=None,
        )
        hit = best is not None and overlap(best.box, box.box) >= iou
        if hit and best is not None:
            free.remove(best)
        right.append(hit)
    return right, free


def f_scores(pictures: Sequence[Seen], iou: float, threshold: float) -> dict[str, dict[str, float]]:
    """Precision, recall and F-score over all boxes: at the bundle's threshold, and at the best one."""
    scores = np.array([s for p in pictures for s in sorted((box.score for box in p.found), reverse=True)], np.float64)
    right = np.array([hit for picture in pictures for hit in matched(picture, iou)], bool)
    total = sum(len(picture.truths) for picture in pictures)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    f = 2 * hits / np.maximum(1, np.arange(1, len(hits) + 1) + total)
    best = float(scores[f.argmax()]) if len(f) else threshold
    return {
        "at_threshold": _prf(scores, hits, total, threshold),
        "best": _prf(scores, hits, total, best),
    }


def _prf(scores: NDArray[np.float64], hits: NDArray[np.int64], total: int, threshold: float) -> dict[str, float]:
    said = int((scores >= threshold).sum())
    right = int(hits[said - 1]) if said else 0
    precision, recall = right / said if said else 0.0, right / total if total else 0.0
    f = 2 * right / (said + total) if said + total else 0.0
    return {"threshold": threshold, "precision": precision, "recall": recall, "f": f}


def confusion_of_boxes(pictures: Sequence[Seen], iou: float, threshold: float) -> dict[str, dict[str, int]]:
    """Truth → said → count, over boxes matched by place alone; what is missed, or said of nothing, is `(nothing)`."""
    table: dict[str, dict[str, int]] = {}
    for picture in pictures:
        free = list(picture.truths)
        for box in sorted(picture.found, key=lambda each: -each.score):
            if box.score < threshold:
                continue
            best = max(free, key=lambda truth: overlap(truth.box, box.box), default=None)
            if best is not None and overlap(best.box, box.box) >= iou:
                free.remove(best)
                _count(table, best.label, box.label)
            else:
                _count(table, NOTHING, box.label)
        for truth in free:
            _count(table, truth.label, NOTHING)
    return table


def confusion_of_labels(answers: Sequence[Named]) -> dict[str, dict[str, int]]:
    """Truth → said → count."""
    table: dict[str, dict[str, int]] = {}
    for answer in answers:
        _count(table, answer.truth, answer.said)
    return table


def _count(table: dict[str, dict[str, int]], truth: str, said: str) -> None:
    row = table.setdefault(truth, {})
    row[said] = row.get(said, 0) + 1


def f_by_label(table: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """F-score of each true label of a confusion table."""
    said: dict[str, int] = {}
    for row in table.values():
        for label, count in row.items():
            said[label] = said.get(label, 0) + count
    return {
        label: 2 * row.get(label, 0) / (sum(row.values()) + said.get(label, 0))
        for label, row in table.items()
        if label != NOTHING
    }


def calibration_error(scores: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Expected calibration error: how far, on average, a score is from the share of right answers at that score."""
    if not scores:
        return 0.0
    values, hits = np.asarray(scores, np.float64), np.asarray(right, np.float64)
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    gaps = [
        (place == number).mean() * abs(values[place == number].mean() - hits[place == number].mean())
        for number in range(bins)
        if (place == number).any()
    ]
    return float(sum(gaps))


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve, ties counted half; NaN where only one kind occurs."""
    values, wanted = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if wanted.all() or not wanted.any():
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    ones = int(wanted.sum())
    return float((ranks[wanted].sum() - ones * (ones + 1) / 2) / (ones * (len(values) - ones)))
