"""From a trained network to a bundle: an ONNX file that takes raw pixels, and the folder around it."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import onnx
import tomli_w
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training.data import Picture
from training.model import Classifier, Detector
from training.runner import Found

OPSET = 17
#: Tensors of fewer numbers are kept as they are: biases, and what shapes are made of.
SMALL_TENSOR = 1000
#: Files that say nothing about the answers, and so are no part of a bundle's digest.
UNSIGNED = frozenset({"MANIFEST.sha256", "preview.png", "tuned.toml"})


class RawPixels(nn.Module):
    """uint8 [N, H, W, 3] RGB to what the bundle's decoder reads; a network for grey gets the mean of the colours."""

    def __init__(self, model: Detector | Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        pixels = pixels.mean(3).unsqueeze(1) if self.model.channels == 1 else pixels.permute(0, 3, 1, 2)
        if isinstance(self.model, Classifier):
            return cast("Tensor", self.model(pixels))
        heat, sides = self.model(pixels)
        x1, y1, x2, y2 = self.model.boxes(sides).unbind(1)
        boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        return torch.cat([boxes, heat.sigmoid()], 1).flatten(2)


def export(model: Detector | Classifier, path: Path, size: tuple[int, int]) -> None:
    """Write `model` as ONNX: input `images` uint8 NHWC with a free batch, output `output`, one self-contained file."""
    model = copy.deepcopy(model).cpu().float().eval()
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)
    torch.onnx.export(
        RawPixels(model).eval(),
        (example,),
        str(path),
        input_names=["images"],
        output_names=["output"],
        opset_version=OPSET,
        dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}},
        dynamo=False,
    )
    graph = onnx.load(str(path))
    graph.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def halve(path: Path, target: Path) -> None:
    """Keep large weights as float16 in half the bytes; a runtime casts them back once, when it loads the file."""
    model = onnx.load(str(path))
    casts = []
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.size < SMALL_TENSOR:
            continue
        name, short = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float16), short))
        casts.append(helper.make_node("Cast", [short], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def restored(model: Detector, path: Path) -> Detector:
    """`model` with the weights of an exported one. Batch norms were folded into their convolutions, so they are left out."""
    graph = onnx.load(str(path)).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for convolution, node in zip(convolutions, nodes, strict=True):
        weight, bias = (torch.from_numpy(tensors[name].copy()) for name in node.input[1:3])
        if model.channels == 1 and convolution is convolutions[0]:
            weight = weight.sum(1, keepdim=True)  # earlier exports took the three colours apart
        if weight.shape != convolution.weight.shape:
            raise ValueError(f"{path} is of another network: {node.name} has weights {tuple(weight.shape)}")
        convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
    for step in list(model.modules()):
        if isinstance(step, nn.Sequential) and len(step) > 1 and isinstance(step[1], nn.BatchNorm2d):
            step[1] = nn.Identity()
    return model


def detections(found: Found, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Detections the way `golden/expected.json` writes them."""
    return [
        {"label": labels[c], "score": round(float(s), 4), "box": [round(float(v), 1) for v in box]}
        for box, s, c in zip(found.boxes, found.scores, found.classes, strict=True)
    ]


def write_golden(
    folder: Path, images: Iterable[tuple[str, Picture, Mapping[str, Any]]], tolerance: Mapping[str, float] | None = None
) -> None:
    """Write golden pictures (file name, RGB or grey pixels, expected answers) and `expected.json`."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    entries = []
    for name, image, answers in images:
        pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "golden" / name), pixels)
        entries.append({"file": name, "detections": [], "classifications": [], **answers})
    content = {
        "schema_version": 1,
        "tolerance": dict(tolerance or {"iou": 0.9, "score": 0.03, "class_flips": 0}),
        "images": entries,
    }
    (folder / "golden" / "expected.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def finish(folder: Path, contract: Mapping[str, Any], card: str) -> str:
    """Write model.toml, card.md and MANIFEST.sha256 beside weights and golden set; return the version shown."""
    (folder / "model.toml").write_text(tomli_w.dumps(contract), "utf-8")
    (folder / "card.md").write_text(card, "utf-8")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    lines = [f"{_digest(folder / name)}  {name}\n" for name in files if name not in UNSIGNED]
    manifest = "".join(lines).encode()
    (folder / "MANIFEST.sha256").write_bytes(manifest)
    return f"{contract['version']}+{hashlib.sha256(manifest).hexdigest()[:12]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
