"""Tiny real models whose answers tell: the score is the picture's mean brightness, so a mixed-up batch is a wrong answer."""

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import tomli_w
from onnx import TensorProto, helper, numpy_helper

from eyeline.inference.bundles import EXPECTED, WEIGHTS, write_manifest

SIDE = 32
GREYS = {"black.png": 0, "dark.png": 51, "bright.png": 204, "white.png": 255}


def write_brightness_bundle(
    models_dir: Path,
    name: str = "brightness",
    *,
    version: str = "1.0.0",
    offset: float = 0.0,
    nan_below: float | None = None,
    work: int = 0,
    max_batch: int = 8,
    golden: bool = True,
) -> Path:
    """A classifier: labels dark and bright, the score of bright is the mean brightness (0..1) plus `offset`.

    Below `nan_below` the answer is NaN; `work` adds that many products of 256 × 256 matrices to each run.
    """
    weights = brightness_graph(offset=offset, nan_below=nan_below, work=work)
    contract = _contract(name, version, "classification", ["dark", "bright"], max_batch)
    contract["output"] = {"decoder": "softmax", "score_threshold": 0.0, "top": 2}
    answers = [
        {
            "file": file,
            "detections": [],
            "classifications": _ranked(grey / 255 + offset),
        }
        for file, grey in GREYS.items()
        if nan_below is None or grey / 255 >= nan_below
    ]
    return write_bundle(models_dir / name, weights, contract, answers if golden else [])


def write_brightness_versions(models: Path) -> Path:
    """A model in two versions, of which the first serves."""
    for number in ("1.0.0", "2.0.0"):
        write_brightness_bundle(models / "scratch", version=number, offset=0.01 * int(number[0]))
        (models / "brightness").mkdir(exist_ok=True)
        (models / "scratch" / "brightness").rename(models / "brightness" / number)
    (models / "scratch").rmdir()
    (models / "brightness" / "current").write_text("1.0.0\n")
    return models


def write_box_bundle(
    models_dir: Path, name: str = "box", *, version: str = "1.0.0", work: int = 0, max_batch: int = 8
) -> Path:
    """A detector in YOLOv8's layout: one box, `thing`, the middle quarter of the picture; its score is the brightness."""
    weights = brightness_graph(work=work, box=True)
    contract = _contract(name, version, "detection", ["thing"], max_batch)
    contract["output"] = {"decoder": "yolov8", "score_threshold": 0.1, "iou_threshold": 0.5, "max_detections": 10}
    box = [16.0, 12.0, 48.0, 36.0]  # of the 64 × 48 golden pictures
    answers = [
        {
            "file": file,
            "detections": [{"label": "thing", "score": grey / 255, "box": box}] if grey / 255 >= 0.1 else [],
            "classifications": [],
        }
        for file, grey in GREYS.items()
    ]
    return write_bundle(models_dir / name, weights, contract, answers)


def write_bundle(path: Path, weights: bytes, contract: dict[str, Any], answers: list[dict[str, Any]]) -> Path:
    """Write any bundle with the grey golden pictures."""
    (path / "golden").mkdir(parents=True, exist_ok=True)
    for file, grey in GREYS.items():
        cv2.imwrite(str(path / "golden" / file), np.full((48, 64, 3), grey, np.uint8))
    (path / WEIGHTS).write_bytes(weights)
    (path / "model.toml").write_text(tomli_w.dumps(contract))
    (path / "card.md").write_text(f"# {contract['name']}\n\nIts score is the picture's mean brightness.\n")
    expected = {"schema_version": 1, "tolerance": {"iou": 0.9, "score": 0.01, "class_flips": 0}, "images": answers}
    (path / EXPECTED).write_bytes(msgspec.json.encode(expected))
    write_manifest(path)
    return path


def grey_picture(brightness: float, height: int = 48, width: int = 64, suffix: str = ".png") -> bytes:
    """An encoded picture of one grey, 0..1."""
    done, data = cv2.imencode(suffix, np.full((height, width, 3), round(brightness * 255), np.uint8))
    assert done
    return data.tobytes()


def _contract(name: str, version: str, task: str, labels: list[str], max_batch: int) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": name,
        "version": version,
        "task": task,
        "labels": labels,
        "licence": "Apache-2.0",
        "description": "Mean brightness, for tests.",
        "input": {"name": "images", "size": [SIDE, SIDE], "fit": "stretch", "max_batch": max_batch},
        "provenance": {"source": "made by the tests"},
    }


def _ranked(bright: float) -> list[dict[str, Any]]:
    scores = {"bright": min(1.0, max(0.0, bright)), "dark": min(1.0, max(0.0, 1 - bright))}
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    return [{"label": label, "score": score, "step": None} for label, score in ordered]


def brightness_graph(*, offset: float = 0.0, nan_below: float | None = None, work: int = 0, box: bool = False) -> bytes:
    """The ONNX file: input `images` uint8 [N, 32, 32, 3], output `scores` float32 [N, 2], or [N, 5, 1] for `box`."""
    constants: dict[str, Any] = {
        "top": np.float32(255.0),
        "offset": np.float32(offset),
        "second": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["mean", "top"], ["plain"]),
        helper.make_node("Add", ["plain", "offset"], ["level0"]),
    ]
    last = "level0"
    if nan_below is not None:
        constants |= {"floor": np.float32(nan_below), "zero": np.float32(0.0)}
        nodes += [
            helper.make_node("Sub", ["plain", "floor"], ["above"]),
            helper.make_node("Sqrt", ["above"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["nothing"]),
            helper.make_node("Add", [last, "nothing"], ["level1"]),
        ]
        last = "level1"
    last = _add_work(nodes, constants, work, last)
    nodes += _box_head(last, constants) if box else _class_head(last, constants)
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    output = ["N", 5, 1] if box else ["N", 2]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, output)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _add_work(nodes: list[Any], constants: dict[str, Any], work: int, last: str) -> str:
    """Multiply matrices that depend on the input (so that nothing is folded away) and add nothing of them."""
    if not work:
        return last
    constants |= {
        "matrix": np.full((256, 256), 1 / 256, np.float32),
        "none": np.float32(0.0),
    }
    nodes += [
        helper.make_node("ReduceMax", ["plain"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["matrix", "peak"], ["product0"]),
    ]
    for step in range(work):
        nodes.append(helper.make_node("MatMul", [f"product{step}", "matrix"], [f"product{step + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"product{work}"], ["worked"], keepdims=0),
        helper.make_node("Mul", ["worked", "none"], ["unseen"]),
        helper.make_node("Add", [last, "unseen"], ["level2"]),
    ]
    return "level2"


def _class_head(last: str, constants: dict[str, Any]) -> list[Any]:
    constants["one"] = np.float32(1.0)
    return [
        helper.make_node("Sub", ["one", last], ["dark"]),
        helper.make_node("Unsqueeze", ["dark", "second"], ["dark2"]),
        helper.make_node("Unsqueeze", [last, "second"], ["bright2"]),
        helper.make_node("Concat", ["dark2", "bright2"], ["scores"], axis=1),
    ]


def _box_head(last: str, constants: dict[str, Any]) -> list[Any]:
    """[N, 5, 1]: the middle quarter of the input, and the brightness."""
    constants["box"] = np.array([[SIDE / 2, SIDE / 2, SIDE / 2, SIDE / 2]], np.float32)
    constants["nought"] = np.float32(0.0)
    constants["third"] = np.array([2], np.int64)
    return [
        helper.make_node("Unsqueeze", [last, "second"], ["score"]),
        helper.make_node("Mul", ["score", "nought"], ["nowhere"]),
        helper.make_node("Add", ["nowhere", "box"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "score"], ["flat"], axis=1),
        helper.make_node("Unsqueeze", ["flat", "third"], ["scores"]),
    ]
