"""Finishes `parcel-damage` for a site: two folders of its own photographs, `damaged/` and `intact/`, are enough.

`python -m training.parcels --data DIR` learns a new last layer on the shipped network's features (minutes, no
accelerator), shows what it gains on photographs held back by near-duplicate group, and writes a bundle to import.
"""

import argparse
import json
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from training import export
from training.data import PICTURES, Picture, near_duplicate_groups, read_picture
from training.evaluate import auroc, calibration_error, interval, save_json
from training.parcels_data import LABELS
from training.runner import Runner

SHIPPED = Path(__file__).parents[1] / "src/eyeline/bundled/models/parcel-damage"
FOLDS = 5
#: Strength of the penalty: fixed beforehand; a few hundred photographs cannot choose it.
PENALTY = 30.0


@dataclass(frozen=True)
class Photographs:
    """Features [n, views, d] of each photograph's views (as it is, mirrored, two crops), truth and near-duplicate group."""

    features: NDArray[np.float32]
    damaged: NDArray[np.bool_]
    groups: list[str]


class Features:
    """The shipped network up to its last layer, and that layer: score = features · weights + bias."""

    def __init__(self, weights: Path, size: tuple[int, int]) -> None:
        self.model, self.size = onnx.load(str(weights)), size
        gemm = next(node for node in self.model.graph.node if node.op_type == "Gemm")
        self.inputs = {name: tensor for tensor in self.model.graph.initializer for name in [tensor.name]}
        self.last = gemm
        shown = onnx.helper.make_tensor_value_info(gemm.input[0], onnx.TensorProto.FLOAT, None)
        self.model.graph.output.append(shown)
        self.session = ort.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.model.graph.output.pop()

    def of(self, image: Picture) -> NDArray[np.float32]:
        """Features [views, d] of one RGB picture."""
        height, width = image.shape[:2]
        y, x = max(height // 10, 1), max(width // 10, 1)
        views = [image, image[:, ::-1], image[y:-y, x:-x], image[y // 2 :, : -x // 2]]
        fitted = [
            cv2.resize(np.ascontiguousarray(view), self.size[::-1], interpolation=cv2.INTER_LINEAR) for view in views
        ]
        return np.asarray(self.session.run([self.last.input[0]], {"images": np.stack(fitted)})[0], np.float32)

    def replaced(self, weights: NDArray[np.float64], bias: float) -> onnx.ModelProto:
        """The network with another last layer; the shipped calibration behind it is undone."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        scale, shift = self.calibration()
        new = {self.last.input[1]: weights[None] / scale, self.last.input[2]: np.array([(bias - shift) / scale])}
        for tensor in model.graph.initializer:
            if tensor.name in new:
                tensor.CopyFrom(numpy_helper.from_array(new[tensor.name].astype(np.float32), tensor.name))
        return model

    def calibration(self) -> tuple[float, float]:
        """Scale and shift that follow the last layer, told from what the graph makes of a blank picture."""
        blank = np.zeros((1, *self.size, 3), np.uint8)
        pooled = self.session.run([self.last.input[0]], {"images": blank})[0][0]
        weights, bias = (numpy_helper.to_array(self.inputs[name]) for name in self.last.input[1:3])
        other = np.full((1, *self.size, 3), 255, np.uint8)
        pooled2 = self.session.run([self.last.input[0]], {"images": other})[0][0]
        raw = [float(weights[0] @ p + bias[0]) for p in (pooled, pooled2)]
        told = [float(self.session.run(["output"], {"images": p})[0][0, 0]) for p in (blank, other)]
        scale = (told[1] - told[0]) / (raw[1] - raw[0])
        return scale, told[0] - raw[0] * scale


def collect(folder: Path, features: Features) -> Photographs:
    """Reads `damaged/` and `intact/`. Raises ValueError where one is empty."""
    paths = {label: sorted(p for p in (folder / label).glob("*") if p.suffix.lower() in PICTURES) for label in LABELS}
    empty = [label for label, found in paths.items() if not found]
    if empty:
        raise ValueError(
            f"{folder} needs photographs in {' and '.join(f'{label}/' for label in empty)} (jpg, png, webp, bmp)"
        )
    listed = [(path, label) for label, found in paths.items() for path in found]
    found, small = [], []
    for path, _ in track(listed, "looking"):
        image = read_picture(path)
        found.append(features.of(image))
        small.append(np.asarray(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), np.uint8))
    damaged = np.array([label == "damaged" for _, label in listed])
    return Photographs(np.stack(found), damaged, near_duplicate_groups(small))


def fit(photographs: Photographs, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a last layer for features as they come; each photograph counts once."""
    views = photographs.features[chosen]
    flat = views.reshape(-1, views.shape[-1]).astype(np.float64)
    truth = np.repeat(photographs.damaged[chosen], views.shape[1])
    mean, spread = flat.mean(0), flat.std(0) + 1e-3
    learner = LogisticRegression(C=1 / (PENALTY * views.shape[1]), max_iter=2000, class_weight="balanced")
    learner.fit((flat - mean) / spread, truth)
    weights = learner.coef_[0] / spread
    return weights, float(learner.intercept_[0] - mean @ weights)


def gain(photographs: Photographs, shipped: NDArray[np.float64]) -> dict[str, Any]:
    """AUROC of the shipped and of the finished network on folds that share no near-duplicate group with training."""
    finished = np.zeros(len(photographs.damaged))
    for held in _folds(photographs.groups):
        train = np.setdiff1d(np.arange(len(finished)), held)
        weights, bias = fit(photographs, train)
        finished[held] = photographs.features[held, 0] @ weights + bias
    return {"photographs": len(finished), "groups": len(set(photographs.groups)), "folds": FOLDS,
            "shipped": _scored(shipped, photographs), "finished": _scored(finished, photographs)}  # fmt: skip


def _folds(groups: list[str]) -> list[NDArray[np.int64]]:
    """FOLDS sets of indices; whole groups only."""
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold = {names[index]: place % FOLDS for place, index in enumerate(order)}
    return [np.array([i for i, group in enumerate(groups) if fold[group] == number]) for number in range(FOLDS)]


def _scored(scores: NDArray[np.float64], photographs: Photographs) -> dict[str, Any]:
    truth = photographs.damaged
    chance = 1 / (1 + np.exp(-scores))
    told = chance >= 0.5

    def area(chosen: list[int]) -> float:
        return auroc(scores[chosen], truth[chosen]) if 0 < truth[chosen].sum() < len(chosen) else float("nan")

    return {
        "auroc": round(auroc(scores, truth), 4), "auroc_interval": interval(photographs.groups, area),
        "accuracy": round(float((told == truth).mean()), 4),
        "found_damaged": round(float(told[truth].mean()), 4), "flagged_intact": round(float(told[~truth].mean()), 4),
        "calibration_error": round(calibration_error(np.where(told, chance, 1 - chance), told == truth), 4),
    }  # fmt: skip


def write_bundle(out: Path, model: onnx.ModelProto, metrics: dict[str, Any]) -> str:
    """The shipped bundle with the new weights, its golden answers recorded anew; returns its version."""
    shutil.copytree(SHIPPED, out, dirs_exist_ok=True)
    onnx.save(model, str(out / "weights.onnx"))
    toml = tomllib.loads((out / "model.toml").read_text("utf-8"))
    toml["version"] = "1.1.0"
    toml["provenance"]["source"] = "parcel-damage, its last layer learned on a site's own photographs"
    runner = Runner(out / "weights.onnx", (toml["input"]["size"][0], toml["input"]["size"][1]), toml["input"]["fit"])
    expected = json.loads((out / "golden/expected.json").read_text("utf-8"))
    for entry in expected["images"]:
        chances = runner.classify(read_picture(out / "golden" / entry["file"]))[0]
        best = int(chances.argmax())
        entry["classifications"] = [{"label": LABELS[best], "score": round(float(chances[best]), 4), "step": None}]
    (out / "golden/expected.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")
    save_json(out / "metrics.json", metrics)
    return export.finish(out, toml, (out / "card.md").read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with damaged/ and intact/")
    parser.add_argument(
        "--out", type=Path, default=Path(".demo/parcel-damage-finished"), help="where the new bundle goes"
    )
    options = parser.parse_args()
    toml = tomllib.loads((SHIPPED / "model.toml").read_text("utf-8"))
    features = Features(SHIPPED / "weights.onnx", (toml["input"]["size"][0], toml["input"]["size"][1]))
    photographs = collect(options.data, features)
    metrics = {"gain": gain(photographs, shipped_scores(features, photographs))}
    weights, bias = fit(photographs, np.arange(len(photographs.damaged)))
    print(json.dumps(metrics, indent=2))
    print("bundle:", options.out, write_bundle(options.out, features.replaced(weights, bias), metrics))


def shipped_scores(features: Features, photographs: Photographs) -> NDArray[np.float64]:
    """What the shipped last layer says of the photographs as they are."""
    scale, shift = features.calibration()
    weights, bias = (numpy_helper.to_array(features.inputs[name]) for name in features.last.input[1:3])
    return np.asarray((photographs.features[:, 0] @ weights[0] + bias[0]) * scale + shift, np.float64)


if __name__ == "__main__":
    main()
