"""The inventory network: EfficientNet-lite0 with two heads, what a picture shows coarsely and finely, that agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import onnx
import torch
from torch import Tensor, nn

from training.parcels_net import BLOCKS, Same, Trunk, take_convolutions

#: EfficientNet-lite0's blocks at stride 32, after those that parcels_net knows.
LATE = ((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (3, 1, 6, 320))
FEATURES = 1280


class GroceryNet(nn.Module):
    """`parents[i]` is the coarse class of fine class i. Called with pixels it answers calibrated log-probabilities.

    Two linear heads read the same features. What is told of the coarse classes is the mean of the coarse head and of the
    fine head summed by parent; what is told of the fine ones is the fine head within that. So the two always agree.
    """

    def __init__(self, parents: Sequence[int], frozen: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.trunk = Trunk(frozen, BLOCKS + LATE)
        self.last = nn.Sequential(Same(LATE[-1][3], FEATURES, 1, 1), nn.ReLU6())
        self.dropout = nn.Dropout(dropout)
        self.coarse = nn.Linear(FEATURES, max(parents) + 1)
        self.fine = nn.Linear(FEATURES, len(parents))
        self.register_buffer("family", nn.functional.one_hot(torch.tensor(parents)).float())  # [fine, coarse]
        self.register_buffer("temperatures", torch.ones(2))  # of the coarse and the fine head

    def take(self, weights: Path) -> "GroceryNet":
        """Start from EfficientNet-lite0's weights."""
        take_convolutions(self, weights)
        return self

    def logits(self, early: Tensor) -> tuple[Tensor, Tensor]:
        """What the frozen blocks made of pixels, to the logits of the coarse and the fine head."""
        pooled = self.dropout(self.last(self.trunk.late(early)).mean(dim=(2, 3)))
        return self.coarse(pooled), self.fine(pooled)

    def agreed(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both heads to log-probabilities of both, which agree."""
        temperatures, family = cast("Tensor", self.temperatures), cast("Tensor", self.family)
        own = (coarse / temperatures[0]).softmax(1)
        each = (fine / temperatures[1]).softmax(1).clamp_min(1e-9)
        summed = each @ family
        both = (own + summed) / 2
        within = each / (summed @ family.T)
        return both.clamp_min(1e-9).log(), (within * (both @ family.T)).clamp_min(1e-9).log()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.agreed(*self.logits(self.trunk.early(pixels)))

    def calibrate(self, coarse: Tensor, fine: Tensor, kinds: Tensor, parents: Tensor) -> list[float]:
        """Set the temperatures that make held-out pictures likeliest, given their logits and true classes."""
        warmth = torch.zeros(2, requires_grad=True)
        optimiser = torch.optim.LBFGS([warmth], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            self.temperatures = warmth.exp()
            told = self.agreed(coarse, fine)
            value = nn.functional.nll_loss(told[0], parents) + nn.functional.nll_loss(told[1], kinds)
            value.backward()
            return value

        optimiser.step(loss)
        self.temperatures = warmth.detach().exp()
        return [round(float(value), 4) for value in self.temperatures]


class _RawPixels(nn.Module):
    def __init__(self, model: GroceryNet, *, agreed: bool) -> None:
        super().__init__()
        self.model, self.agreed = model, agreed

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.logits(self.model.trunk.early(images.permute(0, 3, 1, 2).float()))
        return self.model.agreed(*logits) if self.agreed else logits


def export(model: GroceryNet, path: Path, size: tuple[int, int], *, agreed: bool = True) -> None:
    """Write ONNX: input `images` uint8 NHWC with a free batch, outputs `coarse` and `fine` (agreed, or bare logits), one file."""
    names = ["coarse", "fine"]
    torch.onnx.export(
        _RawPixels(model, agreed=agreed).eval(),
        (torch.zeros((2, *size, 3), dtype=torch.uint8),), str(path), input_names=["images"],
        output_names=names, opset_version=17, dynamic_axes={name: {0: "batch"} for name in ["images", *names]}, dynamo=False,
    )  # fmt: skip
    graph = onnx.load(str(path))
    graph.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
