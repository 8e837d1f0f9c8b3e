"""Examinations: mAP and F-score of detections, accuracy, AUROC and calibration of classifications, each with an interval.

Intervals are percentile bootstraps over capture groups: whole groups are drawn, as their pictures resemble each other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from training.loop import History
from training.runner import Found, overlaps

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the choice of a backend without a screen


@dataclass(frozen=True)
class Examined:
    """One picture's detections against its truth, at one IoU."""

    group: str
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    right: NDArray[np.bool_]  # for each detection: it matched a box of its class that no better one had matched
    truth: NDArray[np.int64]  # the classes of the true boxes


def examine(found: Found, boxes: NDArray[np.float32], classes: NDArray[np.int64], iou: float, group: str) -> Examined:
    """Match detections, best first, to the boxes of their class; each box is found once."""
    right = np.zeros(len(found.scores), bool)
    shared = overlaps(found.boxes, boxes) if len(boxes) else np.zeros((len(found.scores), 0))
    free = np.ones(len(boxes), bool)
    for i in range(len(found.scores)):
        fits = shared[i] * (free & (classes == found.classes[i]))
        if len(fits) and fits.max() >= iou:
            free[fits.argmax()] = False
            right[i] = True
    return Examined(group, found.scores, found.classes, right, classes)


def average_precisions(pictures: Sequence[Examined], count: int) -> NDArray[np.float64]:
    """Area under the precision-recall curve of each class, at every recall; NaN for a class that never occurs."""
    scores, classes, right, truth = (
        np.concatenate([getattr(p, name) for p in pictures]) for name in ("scores", "classes", "right", "truth")
    )
    return np.array([_area(scores[classes == c], right[classes == c], int((truth == c).sum())) for c in range(count)])


def _area(scores: NDArray[np.float32], right: NDArray[np.bool_], total: int) -> float:
    if not total:
        return float("nan")
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    recall = np.concatenate([[0.0], hits / total])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    return float((np.diff(recall) * best).sum())


def f_score(pictures: Sequence[Examined], threshold: float) -> dict[str, float]:
    """Precision, recall and F1 over all classes of the detections at or above `threshold`."""
    scores, right, truth = (np.concatenate([getattr(p, n) for p in pictures]) for n in ("scores", "right", "truth"))
    hits, told = int(right[scores >= threshold].sum()), int((scores >= threshold).sum())
    precision, recall = hits / max(told, 1), hits / max(len(truth), 1)
    return {"precision": precision, "recall": recall, "f1": 2 * hits / max(told + len(truth), 1)}


def best_threshold(pictures: Sequence[Examined]) -> float:
    """The score threshold with the best F1: to be chosen on validation pictures, never on an examiner's."""
    grid = np.arange(0.05, 0.96, 0.01)
    return round(float(max(grid, key=lambda t: f_score(pictures, float(t))["f1"])), 2)


def interval(
    groups: Sequence[str], score: Callable[[list[int]], float], rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval of `score(indices)` when whole groups are drawn with replacement."""
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    members = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    drawn = (rng.choice(names, len(names)) for _ in range(rounds))
    values = [score([i for name in names_ for i in members[str(name)]]) for names_ in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def report(pictures: Sequence[Examined], labels: Sequence[str], threshold: float, rounds: int = 1000) -> dict[str, Any]:
    """Everything about a detector on one examiner set, ready for JSON."""
    groups = [p.group for p in pictures]

    def mean_ap(chosen: Sequence[int]) -> float:
        return float(np.nanmean(average_precisions([pictures[i] for i in chosen], len(labels))))

    def f1(chosen: Sequence[int]) -> float:
        return f_score([pictures[i] for i in chosen], threshold)["f1"]

    everything = range(len(pictures))
    precisions = average_precisions(pictures, len(labels))
    return {
        "pictures": len(pictures),
        "objects": int(sum(len(p.truth) for p in pictures)),
        "groups": len(set(groups)),
        "map": round(mean_ap(everything), 4),
        "map_interval": interval(groups, mean_ap, rounds),
        "ap": {label: round(float(value), 4) for label, value in zip(labels, precisions, strict=True)},
        "threshold": threshold,
        **{name: round(value, 4) for name, value in f_score(pictures, threshold).items()},
        "f1_interval": interval(groups, f1, rounds),
        "by_group": {name: _of_group(pictures, name, threshold, len(labels)) for name in _few(groups)},
    }


def _few(groups: Sequence[str]) -> list[str]:
    """The groups' names, where there are few enough to be read."""
    names = sorted(set(groups))
    return names if len(names) <= 20 else []


def _of_group(pictures: Sequence[Examined], name: str, threshold: float, count: int) -> dict[str, float]:
    own = [p for p in pictures if p.group == name]
    score = float(np.nanmean(average_precisions(own, count)))
    return {"pictures": len(own), "map": round(score, 4), "f1": round(f_score(own, threshold)["f1"], 4)}


def confusion(
    found: Sequence[Found],
    truth: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    count: int,
    threshold: float,
    iou: float,
) -> NDArray[np.int64]:
    """Rows are true classes, columns told ones; the last row is false alarms, the last column misses."""
    matrix = np.zeros((count + 1, count + 1), np.int64)
    for one, (boxes, classes) in zip(found, truth, strict=True):
        told = np.flatnonzero(one.scores >= threshold)
        shared = overlaps(one.boxes[told], boxes)
        free = np.ones(len(boxes), bool)
        for row, i in enumerate(told):
            fits = shared[row] * free
            hit = len(fits) > 0 and fits.max() >= iou
            matrix[classes[fits.argmax()] if hit else count, one.classes[i]] += 1
            if hit:
                free[fits.argmax()] = False
        for missed in classes[free]:
            matrix[missed, count] += 1
    return matrix


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative; ties count half."""
    above = scores[positive][:, None] - scores[~positive][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error over bins of equal width."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[index == b].mean() - right[index == b].mean()) * (index == b).mean() for b in np.unique(index)
    ]
    return float(np.sum(gaps))


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Metrics as they are read by people and by tests: sorted, indented."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def draw_confusion(
    path: Path, matrix: NDArray[np.int64], labels: Sequence[str], told: Sequence[str] | None = None
) -> None:
    """A confusion matrix as a small PNG."""
    figure, axes = plt.subplots(figsize=(4.6, 4.2), dpi=90)
    axes.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    columns = list(told or labels)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for (y, x), value in np.ndenumerate(matrix):
        axes.text(x, y, str(value), ha="center", va="center", fontsize=7)
    axes.set_xlabel("told")
    axes.set_ylabel("true")
    _save(figure, path)


def draw_curve(path: Path, history: History, name: str = "score") -> None:
    """Loss and, where the run was examined, score against steps, as a small PNG."""
    figure, axes = plt.subplots(figsize=(5.2, 3.2), dpi=90)
    axes.plot(*zip(*history.loss, strict=True), color="tab:blue")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    if history.score:
        right = axes.twinx()
        right.plot(*zip(*history.score, strict=True), color="tab:orange", marker="o", markersize=3)
        right.set(ylabel=name, ylim=(0, 1))
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
