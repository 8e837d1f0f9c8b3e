"""How well a model finds the places of defects: its regions or masks against labelled masks (255 is defect), pixel by pixel.

The data are a CSV file with the columns `image` and `mask`; a row without a mask is a good picture.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyeline.core.errors import ConfigError
from eyeline.core.types import Floats
from eyeline.inference.answers import Infer, answer_of, tensor_of
from eyeline.inference.bundles import Answer
from eyeline.ops import scores
from eyeline.pipeline.contract import ModelContract
from eyeline.pipeline.geometry import components, filled
from eyeline.pipeline.maps import ANOMALOUS, NORMAL, anomaly, upright

#: Bins of the scores of all pixels: an AUROC to four digits without keeping them.
_BINS = 4096
#: A labelled region counts as found where so much of it is covered.
COVERED = 0.1


@dataclass(frozen=True)
class MaskedSample:
    """A picture, its mask (None: it is good), and what its row says beside."""

    path: Path
    mask: Path | None
    row: Mapping[str, str]


@dataclass
class _Pixels:
    """Counts over the pixels of all pictures."""

    inside: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    outside: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    both: int = 0
    either: int = 0
    ious: list[float] = field(default_factory=list)
    regions: int = 0
    found: int = 0


def has_masks(data: Path) -> bool:
    """Whether the data say where things are, pixel by pixel."""
    if data.suffix != ".csv":
        return False
    with data.open(newline="") as file:
        return "mask" in (csv.DictReader(file).fieldnames or ())


def read(data: Path, where: Mapping[str, str]) -> list[MaskedSample]:
    """The rows with these values. Raises ConfigError naming the column that is not there, or the mask."""
    with data.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = sorted({"image", "mask", *where} - set(reader.fieldnames or ()))
        if missing:
            raise ConfigError(f"{data} has no column {', '.join(missing)}; masks are named in the column mask")
        rows = [row for row in reader if all(row[key] == value for key, value in where.items())]
    if not rows:
        raise ConfigError(f"{data} holds no picture{' with ' + str(dict(where)) if where else ''}")
    samples = [
        MaskedSample(data.parent / row["image"], data.parent / row["mask"] if row["mask"] else None, row)
        for row in rows
    ]
    lost = next((each.mask for each in samples if each.mask is not None and not each.mask.is_file()), None)
    if lost is not None:
        raise ConfigError(f"{data} names the mask {lost}, which is not there")
    return samples


def asked(data: bytes, sample: MaskedSample, contract: ModelContract, infer: Infer) -> tuple[Answer, Floats | None]:
    """The answer, and an anomaly model's map at the size of the mask (None for others). Raises as `ask` does."""
    tensor, placement = tensor_of(data, contract)
    outputs = infer({contract.input.name: tensor})
    answer = answer_of(outputs, contract, placement, file=sample.path.name)
    if contract.task != "anomaly":
        return answer, None
    width, height = (placement.width, placement.height) if sample.mask is None else _size(sample.mask)
    return answer, upright(anomaly(outputs, contract, placement), contract, placement, width, height)


def measured(contract: ModelContract, seen: Sequence[tuple[MaskedSample, Answer, Floats | None]]) -> dict[str, Any]:
    """IoU of all pixels together and of the mean picture with a defect, region recall; AUROCs of an anomaly model."""
    pixels, marks, bad = _Pixels(), [], []
    for sample, answer, heat in seen:
        truth = _truth(sample, heat)
        _count(pixels, truth, answer, heat)
        bad.append(bool(truth.any()))
        marks.append(next((each.score for each in answer.classifications if each.label == ANOMALOUS), 0.0))
    metrics: dict[str, Any] = {
        "pixel_iou": pixels.both / pixels.either if pixels.either else None,
        "mean_iou": float(np.mean(pixels.ious)) if pixels.ious else None,
        "regions": pixels.regions,
        "region_recall": pixels.found / pixels.regions if pixels.regions else None,
    }
    if contract.task == "anomaly":
        said = [answer.classifications[0].label if answer.classifications else NORMAL for _, answer, _ in seen]
        called = [ANOMALOUS if each else NORMAL for each in bad]
        table: dict[str, dict[str, int]] = {}
        for truth_label, label in zip(called, said, strict=True):
            row = table.setdefault(truth_label, {})
            row[label] = row.get(label, 0) + 1
        metrics |= {
            "image_auroc": _number(scores.auroc(marks, bad)),
            "pixel_auroc": _histogram_auroc(pixels.inside, pixels.outside),
            "accuracy": sum(a == b for a, b in zip(called, said, strict=True)) / len(said),
            "confusion": table,
        }
    return metrics


def _truth(sample: MaskedSample, heat: Floats | None) -> NDArray[np.bool_]:
    if sample.mask is not None:
        with Image.open(sample.mask) as opened:
            return np.asarray(opened.convert("L")) > 127
    if heat is not None:
        return np.zeros(heat.shape, bool)
    with Image.open(sample.path) as opened:
        return np.zeros((opened.height, opened.width), bool)


def _size(mask: Path) -> tuple[int, int]:
    with Image.open(mask) as opened:
        return opened.size


def _count(pixels: _Pixels, truth: NDArray[np.bool_], answer: Answer, heat: Floats | None) -> None:
    height, width = truth.shape
    found = filled([polygon for box in answer.detections for polygon in box.mask], width, height)
    both, either = int((found & truth).sum()), int((found | truth).sum())
    pixels.both += both
    pixels.either += either
    if truth.any():
        pixels.ious.append(both / either)
    numbers, stats = components(truth)
    pixels.regions += len(stats)
    covered = np.bincount(numbers[found], minlength=len(stats) + 1)[1:]
    pixels.found += int((covered >= COVERED * stats[:, 4]).sum())
    if heat is not None:
        bins = np.minimum((heat * _BINS).astype(np.int64), _BINS - 1)
        pixels.inside += np.bincount(bins[truth], minlength=_BINS)
        pixels.outside += np.bincount(bins[~truth], minlength=_BINS)


def _histogram_auroc(inside: NDArray[np.int64], outside: NDArray[np.int64]) -> float | None:
    """Of all pairs of a pixel inside and one outside, the share in which the inner one has the higher score."""
    if not inside.sum() or not outside.sum():
        return None
    below = np.cumsum(outside) - outside
    return float((inside * (below + outside / 2)).sum() / (float(inside.sum()) * float(outside.sum())))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
