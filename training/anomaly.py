"""An anomaly model from good pictures alone: where a patch's features are unlike those of good ones (as PaDiM does it).

The features are those of a classifier that is there already (its first blocks, an ONNX file). A Gaussian over the patches of
good pictures, shared by all places, whitens them; a patch's distance from the mean is its number. All of it is one ONNX
graph in the layout of anomalib's exports (`anomaly_map`, `pred_score`, metadata.json beside it), made with numpy: no
training framework is needed.

    python -m training.anomaly --good good/ --trunk efficientnet_lite0.onnx --out model/
    eyeline models import model/model.onnx --name tiles --images good/ --licence Apache-2.0
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from eyeline.core.types import Floats
from eyeline.inference.samples import PICTURES
from eyeline.pipeline.contract import InputContract
from eyeline.pipeline.decode import decode
from eyeline.pipeline.geometry import tensor

#: What EfficientNet-lite0 takes; of it, maps of 14 and 7 places a side separate best (lite_layers).
SIDE = 224
#: Added to the covariance: few pictures do not say how features vary together.
SHRINKAGE = 0.01
#: Of the held-out good pictures, this share is under the threshold.
QUIET = 0.95


def fit(good: Sequence[Path], trunk: Path, out: Path, *, layers: Sequence[str], held_out: Sequence[Path] = ()) -> Path:
    """Write `out`/model.onnx and metadata.json. layers: names of tensors in the trunk, [N, C, h, w] each.

    held_out: good pictures that say where the threshold lies; none: every fifth of `good`, which is then not learned from.
    """
    learned = list(good) if held_out else [path for number, path in enumerate(good) if number % 5]
    held_out = list(held_out) or list(good[::5])
    features = _features(trunk, layers)
    session = onnxruntime.InferenceSession(features.SerializeToString(), providers=["CPUExecutionProvider"])
    patches = np.concatenate([_patches(session, path) for path in learned])
    mean = patches.mean(axis=0)
    covariance = np.cov(patches, rowvar=False)
    values, vectors = np.linalg.eigh(covariance + SHRINKAGE * np.trace(covariance) / len(mean) * np.eye(len(mean)))
    model = _distances(features, mean, vectors / np.sqrt(values))
    weights = model.SerializeToString()
    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    answers = [session.run(["anomaly_map", "pred_score"], {"input": pixels_of(path)}) for path in held_out]
    scores = [float(score.reshape(-1)[0]) for _, score in answers]
    peaks = np.concatenate([heat.reshape(-1) for heat, _ in answers])
    threshold = float(np.quantile(scores, QUIET))
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(weights)
    told = {
        "task": "segmentation",
        "image_threshold": threshold,
        "pixel_threshold": threshold,
        "pred_scores.min": min(scores),
        "pred_scores.max": min(scores) + 2 * (threshold - min(scores)),
        "anomaly_maps.min": float(peaks.min()),
        "anomaly_maps.max": float(peaks.min()) + 2 * (threshold - float(peaks.min())),
    }
    (out / "metadata.json").write_text(json.dumps(told, indent=4))
    return out / "model.onnx"


def pixels_of(path: Path) -> Floats:
    """[1, 3, 224, 224], 0..1, by the service's own preprocessing."""
    wanted = InputContract(name="input", size=(SIDE, SIDE), fit="stretch", layout="nchw", dtype="float32")
    made, _ = tensor(decode(path.read_bytes()).pixels, wanted)
    return (made / 255.0)[None].astype(np.float32)


def _patches(session: Any, path: Path) -> NDArray[np.float64]:
    (found,) = session.run(["features"], {"input": pixels_of(path)})
    rows: NDArray[np.float64] = found[0].reshape(found.shape[1], -1).T.astype(np.float64)
    return rows


def _features(trunk: Path, layers: Sequence[str]) -> Any:
    """The trunk up to these tensors, each smoothed over its neighbours, all at the size of the first, in one: `features`.

    Takes 0..1 in RGB: (x · 255 − 127) / 128, which EfficientNet-lite wants, is inside.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(trunk))
    given = model.graph.input[0].name
    nodes = [
        helper.make_node("Mul", ["input", "spread"], ["wide"]),
        helper.make_node("Sub", ["wide", "middle"], [given]),
        *_needed(model.graph, layers),
    ]
    nodes += [_smooth(layer, f"smooth{number}") for number, layer in enumerate(layers)]
    rest = [f"same{number}" for number in range(1, len(layers))]
    nodes.append(helper.make_node("Shape", ["smooth0"], ["shape0"]))
    nodes.append(helper.make_node("Slice", ["shape0", "two", "four"], ["grid"]))
    for number, name in enumerate(rest, 1):
        nodes += [
            helper.make_node("Shape", [f"smooth{number}"], [f"shape{number}"]),
            helper.make_node("Slice", [f"shape{number}", "zero", "two"], [f"head{number}"]),
            helper.make_node("Concat", [f"head{number}", "grid"], [f"goal{number}"], axis=0),
            helper.make_node("Resize", [f"smooth{number}", "", "", f"goal{number}"], [name], mode="linear"),
        ]
    nodes.append(helper.make_node("Concat", ["smooth0", *rest], ["features"], axis=1))
    used = {name for node in nodes for name in node.input}
    stored = [each for each in model.graph.initializer if each.name in used]
    stored += [
        numpy_helper.from_array(np.float32(255 / 128), "spread"),
        numpy_helper.from_array(np.float32(127 / 128), "middle"),
        *(
            numpy_helper.from_array(np.array([at], np.int64), name)
            for name, at in (("zero", 0), ("two", 2), ("four", 4))
        ),
    ]
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "features", [entry], [output], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _smooth(layer: str, name: str) -> Any:
    return helper.make_node("AveragePool", [layer], [name], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def _needed(graph: Any, layers: Sequence[str]) -> list[Any]:
    """The nodes that these tensors are computed by, in order."""
    wanted, kept = set(layers), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _distances(features: Any, mean: NDArray[np.float64], whiten: NDArray[np.float64]) -> Any:
    """The graph from features to the map, at the size of the picture, and its peak."""
    model = onnx.ModelProto()
    model.CopyFrom(features)
    graph = model.graph
    graph.node.extend(
        [
            helper.make_node("Conv", ["features", "whiten", "shift"], ["white"]),
            helper.make_node("ReduceL2", ["white"], ["distance"], axes=[1], keepdims=1),
            helper.make_node("Shape", ["distance"], ["shape_d"]),
            helper.make_node("Slice", ["shape_d", "zero", "two"], ["head_d"]),
            helper.make_node("Concat", ["head_d", "full"], ["goal_d"], axis=0),
            helper.make_node("Resize", ["distance", "", "", "goal_d"], ["large"], mode="linear"),
            helper.make_node("AveragePool", ["large"], ["anomaly_map"], kernel_shape=[9, 9], pads=[4, 4, 4, 4]),
            helper.make_node("ReduceMax", ["anomaly_map"], ["pred_score"], axes=[1, 2, 3], keepdims=0),
        ]
    )
    graph.initializer.extend(
        [
            numpy_helper.from_array(whiten.T[:, :, None, None].astype(np.float32), "whiten"),
            numpy_helper.from_array((-mean @ whiten).astype(np.float32), "shift"),
            numpy_helper.from_array(np.array([SIDE, SIDE], np.int64), "full"),
        ]
    )
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", 1, SIDE, SIDE]),
            helper.make_tensor_value_info("pred_score", TensorProto.FLOAT, ["N"]),
        ]
    )
    onnx.checker.check_model(model)
    return model


def lite_layers(trunk: Path, grids: Sequence[int] = (14, 7)) -> list[str]:
    """The last projections of EfficientNet-lite0 on these grids: what its blocks add to, by their shape."""
    model = onnx.shape_inference.infer_shapes(onnx.load(trunk))
    weights = {each.name: list(each.dims) for each in model.graph.initializer}
    convolutions = [
        node for node in model.graph.node if node.op_type == "Conv" and weights[node.input[1]][2:] == [1, 1]
    ]
    names = [node.output[0] for node in convolutions]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(names, {model.graph.input[0].name: np.zeros((1, 3, SIDE, SIDE), np.float32)})
    narrow = {name: value.shape for name, value in zip(names, values, strict=True) if value.shape[1] <= 192}
    return [[name for name, shape in narrow.items() if shape[2] == grid][-1] for grid in grids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=Path, required=True, help="folder of good pictures")
    parser.add_argument("--trunk", type=Path, required=True, help="efficientnet_lite0.onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder to write model.onnx and metadata.json to")
    given = parser.parse_args()
    good = sorted(path for path in given.good.rglob("*") if path.suffix.lower() in PICTURES)
    print(fit(good, given.trunk, given.out, layers=lite_layers(given.trunk)))


if __name__ == "__main__":
    main()
