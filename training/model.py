"""The networks: one small backbone, a detector and a classifier on it. Pixels 0..255 in; they scale for themselves."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = (kernel - stride + 1) // 2 if kernel > 3 else dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """A residual step of a single 3×3 convolution: cheap on a CPU, and its batch norm folds away at export."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _conv(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", x + self.conv(x))


class Backbone(nn.Module):
    """Features at strides 4, 8, 16, …: one entry of `widths` and `depths` each.

    The first step takes 8×8 pixels at stride 4. The last stage's blocks alternate dilation 1 and 2, to see far.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = _conv(channels, widths[0], kernel=8, stride=4)
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            steps: list[nn.Module] = [_conv(widths[i - 1], width, stride=2)] if i else []
            last = i == len(widths) - 1
            steps += [Block(width, dilation=2 if last and n % 2 else 1) for n in range(depth)]
            self.stages.append(nn.Sequential(*steps))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Detector(nn.Module):
    """Anchor-free, one output map: class heat at object centres, and distances to the four sides of the box.

    `stride` is the output map's (4, 8, 16 …); coarser features are brought up to it and added. `reach` is the
    typical half size of a box in pixels. `channels` 1 means that the network sees grey; export takes RGB either way.
    """

    def __init__(
        self,
        classes: int,
        widths: Sequence[int] = (24, 48, 96),
        depths: Sequence[int] = (1, 1, 3),
        stride: int = 8,
        channels: int = 1,
        reach: float = 16.0,
    ) -> None:
        super().__init__()
        self.classes, self.stride, self.channels, self.reach = classes, stride, channels, reach
        self.backbone = Backbone(widths, depths, channels)
        self.level = {4: 0, 8: 1, 16: 2, 32: 3}[stride]
        pairs = list(range(self.level, len(widths) - 1))
        self.lateral = nn.ModuleList([nn.Conv2d(widths[i + 1], widths[i], 1) for i in pairs])
        self.smooth = nn.ModuleList([Block(widths[i]) for i in pairs])
        width = widths[self.level]
        self.head = _conv(width, width)
        self.heat = nn.Conv2d(width, classes, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.constant_(cast("Tensor", self.heat.bias), -4.0)  # rare objects: start from "nothing here"
        nn.init.zeros_(self.sides.weight)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] 0..255 to heat logits [N, classes, h, w] and side distances in pixels [N, 4, h, w]."""
        features = self.backbone(pixels / 255.0)
        x = features[-1]
        for i in range(len(self.lateral) - 1, -1, -1):
            up = nn.functional.interpolate(self.lateral[i](x), scale_factor=2.0, mode="nearest")
            x = self.smooth[i](up + features[self.level + i])
        x = self.head(x)
        return self.heat(x), self.reach * torch.exp(self.sides(x).float().clamp(-4.0, 4.0))

    def boxes(self, sides: Tensor) -> Tensor:
        """Side distances [N, 4, h, w] to boxes xyxy in pixels [N, 4, h, w]."""
        x, y = self.centres(sides.shape[-2:], sides.device)
        left, top, right, bottom = sides.unbind(1)
        return torch.stack([x - left, y - top, x + right, y + bottom], 1)

    def centres(self, size: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Pixel coordinates (x [1, 1, w], y [1, h, 1]) of the output map's cells."""
        y = (torch.arange(size[0], device=device) + 0.5) * self.stride
        x = (torch.arange(size[1], device=device) + 0.5) * self.stride
        return x.view(1, 1, -1), y.view(1, -1, 1)


class Classifier(nn.Module):
    """The same backbone, averaged over the picture, then one linear layer: logits [N, classes]."""

    def __init__(
        self,
        classes: int,
        widths: Sequence[int] = (24, 48, 96, 160),
        depths: Sequence[int] = (1, 1, 2, 2),
        channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.classes, self.channels = classes, channels
        self.backbone = Backbone(widths, depths, channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone(pixels / 255.0)[-1]
        return cast("Tensor", self.linear(self.dropout(features.mean(dim=(2, 3)))))
