"""Which family a foreign model belongs to: told by the exporter's metadata and by the shapes of what it answers."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.core.errors import ConfigError
from eyeline.inference.base import Tensor
from eyeline.pipeline.contract import Scale, Task
from eyeline.pipeline.decoders import boxes_and_classes, boxes_and_prototypes
from eyeline.pipeline.maps import map_and_score

Three = tuple[float, float, float]

#: What the three best-known decoders of detectors see: the cells of strides 8, 16 and 32.
_STRIDES = (8, 16, 32)
#: Boxes that an export with suppression inside gives at most: 300, unless its maker asked for others.
_MOST_CHOSEN = 1000
_LONGEST_METADATA = 1_000_000
#: What to type where a file is no ONNX: by ending, or by its first bytes.
EXPORTS = {
    "pytorch": "with Ultralytics: yolo export model={name} format=onnx; else in Python: "
    "torch.onnx.export(model.eval(), torch.zeros(1, 3, H, W), '{stem}.onnx', external_data=False)",
    "keras": "python -m tf2onnx.convert --keras {name} --output {stem}.onnx --opset 17",
    "savedmodel": "python -m tf2onnx.convert --saved-model {name} --output {stem}.onnx --opset 17",
    "tflite": "python -m tf2onnx.convert --tflite {name} --output {stem}.onnx --opset 17",
    "engine": "an engine fits one GPU and one TensorRT: take the ONNX file it was built from, Eyeline builds engines itself "
    "(inference.providers = ['tensorrt'])",
    "openvino": "take the ONNX file it was converted from; `eyeline models tune` tries OpenVINO by itself",
    "safetensors": "weights without a graph: load them into the model's code, then torch.onnx.export(model.eval(), "
    "torch.zeros(1, 3, H, W), '{stem}.onnx', external_data=False)",
}
_ENDINGS = {
    ".pt": "pytorch", ".pth": "pytorch", ".ckpt": "pytorch", ".pkl": "pytorch", ".torchscript": "pytorch",
    ".h5": "keras", ".hdf5": "keras", ".keras": "keras", ".pb": "savedmodel", ".tflite": "tflite",
    ".engine": "engine", ".plan": "engine", ".trt": "engine", ".xml": "openvino", ".bin": "openvino",
    ".safetensors": "safetensors",
}  # fmt: skip
_STARTS = ((b"PK\x03\x04", "pytorch"), (b"\x80", "pytorch"), (b"\x89HDF", "keras"), (b"ftrt", "engine"))


@dataclass(frozen=True, kw_only=True)
class Family:
    """What goes with a decoder when nothing else is said: how pictures are fitted and which numbers the graph wants."""

    task: Task
    decoder: str
    fit: str
    align: str = "center"
    color: str = "rgb"
    mean: Three = (0.0, 0.0, 0.0)
    scale: Three = (1.0, 1.0, 1.0)
    iou_threshold: float = 0.5
    said: str = ""  # how we came to it, for the reader


IMAGENET_MEAN: Three = (123.675, 116.28, 103.53)
IMAGENET_SCALE: Three = (1 / 58.395, 1 / 57.12, 1 / 57.375)
UNIT: Three = (1 / 255, 1 / 255, 1 / 255)

YOLOX = Family(task="detection", decoder="yolox", fit="letterbox", align="top-left", color="bgr", said="YOLOX")
YOLOV8 = Family(task="detection", decoder="yolov8", fit="letterbox", scale=UNIT, said="Ultralytics v8/v11")
YOLOV5 = Family(task="detection", decoder="yolov5", fit="letterbox", scale=UNIT, said="YOLOv5")
_QUERIES = {"task": "detection", "fit": "stretch", "mean": IMAGENET_MEAN, "scale": IMAGENET_SCALE}
RFDETR = Family(**_QUERIES, decoder="rfdetr", said="RF-DETR (each class for itself)")  # type: ignore[arg-type]
DETR = Family(**_QUERIES, decoder="detr", said="DETR (the last class is nothing)")  # type: ignore[arg-type]
CLASSIFIER = Family(
    task="classification",
    decoder="logits",
    fit="crop",
    mean=IMAGENET_MEAN,
    scale=IMAGENET_SCALE,
    said="classifier",
)
YOLOV8_SEG = Family(
    task="detection", decoder="yolov8-seg", fit="letterbox", scale=UNIT, said="Ultralytics v8/v11 with masks"
)
_CHOSEN = {"task": "detection", "fit": "letterbox", "scale": UNIT, "iou_threshold": 1.0}  # suppressed by itself
END2END = Family(**_CHOSEN, decoder="end2end", said="Ultralytics, boxes chosen in the graph")  # type: ignore[arg-type]
END2END_SEG = Family(
    **_CHOSEN,  # type: ignore[arg-type]
    decoder="end2end-seg",
    said="Ultralytics, boxes with masks chosen in the graph",
)
#: Decoders of boxes that the graph has chosen.
CHOSEN = frozenset({END2END.decoder, END2END_SEG.decoder})
_PIXELS = {"task": "detection", "fit": "stretch", "mean": IMAGENET_MEAN, "scale": IMAGENET_SCALE}
SEGMENTATION = Family(**_PIXELS, decoder="segmentation", said="segmentation (logits)")  # type: ignore[arg-type]
PROBABLE = Family(**_PIXELS, decoder="segmentation-probabilities", said="segmentation")  # type: ignore[arg-type]
CLASSMAP = Family(**_PIXELS, decoder="classmap", said="segmentation (a class for each pixel)")  # type: ignore[arg-type]
ULTRALYTICS_CLASSMAP = Family(
    task="detection",
    decoder="classmap",
    fit="letterbox",
    scale=UNIT,
    said="Ultralytics segmentation (a class for each pixel)",
)
ANOMALY = Family(task="anomaly", decoder="anomaly", fit="stretch", scale=UNIT, said="anomaly map")
ULTRALYTICS_CLASSIFIER = Family(
    task="classification", decoder="softmax", fit="crop", scale=UNIT, said="Ultralytics classifier"
)


@dataclass(frozen=True)
class Exported:
    """What an exporter wrote into the file; None or empty where it wrote nothing."""

    labels: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    task: str | None = None
    description: str = ""
    licence: str = ""
    ultralytics: bool = False
    anomalib: "Anomalib | None" = None


@dataclass(frozen=True)
class Anomalib:
    """What anomalib says of its model: scales of the picture's score and of the map, and normalisation outside of the graph."""

    picture: Scale
    pixel: Scale
    mean: Three | None = None
    scale: Three | None = None


def refuse_other_formats(path: Path) -> None:
    """Raises ConfigError with the export command where `path` is another framework's file, whatever it is called."""
    kind = _kind_of(path)
    if kind is None:
        return
    what = (
        "a pickle runs code when it is opened, so it never is here" if kind == "pytorch" else f"it is {kind}'s format"
    )
    way = EXPORTS[kind].format(name=path.name, stem=path.stem)
    raise ConfigError(f"{path.name} is no ONNX file ({what}). Export it: {way}")


def _kind_of(path: Path) -> str | None:
    if path.is_dir():
        return "savedmodel"
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:8] == b"TFL3":
        return "tflite"
    by_content = next((kind for mark, kind in _STARTS if start.startswith(mark)), None)
    return _ENDINGS.get(path.suffix.lower(), by_content)


def exported(metadata: Mapping[str, str]) -> Exported:
    """Ultralytics' metadata: `names`, `imgsz`, `task` as Python literals, which are read and never run."""
    if "names" not in metadata:
        return Exported()
    names = _literal(metadata["names"])
    labels = names.values() if isinstance(names, dict) else names if isinstance(names, list | tuple) else ()
    size = _literal(metadata.get("imgsz", "None"))
    square = [size, size] if isinstance(size, int) else size
    return Exported(
        labels=tuple(str(label) for label in labels),
        size=(int(square[0]), int(square[1])) if isinstance(square, list | tuple) and len(square) == 2 else None,
        task=metadata.get("task"),
        description=metadata.get("description", "")[:300],
        licence=metadata.get("license", "")[:200],
        ultralytics="stride" in metadata,
    )


def anomalib(content: Mapping[str, Any], where: str) -> Anomalib | None:
    """Read anomalib's `metadata.json`, of any of its versions; None where these are no such metadata. Raises ConfigError."""
    if not {"image_threshold", "pixel_threshold"} & content.keys():
        return None
    try:
        picture, pixel = _scale(content, "image", "pred_scores"), _scale(content, "pixel", "anomaly_maps")
        outside = _found(content.get("transform"), "mean"), _found(content.get("transform"), "std")
        mean, std = (None if each is None else tuple(255.0 * float(value) for value in each) for each in outside)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} is no metadata of anomalib's ({error}); export the model again") from error
    if mean is None or std is None or len(mean) != 3 or len(std) != 3 or not all(std):
        return Anomalib(picture, pixel)  # from 1.0 on the graph normalises by itself
    return Anomalib(picture, pixel, mean, tuple(1 / value for value in std))  # type: ignore[arg-type]


def _scale(content: Mapping[str, Any], name: str, metric: str) -> Scale:
    """`image_threshold` with `min` and `max`, which later versions keep for scores and maps apart (`pred_scores.max`)."""
    threshold = content.get(f"{name}_threshold", content.get("image_threshold", 0.5))
    low, high = (content.get(f"{metric}.{end}", content.get(end)) for end in ("min", "max"))
    if low is None or high is None:  # normalised already: the threshold is where it is
        return Scale(threshold=float(threshold))
    if not float(low) < float(high):
        raise ValueError(f"min {low} and max {high} of the {name} scores")
    return Scale(threshold=float(threshold), minimum=float(low), maximum=float(high))


def _found(content: Any, key: str, depth: int = 0) -> Any:
    """The first list under `key`, however deep in the description of a transform."""
    if depth > 8 or not isinstance(content, dict | list):
        return None
    if isinstance(content, dict) and isinstance(content.get(key), list):
        return content[key]
    inner = content.values() if isinstance(content, dict) else content
    return next((found for each in inner if (found := _found(each, key, depth + 1)) is not None), None)


def _literal(text: str) -> Any:
    """A Python literal, or None for anything else (calls, names, absurd lengths)."""
    try:
        return ast.literal_eval(text) if len(text) <= _LONGEST_METADATA else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def needed(outputs: Mapping[str, Tensor], family: Family) -> list[str]:
    """The outputs that the family's decoder reads; anomalib's own labels and masks are made from the other two again."""
    if family.decoder != "anomaly":
        return list(outputs)
    heat, score = (
        name if name in outputs else found
        for name, found in zip(("anomaly_map", "pred_score"), map_and_score(outputs), strict=True)
    )
    return [name for name in (heat, score) if name is not None]


def propose(outputs: Mapping[str, Tensor], size: tuple[int, int], told: Exported, decoder: str | None) -> Family:
    """The family of a model that answers a batch of one with `outputs`.

    decoder: what the user says it is, None to find out. Raises ConfigError with the reason where nothing fits.
    """
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
    if told.task not in (None, "detect", "classify", "segment", "semantic"):
        raise ConfigError(
            f"this is an Ultralytics {told.task!r} model; detection, segmentation and classification can be imported"
        )
    pair = boxes_and_classes(outputs)
    masks = boxes_and_prototypes(outputs)
    unlike = _anomaly(outputs, told)
    if len(outputs) != 1 and pair is None and masks is None and not unlike:
        raise ConfigError(
            f"the model has {len(outputs)} outputs ({shapes}); one is wanted: [1, anchors, 5 + classes] (YOLOX), "
            "[1, 4 + classes, anchors] (Ultralytics v8/v11), [1, classes], or two: boxes [1, queries, 4] and classes (DETR), "
            "boxes and prototypes [1, M, h, w] (YOLO with masks), a map [1, 1, h, w] and a score (anomaly). "
            "Leave all else out of the export (of torchvision's segmentation keep model(x)['out'])"
        )
    value = next(iter(outputs.values()))
    # nothing in a DETR's shapes tells the two ways of reading its classes apart; the newer one is taken unless it is named
    fits = _fitting(value, size, told) if pair is None else [RFDETR, DETR]
    if masks is not None:
        fits = _with_masks(outputs, masks, size)
    elif unlike or (decoder == "anomaly" and _is_map(value)):
        fits = [ANOMALY]
    if decoder is None:
        if not fits:
            raise ConfigError(_nothing_fits(value, size))
        if fits[0] is SEGMENTATION and value.shape[1] == 1:
            raise ConfigError(
                f"its output {list(value.shape)} is one number for each pixel, and nothing says of what: an anomaly map (lay "
                "anomalib's metadata.json beside it, or --decoder anomaly), or a mask (--decoder segmentation for logits, "
                "segmentation-probabilities for numbers in 0..1)"
            )
        return fits[0]
    chosen = next((family for family in fits if family.decoder == decoder), None)
    if chosen is None:
        seems = fits[0].decoder if fits else "none that is known here"
        raise ConfigError(f"the decoder {decoder!r} does not fit {shapes} at {size[0]}×{size[1]}; what fits: {seems}")
    return chosen


def _anomaly(outputs: Mapping[str, Tensor], told: Exported) -> bool:
    """Whether these are an anomaly model's map, score, or both: by their names, by anomalib's metadata, or by their shapes."""
    heat, score = map_and_score(outputs)
    named = "anomaly_map" in outputs or "pred_score" in outputs
    return (heat is not None or score is not None) and (
        named or told.anomalib is not None or (len(outputs) == 2 and heat is not None and score is not None)
    )


def _is_map(value: Tensor) -> bool:
    """One number for each pixel of a picture."""
    return (value.ndim == 4 and value.shape[1] == 1) or value.ndim == 3


def _with_masks(outputs: Mapping[str, Tensor], names: tuple[str, str], size: tuple[int, int]) -> list[Family]:
    rows, prototypes = (outputs[name] for name in names)
    anchors = sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)
    if rows.shape[2] == anchors and rows.shape[1] > 4 + prototypes.shape[1]:
        return [YOLOV8_SEG]
    return [END2END_SEG] if rows.shape[2] == 6 + prototypes.shape[1] else []


def _segmenting(value: Tensor, size: tuple[int, int], told: Exported) -> list[Family]:
    """A number for each class and pixel, or the class of each pixel, on a grid of the input's shape."""
    grid = value.shape[-2:]
    if value.ndim not in (3, 4) or min(grid) < 8 or abs(grid[0] * size[1] - grid[1] * size[0]) > max(size):
        return []
    if value.ndim == 3 or value.shape[1] == 1:
        whole = bool((value == np.round(value)).all() and (value >= 0).all())
        classmap = ULTRALYTICS_CLASSMAP if told.ultralytics else CLASSMAP
        return [classmap] if whole else [] if value.ndim == 3 else [SEGMENTATION, PROBABLE]
    sums = np.allclose(value.sum(axis=1), 1.0, atol=1e-2)
    sure = bool((value >= -1e-6).all() and sums)
    return [PROBABLE, SEGMENTATION] if sure else [SEGMENTATION, PROBABLE]


def _fitting(value: Tensor, size: tuple[int, int], told: Exported) -> list[Family]:
    """The families whose shape this is, the likeliest first."""
    shape = value.shape[1:]
    anchors = sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)
    if len(shape) == 2 and shape[0] == anchors and shape[1] > 5:
        return [YOLOX]
    if len(shape) == 2 and shape[0] == 3 * anchors and shape[1] > 5:
        return [YOLOV5]
    if len(shape) == 2 and shape[1] == anchors and shape[0] > 4:
        return [YOLOV8]
    if len(shape) == 2 and shape[1] == 6 and shape[0] <= _MOST_CHOSEN:
        return [END2END]
    if [length for length in shape if length != 1] == [value.size] and value.size > 1:
        if told.ultralytics:
            return [ULTRALYTICS_CLASSIFIER]
        both = [CLASSIFIER, _probable(CLASSIFIER)]
        return both[::-1] if _probabilities(value) else both
    return _segmenting(value, size, told)


def _probable(family: Family) -> Family:
    return Family(**(vars(family) | {"decoder": "softmax"}))


def _probabilities(value: Tensor) -> bool:
    """Whether a classifier's answers are probabilities already: none under zero, together one."""
    rows = value.reshape(value.shape[0], -1)
    return bool((rows >= -1e-6).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-2))


def _nothing_fits(value: Tensor, size: tuple[int, int]) -> str:
    shape = value.shape
    anchors = sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)
    said = f"its output {list(shape)} at {size[0]}×{size[1]} fits no decoder"
    return (
        f"{said}: yolox gives [1, {anchors}, 5 + classes], yolov8 [1, 4 + classes, {anchors}], end2end [1, boxes, 6], "
        "a classifier [1, classes], "
        "segmentation [1, classes, h, w] with the input's proportions; "
        "strides other than 8, 16 and 32 are not known here"
    )
