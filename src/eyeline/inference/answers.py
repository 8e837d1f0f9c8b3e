"""From an encoded picture to what a model says of it, outside of a pipeline: for golden checks, evaluation and /predict."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eyeline.core.types import Detections
from eyeline.inference.base import Tensor
from eyeline.inference.bundles import Answer, ExpectedClassification, ExpectedDetection
from eyeline.pipeline.contract import ModelContract
from eyeline.pipeline.decode import decode, probe
from eyeline.pipeline.decoders import Answer as Label
from eyeline.pipeline.decoders import classifications, detections
from eyeline.pipeline.geometry import Placement, needed_size, place

#: Runs one batch: what a runtime's `infer` is.
Infer = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def tensor_of(data: bytes, contract: ModelContract) -> tuple[Tensor, Placement]:
    """An encoded picture as the model's input, [1, …], by the one preprocessing there is. Raises BadImage, TooLarge."""
    wanted = contract.input
    size = probe(data)
    decoded = decode(data, at_least=needed_size(wanted, size.width, size.height), exif=wanted.exif)
    tensor = np.empty((1, *wanted.shape), wanted.dtype)
    return tensor, place(decoded.pixels, wanted, tensor, region=decoded.region)


def answer_of(
    outputs: Mapping[str, Tensor], contract: ModelContract, placement: Placement, index: int = 0, file: str = ""
) -> Answer:
    """What the model says of picture `index` of a batch, boxes in pixels of the upright original. Raises InferenceError."""
    boxes: tuple[ExpectedDetection, ...] = ()
    said: list[Label] = []
    if contract.gives_boxes:
        found = detections(outputs, contract, placement, index)
        rows = zip(found.class_ids, found.scores, found.boxes.astype(float).tolist(), _shapes(found), strict=True)
        boxes = tuple(
            ExpectedDetection(found.labels[kind], float(score), tuple(box), mask) for kind, score, box, mask in rows
        )
    if contract.gives_labels:
        said = classifications(outputs, contract, index, placement=placement)
    labels = tuple(ExpectedClassification(label, score, head) for label, score, head in said)
    return Answer(file, boxes, labels)


def _shapes(found: Detections) -> Sequence[tuple[tuple[float, ...], ...]]:
    if not found.masks:
        return [()] * len(found)
    return [tuple(tuple(polygon) for polygon in mask.polygons) for mask in found.masks]


def ask(data: bytes, contract: ModelContract, infer: Infer, file: str = "") -> Answer:
    """The whole way of one picture. Raises BadImage, TooLarge, InferenceError."""
    tensor, placement = tensor_of(data, contract)
    return answer_of(infer({contract.input.name: tensor}), contract, placement, file=file)
