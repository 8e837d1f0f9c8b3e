"""What a model wants and what it says: the typed form of a bundle's `model.toml` (docs/bundles.md)."""

from typing import Literal

import msgspec

Task = Literal["detection", "classification", "anomaly"]


class InputContract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an upright RGB image becomes the model's input tensor.

    `size` is (height, width). For dtype float32 the value is (pixel 0..255 − mean) × scale, by channel in `color` order.
    """

    name: str
    size: tuple[int, int]
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    align: Literal["center", "top-left"] = "center"
    pad: int = 114
    interpolation: Literal["linear", "area", "cubic"] = "linear"
    color: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    dtype: Literal["uint8", "float32"] = "uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exif: Literal["apply", "ignore"] = "apply"
    max_batch: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """The tensor's shape without the batch dimension."""
        height, width = self.size
        return (height, width, 3) if self.layout == "nhwc" else (3, height, width)

    @property
    def nbytes(self) -> int:
        """Bytes of one image's tensor."""
        return self.size[0] * self.size[1] * 3 * (1 if self.dtype == "uint8" else 4)


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One label set of a classifier with several."""

    name: str
    output: str
    labels: tuple[str, ...]


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an anomaly model's raw numbers become scores: `threshold` is 0.5, `maximum` − `minimum` is a width of 1."""

    threshold: float = 0.5
    minimum: float = 0.0
    maximum: float = 1.0


class OutputContract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How raw float32 outputs become detections or classifications."""

    decoder: Literal[
        "yolox", "yolov8", "yolov8-seg", "yolov5", "end2end", "end2end-seg", "detr", "rfdetr", "softmax", "logits",
        "segmentation", "segmentation-probabilities", "classmap", "anomaly",
    ]  # fmt: skip
    score_threshold: float = 0.3
    iou_threshold: float = 0.5
    max_detections: int = 100
    top: int = 1  # classifications reported for each head
    temperature: float = 1.0  # logits are divided by it before softmax (calibration)
    heads: tuple[Head, ...] = ()
    min_region: float = 0.0002  # share of the map; smaller regions are specks
    picture: Scale = Scale()  # of an anomaly model's score of the whole picture
    pixel: Scale = Scale()  # of its map


class ModelContract(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker must know of a model; unknown top-level fields (provenance …) are ignored."""

    name: str
    version: str
    task: Task
    labels: tuple[str, ...]
    input: InputContract
    output: OutputContract
    licence: str = ""
    description: str = ""
    schema_version: int = 1

    @property
    def gives_boxes(self) -> bool:
        """Whether its answers have places: detectors, and anomaly models, which show where."""
        return self.task != "classification"

    @property
    def gives_labels(self) -> bool:
        """Whether it calls the whole picture something."""
        return self.task != "detection"
