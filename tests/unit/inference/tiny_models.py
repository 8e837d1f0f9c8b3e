"""Small ONNX files with the shapes of real exports, whose answers depend on colour, so that a wrong fold shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE = 32
ANCHORS = 16 + 4 + 1


def picture(path: Path, colour: tuple[int, int, int], side: int = 64) -> Path:
    """A one-coloured PNG."""
    Image.new("RGB", (side, side), colour).save(path)
    return path


def pictures(folder: Path) -> Path:
    """A red, a green and a blue picture, named so."""
    folder.mkdir()
    for name, colour in {"red": (220, 30, 20), "green": (20, 200, 40), "blue": (10, 40, 230)}.items():
        picture(folder / f"{name}.png", colour)
    return folder


def saved(path: Path, nodes: Sequence[Any], outputs: Sequence[Any], stored: Sequence[Any], **given: Any) -> Path:
    """A model of these nodes on one input `x`."""
    shape = given.get("shape", [1, 3, SIZE, SIZE])
    kind = given.get("kind", TensorProto.FLOAT)
    graph = helper.make_graph(
        list(nodes), "tiny", [helper.make_tensor_value_info("x", kind, shape)], list(outputs), list(stored)
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in given.get("domains", ()))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, given.get("metadata", {}))
    path.write_bytes(model.SerializeToString())
    return path


def constant(name: str, value: Any, kind: Any = np.float32) -> Any:
    """A stored tensor."""
    return numpy_helper.from_array(np.asarray(value, kind), name)


def classifier(path: Path, *, softmax: bool = False, batch: Any = 1, nhwc: bool = False, half: bool = False) -> Path:
    """Answers which channel is strongest: three classes, input 0..1 in RGB."""
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    nodes = [helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2])] if nhwc else []
    nodes += [
        helper.make_node("ReduceMean", ["planes" if nhwc else "x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "sharpness"], ["sharp"]),
        helper.make_node("Softmax", ["sharp"], ["y"], axis=1)
        if softmax
        else helper.make_node("Identity", ["sharp"], ["y"]),
    ]
    shape = [batch, SIZE, SIZE, 3] if nhwc else [batch, 3, SIZE, SIZE]
    output = helper.make_tensor_value_info("y", kind, [batch, 3])
    return saved(path, nodes, [output], [constant("sharpness", [8.0], dtype)], shape=shape, kind=kind)


def detector(path: Path, metadata: dict[str, str] | None = None, shape: Sequence[int] = (1, 6, ANCHORS)) -> Path:
    """Ultralytics' layout: one box in the middle, class 0 as likely as red, class 1 as likely as blue; a fixed batch of 1."""
    boxes = np.zeros((1, 6, ANCHORS), np.float32)
    boxes[0, :4, 0] = [16, 16, 10, 8]
    chooser = np.zeros((3, 6 * ANCHORS), np.float32)
    chooser[0, 4 * ANCHORS] = chooser[2, 5 * ANCHORS] = 1.0
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "chooser"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["scores"]),
        helper.make_node("Add", ["scores", "boxes"], ["y"]),
    ]
    stored = [
        constant("chooser", chooser),
        constant("shape", [1, 6, ANCHORS], np.int64),
        constant("boxes", boxes),
    ]
    if tuple(shape) != (1, 6, ANCHORS):
        nodes[-1].output[0] = "inner"
        stored.append(constant("last", np.zeros(shape)))
        nodes += [
            helper.make_node("ReduceMax", ["inner"], ["top"], keepdims=0),
            helper.make_node("Add", ["top", "last"], ["y"]),
        ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape))
    names = {"names": "{0: 'red', 1: 'blue'}", "stride": "32", "task": "detect", "imgsz": "[32, 32]"}
    return saved(path, nodes, [output], stored, metadata=names if metadata is None else metadata)


def detr(path: Path) -> Path:
    """DETR's two outputs: one box in the middle, class 0 as likely as red, class 1 as likely as blue; and one of nothing."""
    chooser = np.zeros((3, 2 * 2), np.float32)
    chooser[0, 0] = chooser[2, 1] = 8.0
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "chooser"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["raised"]),
        helper.make_node("Add", ["raised", "floor"], ["labels"]),
        helper.make_node("ReduceMax", ["mean"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "boxes"], ["dets"]),
    ]
    stored = [
        constant("chooser", chooser),
        constant("shape", [1, 2, 2], np.int64),
        constant("floor", np.full((1, 2, 2), -4.0)),
        constant("nothing", 0.0),
        constant("boxes", [[[0.5, 0.5, 0.3, 0.25], [0.5, 0.5, 0.1, 0.1]]]),
    ]
    outputs = [
        helper.make_tensor_value_info("dets", TensorProto.FLOAT, [1, 2, 4]),
        helper.make_tensor_value_info("labels", TensorProto.FLOAT, [1, 2, 2]),
    ]
    return saved(path, nodes, outputs, stored)


def parsed(path: Path) -> Any:
    """The model in a file."""
    return onnx.load_model_from_string(path.read_bytes())


def _plane_mean(nodes: list[Any]) -> list[Any]:
    """`mean` [1, 3]: how red, green and blue the picture is; `none` [1]: nought that depends on it."""
    return [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["mean"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "nothing"], ["none"]),
        *nodes,
    ]


def detector_with_masks(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Ultralytics' layout with masks: the detector's box, of which the left half is the thing."""
    boxes = np.zeros((1, 8, ANCHORS), np.float32)
    boxes[0, :4, 0] = [16, 16, 20, 16]
    boxes[0, 6:, 0] = [2, 0.5]  # the mask's coefficients
    chooser = np.zeros((3, 8 * ANCHORS), np.float32)
    chooser[0, 4 * ANCHORS] = chooser[2, 5 * ANCHORS] = 1.0
    prototypes = np.full((1, 2, 8, 8), -1.0, np.float32)
    prototypes[0, 0, :, :4] = 1.0
    prototypes[0, 1] = 0.0
    nodes = _plane_mean(
        [
            helper.make_node("MatMul", ["mean", "chooser"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["scores"]),
            helper.make_node("Add", ["scores", "boxes"], ["output0"]),
            helper.make_node("Add", ["none", "prototypes"], ["output1"]),
        ]
    )
    stored = [
        constant("chooser", chooser), constant("shape", [1, 8, ANCHORS], np.int64), constant("boxes", boxes),
        constant("nothing", 0.0), constant("prototypes", prototypes),
    ]  # fmt: skip
    outputs = [
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 8, ANCHORS]),
        helper.make_tensor_value_info("output1", TensorProto.FLOAT, [1, 2, 8, 8]),
    ]
    names = {"names": "{0: 'red', 1: 'blue'}", "stride": "32", "task": "segment", "imgsz": "[32, 32]"}
    return saved(path, nodes, outputs, stored, metadata=names if metadata is None else metadata)


def chosen(path: Path, *, masks: bool = False, labelled: bool = True) -> Path:
    """Ultralytics' `nms=True`, and its v10 and 26 without suppression: x1, y1, x2, y2, score, class, filled up with noughts.

    The second box lies over the first one: an export that chose both means both. masks: the left half is the thing.
    """
    width = 8 if masks else 6
    rows = np.zeros((1, 50, width), np.float32)
    rows[0, 0, :6] = [6, 8, 26, 24, 0.0, 1]
    rows[0, 1, :6] = [6, 8, 26, 23, 0.0, 1]
    rows[0, :2, 6:] = [2, 0.5][: width - 6]
    scores = np.zeros((1, 50, width), np.float32)
    scores[0, :2, 4] = [1.0, 0.9]
    prototypes = np.full((1, 2, 8, 8), -1.0, np.float32)
    prototypes[0, 0, :, :4], prototypes[0, 1] = 1.0, 0.0
    nodes = _plane_mean(
        [
            helper.make_node("Gather", ["mean", "second"], ["blue"], axis=1),
            helper.make_node("Mul", ["blue", "scores"], ["scored"]),
            helper.make_node("Add", ["scored", "rows"], ["output0"]),
            helper.make_node("Add", ["none", "prototypes"], ["output1"]),
        ][: 4 if masks else 3]
    )
    stored = [
        constant("second", 2, np.int64), constant("scores", scores), constant("rows", rows),
        constant("nothing", 0.0), constant("prototypes", prototypes),
    ]  # fmt: skip
    outputs = [
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 50, width]),
        helper.make_tensor_value_info("output1", TensorProto.FLOAT, [1, 2, 8, 8]),
    ][: 2 if masks else 1]
    names = {"names": "{0: 'red', 1: 'blue', 2: 'never seen'}"} if labelled else {}
    return saved(path, nodes, outputs, stored, metadata={"stride": "32", "imgsz": "[32, 32]", **names})


def segmenter(path: Path, *, ids: bool = False, classes: int = 3) -> Path:
    """Background, and in the left half class 1, in the lower right quarter class 2; as logits, or as the ids themselves."""
    truth = np.zeros((1, SIZE, SIZE), np.int64)
    truth[:, :, : SIZE // 2] = 1
    truth[:, SIZE // 2 :, SIZE // 2 :] = 2
    logits = np.stack([np.where(truth[0] == kind, 6.0, -6.0) for kind in range(3)])[None, -classes:]
    nodes = _plane_mean([helper.make_node("Add", ["none", "logits"], ["scores"])])
    kind = TensorProto.INT64 if ids else TensorProto.FLOAT
    if ids:
        nodes += [helper.make_node("ArgMax", ["scores"], ["masks"], axis=1, keepdims=0)]
    outputs = [helper.make_tensor_value_info("masks" if ids else "scores", kind, None)]
    return saved(path, nodes, outputs, [constant("nothing", 0.0), constant("logits", logits)])


def anomalous(path: Path, *, outputs: Sequence[str] = ("pred_score", "pred_label", "anomaly_map", "pred_mask")) -> Path:
    """Anomalib's layout: a place is the more unlike good ones the redder it is; thresholds of 0.5 inside as from 2.0 on."""
    nodes = [
        helper.make_node("Gather", ["x", "red"], ["anomaly_map"], axis=1),
        helper.make_node("ReduceMax", ["anomaly_map"], ["pred_score"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Greater", ["pred_score", "half"], ["pred_label"]),
        helper.make_node("Greater", ["anomaly_map", "half"], ["pred_mask"]),
        helper.make_node("Identity", ["anomaly_map"], ["output"]),
    ]
    kinds = {"pred_label": TensorProto.BOOL, "pred_mask": TensorProto.BOOL}
    told = [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs]
    return saved(path, nodes, told, [constant("red", [0], np.int64), constant("half", 0.5)], shape=["N", 3, SIZE, SIZE])


def spotted(path: Path, side: int = 64) -> Path:
    """A grey picture with a red square in its lower right quarter."""
    pixels = np.full((side, side, 3), 60, np.uint8)
    pixels[side // 2 : side // 2 + 16, side // 2 : side // 2 + 20] = (250, 60, 60)
    Image.fromarray(pixels).save(path)
    return path
