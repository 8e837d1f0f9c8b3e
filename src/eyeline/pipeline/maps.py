"""Models that answer a map: what each pixel is (segmentation), or how unlike good ones it is (anomaly). Regions come of it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import InferenceError
from eyeline.core.types import Detections, Floats, Mask
from eyeline.pipeline.contract import ModelContract, Scale
from eyeline.pipeline.geometry import Placement, components, enlarged
from eyeline.pipeline.masks import bounds, mask_of
from eyeline.pipeline.outputs import Outputs, row_of, told, wrong_shape

#: The two labels of every anomaly model, and what a region of one is called.
ANOMALOUS, NORMAL, REGION = "anomalous", "normal", "anomaly"
#: A class of this name is what is left when everything else is found; its regions are not told.
BACKGROUND = "background"
#: Normalised scores from here on are an anomaly.
EDGE = 0.5


class Region(NamedTuple):
    """A connected part of a map that is one thing."""

    kind: int
    score: float
    mask: Mask


class Anomaly(NamedTuple):
    """What an anomaly model says of a picture: its score, its map in scores 0..1 (None where it gives none)."""

    score: float
    heat: Floats | None

    @property
    def share(self) -> float:
        """How much of the map is an anomaly, 0..1."""
        return 0.0 if self.heat is None else float((self.heat >= EDGE).mean())


def map_and_score(outputs: Outputs) -> tuple[str | None, str | None]:
    """The names of an anomaly model's map, [N, 1, H, W] or [N, H, W], and of its score, one number a picture."""
    heat = next((name for name, value in outputs.items() if value.ndim in (3, 4) and value.shape[-1] > 1), None)
    score = next((name for name, value in outputs.items() if value.size == value.shape[0]), None)
    return heat, score


def anomaly(outputs: Outputs, contract: ModelContract, placement: Placement | None, index: int = 0) -> Anomaly:
    """Score and map of image `index`, both in 0..1 with the threshold at 0.5. What lies beside the picture is 0.

    placement: None where the map shows the picture and nothing else.
    """
    heat_name, score_name = map_and_score(outputs)
    if heat_name is None and score_name is None:
        raise InferenceError(f"{contract.name}: an anomaly model gives a map or a score; there are {told(outputs)}")
    heat = None
    raw = None if score_name is None else float(row_of(outputs[score_name], contract, index).reshape(-1)[0])
    if heat_name is not None:
        values = _flat(row_of(outputs[heat_name], contract, index), contract)
        inside = (slice(None), slice(None)) if placement is None else _inside(values.shape, contract, placement)
        raw = float(values[inside].max()) if raw is None else raw
        heat = np.zeros_like(values)
        heat[inside] = normalised(values[inside], contract.output.pixel)
    score = normalised(np.array([raw], np.float32), contract.output.picture)[0]
    return Anomaly(float(score), heat)


def normalised(values: Floats, scale: Scale) -> Floats:
    """Raw numbers → 0..1, the threshold at 0.5: as anomalib's min-max normalisation has it."""
    width = max(scale.maximum - scale.minimum, 1e-12)
    return np.asarray(np.clip((values - scale.threshold) / width + EDGE, 0.0, 1.0), np.float32)


def upright(found: Anomaly, contract: ModelContract, placement: Placement, width: int, height: int) -> Floats:
    """The map laid over the picture at that size: [height, width], 0 where the model was not shown it."""
    if found.heat is None:
        return np.zeros((height, width), np.float32)
    tensor = enlarged(found.heat, contract.input.size[1], contract.input.size[0])
    corners = np.array([[0, 0, placement.width, placement.height]], np.float32)
    left, top, right, bottom = (round(float(edge)) for edge in placement.to_tensor(corners)[0])
    padded = np.zeros((max(1, bottom - top), max(1, right - left)), np.float32)
    rows = slice(max(0, top), min(tensor.shape[0], bottom))
    columns = slice(max(0, left), min(tensor.shape[1], right))
    padded[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = tensor[rows, columns]
    return enlarged(padded, width, height)


def regions(outputs: Outputs, contract: ModelContract, placement: Placement, index: int = 0) -> Detections:
    """The regions of image `index`, largest scores first, each with its mask and the box round it."""
    if contract.output.decoder == "anomaly":
        found = anomaly(outputs, contract, placement, index)
        called = found.heat if found.score >= EDGE else None  # the picture's score decides, the map says where
        listed = [] if called is None else list(_regions(called >= EDGE, called, 0, contract, placement, peak=True))
        return _detections(listed, contract, (REGION,))
    classes, sure = _classes(next(iter(outputs.values())), contract, index)
    listed = [
        region
        for kind, label in enumerate(contract.labels)
        if label.lower() != BACKGROUND
        for region in _regions(classes == kind, sure, kind, contract, placement, peak=False)
    ]
    chosen = [region for region in listed if region.score >= contract.output.score_threshold]
    return _detections(chosen, contract, contract.labels)


def _detections(listed: list[Region], contract: ModelContract, labels: tuple[str, ...]) -> Detections:
    if not listed:
        return Detections.empty(labels)
    best = sorted(listed, key=lambda region: -region.score)[: contract.output.max_detections]
    return Detections(
        np.array([bounds(region.mask) for region in best], np.float32),
        np.array([region.score for region in best], np.float32),
        np.array([region.kind for region in best], np.int64),
        labels,
        tuple(region.mask for region in best),
    )


def _regions(
    set_: NDArray[np.bool_], values: Floats, kind: int, contract: ModelContract, placement: Placement, *, peak: bool
) -> Iterator[Region]:
    """Connected parts of `set_`, the largest `max_detections` of them, with the peak or the mean of `values` as their score."""
    if not set_.any():
        return
    rows, columns = set_.shape
    step = (contract.input.size[1] / columns, contract.input.size[0] / rows)
    numbers, stats = components(set_)
    order = np.argsort(-stats[:, 4], kind="stable")[: contract.output.max_detections]
    for number in order[stats[order, 4] >= contract.output.min_region * set_.size]:
        left, top, width, height, _ = (int(value) for value in stats[number])
        window = numbers[top : top + height, left : left + width] == number + 1
        inside = values[top : top + height, left : left + width][window]
        framed = np.pad(window.astype(np.float32), 1)  # so that an edge lies between the pixel in and the pixel out
        corner = ((left - 1) * step[0], (top - 1) * step[1])
        mask = mask_of(framed, EDGE, corner, step, placement)
        if mask is not None:
            yield Region(kind, float(inside.max() if peak else inside.mean()), mask)


def _classes(output: NDArray[np.float32], contract: ModelContract, index: int) -> tuple[NDArray[np.int64], Floats]:
    """([H, W] class, [H, W] how sure): of logits, of probabilities, or of the class ids themselves; −1 for no class."""
    row = row_of(output, contract, index)
    count, decoder = len(contract.labels), contract.output.decoder
    if decoder == "classmap":
        ids = _flat(row, contract)
        return np.round(ids).astype(np.int64), np.ones_like(ids)
    if row.ndim != 3 or row.shape[0] != count:
        raise wrong_shape(contract, row, f"[{count}, height, width]")
    chances = row if decoder == "segmentation-probabilities" else _chances(row)
    sure = chances.max(axis=0)
    classes = chances.argmax(axis=0).astype(np.int64)
    return (classes if count > 1 else np.where(sure >= EDGE, 0, -1)), sure


def _chances(logits: Floats) -> Floats:
    """Softmax over the classes; a single one is for itself."""
    if logits.shape[0] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))), np.float32)
    weights = np.exp(logits - logits.max(axis=0, keepdims=True))
    return np.asarray(weights / weights.sum(axis=0, keepdims=True), np.float32)


def _flat(row: Floats, contract: ModelContract) -> Floats:
    values = row[0] if row.ndim == 3 and row.shape[0] == 1 else row
    if values.ndim != 2:
        raise wrong_shape(contract, row, "[height, width]")
    return values


def _inside(shape: tuple[int, ...], contract: ModelContract, placement: Placement) -> tuple[slice, slice]:
    """The part of a map that shows the picture, without the letterbox's bars."""
    corners = np.array([[0, 0, placement.width, placement.height]], np.float32)
    left, top, right, bottom = placement.to_tensor(corners)[0] / np.tile(contract.input.size[::-1], 2)
    rows, columns = shape
    return (
        slice(max(0, int(top * rows)), max(1, min(rows, int(np.ceil(bottom * rows))))),
        slice(max(0, int(left * columns)), max(1, min(columns, int(np.ceil(right * columns))))),
    )
