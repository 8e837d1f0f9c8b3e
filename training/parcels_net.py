"""The damage network: early layers of EfficientNet-lite0, from its ONNX file, and a head that looks for the worst spot."""

import math
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import Tensor, nn

#: EfficientNet-lite0 up to stride 16: kernel, stride, expansion, output channels of each block.
BLOCKS = (
    (3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80),
    (3, 1, 6, 80), (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
)  # fmt: skip


class Same(nn.Module):
    """A convolution padded as TensorFlow pads: the odd pixel at the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        total = kernel - stride if stride > 1 else kernel - 1
        before, after = total // 2, total - total // 2
        self.pad = (before, after, before, after) if before != after else None
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, 0 if self.pad else before, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv(x if self.pad is None else nn.functional.pad(x, self.pad)))


class Inverted(nn.Module):
    """Expand, filter each channel, project; batch norms are folded in already."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expansion
        steps: list[nn.Module] = [Same(inputs, wide, 1, 1), nn.ReLU6()] if expansion > 1 else []
        steps += [Same(wide, wide, kernel, stride, wide), nn.ReLU6(), Same(wide, outputs, 1, 1)]
        self.steps = nn.Sequential(*steps)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.steps(x)
        return x + out if self.residual else cast("Tensor", out)


class Trunk(nn.Module):
    """Pixels [N, 3, H, W] 0..255 to features [N, 112, H/16, W/16]; the first `frozen` blocks do not learn."""

    def __init__(self, frozen: int = 10, blocks: tuple[tuple[int, int, int, int], ...] = BLOCKS) -> None:
        super().__init__()
        self.stem = nn.Sequential(Same(3, 32, 3, 2), nn.ReLU6())
        widths = [32, *(block[3] for block in blocks)]
        self.blocks = nn.ModuleList(Inverted(widths[i], *block) for i, block in enumerate(blocks))
        self.frozen = frozen
        for module in [self.stem, *self.blocks[:frozen]]:
            module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.late(self.early(pixels))

    def early(self, pixels: Tensor) -> Tensor:
        """What the frozen part makes of pixels: it never changes, so training may remember it."""
        x = self.stem((pixels - 127.0) / 128.0)
        for block in self.blocks[: self.frozen]:
            x = block(x)
        return cast("Tensor", x)

    def late(self, x: Tensor) -> Tensor:
        """The part that learns."""
        for block in self.blocks[self.frozen :]:
            x = block(x)
        return x

    def take(self, weights: Path) -> "Trunk":
        """Start from EfficientNet-lite0's weights."""
        take_convolutions(self, weights)
        return self


def take_convolutions(module: nn.Module, weights: Path) -> None:
    """Copy the weights of EfficientNet-lite0's ONNX file, whose convolutions come in the order of the module's."""
    graph = onnx.load(str(weights)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    theirs = [node for node in graph.node if node.op_type == "Conv"]
    ours = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    for conv, node in zip(ours, theirs, strict=False):
        conv.weight.data = torch.from_numpy(values[node.input[1]].copy())
        cast("nn.Parameter", conv.bias).data = torch.from_numpy(values[node.input[2]].copy())


class DamageNet(nn.Module):
    """Logits [N, 2] for damaged, intact. Damage is local, so the head keeps the mean and the strongest of each feature."""

    def __init__(self, frozen: int = 10, width: int = 96) -> None:
        super().__init__()
        self.trunk = Trunk(frozen)
        self.look = nn.Sequential(nn.Conv2d(BLOCKS[-1][3], width, 1), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(2 * (width + BLOCKS[-1][3]), 1)
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("shift", torch.zeros(1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.judge(self.trunk(pixels))

    def judge(self, features: Tensor) -> Tensor:
        """Features to logits; the logit of `intact` is 0, so that softmax is the calibrated sigmoid."""
        seen = self.look(features)
        pooled = torch.cat([m for x in (seen, features) for m in (x.mean(dim=(2, 3)), x.amax(dim=(2, 3)))], 1)
        score = self.linear(self.dropout(pooled)) * self.scale + self.shift
        return torch.cat([score, torch.zeros_like(score)], 1)

    def calibrate(self, logits: Tensor, damaged: Tensor) -> tuple[float, float]:
        """Set scale and shift (Platt) to fit held-out scores; returns them. Call once, on an uncalibrated network."""
        slope, offset = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        optimiser = torch.optim.LBFGS([slope, offset], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = nn.functional.binary_cross_entropy_with_logits(logits * slope.exp() + offset, damaged)
            value.backward()
            return value

        optimiser.step(loss)
        self.set(math.exp(float(slope)), float(offset))
        return math.exp(float(slope)), float(offset)

    def set(self, scale: float, shift: float) -> None:
        """Fix the calibration."""
        cast("Tensor", self.scale).fill_(scale)
        cast("Tensor", self.shift).fill_(shift)


class FinderNet(nn.Module):
    """Where parcels are: EfficientNet-lite0's layers up to stride 16, unchanged, and a small head that learns.

    One output cell for each 16×16 pixels: heat of each class, and distances to the four sides of the box.
    """

    stride, frozen = 16, 8

    def __init__(self, classes: int, width: int = 96, reach: float = 32.0) -> None:
        super().__init__()
        self.classes, self.reach = classes, reach
        self.trunk = Trunk(self.frozen)
        self.trunk.blocks = self.trunk.blocks[: self.frozen]
        inputs = BLOCKS[self.frozen - 1][3]
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
        )
        self.heat = nn.Conv2d(width, classes, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.constant_(cast("Tensor", self.heat.bias), -4.0)  # rare objects: start from "nothing here"
        nn.init.zeros_(self.sides.weight)

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features to heat logits [N, classes, h, w] and boxes xyxy in pixels [N, 4, h, w]."""
        x = self.body(features)
        sides = self.reach * torch.exp(self.sides(x).clamp(-4.0, 4.0))
        rows = (torch.arange(x.shape[2]) + 0.5).view(1, -1, 1) * self.stride
        columns = (torch.arange(x.shape[3]) + 0.5).view(1, 1, -1) * self.stride
        left, top, right, bottom = sides.unbind(1)
        return self.heat(x), torch.stack([columns - left, rows - top, columns + right, rows + bottom], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] 0..255 to [N, 4 + classes, cells]: centre, size and class scores, as YOLOv8 has them."""
        return self.answer(self.trunk.early(pixels))

    def answer(self, features: Tensor) -> Tensor:
        """The same from features. A parcel is of one kind: each cell tells its best class, and only where it is a peak."""
        heat, boxes = self.look(features)
        scores = heat.sigmoid()
        best = scores.amax(1, keepdim=True)
        peak = nn.functional.max_pool2d(best, 3, 1, 1)
        scores = torch.where((scores >= best) & (best >= peak), scores, torch.zeros_like(scores))
        x1, y1, x2, y2 = boxes.unbind(1)
        told = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        return torch.cat([told, scores], 1).flatten(2)


class Early:
    """The frozen layers run by ONNX Runtime straight from EfficientNet-lite0's file: several times as fast as training code."""

    def __init__(self, weights: Path, frozen: int, threads: int = 1) -> None:
        with tempfile.TemporaryDirectory() as folder:
            part = str(Path(folder) / "early.onnx")
            onnx.utils.extract_model(
                str(weights), part, ["images"], [f"/_blocks.{frozen - 1}/Add_output_0"], check_model=False
            )
            model = onnx.load(part)
        for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            side.dim_param = "side"  # any picture size: the layers are convolutions
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] to features float16 [N, C, h, w]."""
        ready = (pixels.permute(0, 3, 1, 2).float().numpy() - 127.0) / 128.0
        return torch.from_numpy(np.asarray(self.session.run(None, {"images": ready})[0])).half()


class RawPixels(nn.Module):
    """uint8 [N, H, W, 3] RGB to logits: what is exported."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.model(images.permute(0, 3, 1, 2).float()))


def export(model: nn.Module, path: Path, size: tuple[int, int]) -> None:
    """Write ONNX: input `images` uint8 NHWC with a free batch, output `output`, opset 17, one file."""
    torch.onnx.export(
        RawPixels(model).eval(), (torch.zeros((2, *size, 3), dtype=torch.uint8),), str(path), input_names=["images"],
        output_names=["output"], opset_version=17, dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}}, dynamo=False,
    )  # fmt: skip
    graph = onnx.load(str(path))
    graph.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
