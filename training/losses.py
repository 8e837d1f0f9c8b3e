"""What a detector is taught: a Gaussian bump of heat on each object, and its box wherever that bump reaches.

After TTFNet (Liu et al. 2019): many cells learn each box, so small networks converge in few steps.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data import Sample

SPREAD = 0.54  # share of a box that its bump covers


def targets(samples: Sequence[Sample], classes: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Heat [N, classes, h, w] 0..1, boxes [N, 4, h, w] in pixels and their weights [N, h, w] (each object sums to 1)."""
    height, width = (side // stride for side in samples[0].image.shape[:2])
    heat = np.zeros((len(samples), classes, height, width), np.float32)
    boxes = np.zeros((len(samples), 4, height, width), np.float32)
    weights = np.zeros((len(samples), height, width), np.float32)
    for n, sample in enumerate(samples):
        sizes = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1)
        for i in np.argsort(-sizes):  # small objects last: they win where bumps overlap
            _splat(heat[n, sample.classes[i]], boxes[n], weights[n], sample.boxes[i], stride)
    return torch.from_numpy(heat), torch.from_numpy(boxes), torch.from_numpy(weights)


def _splat(
    heat: NDArray[np.float32],
    boxes: NDArray[np.float32],
    weights: NDArray[np.float32],
    box: NDArray[np.float32],
    stride: int,
) -> None:
    height, width = heat.shape
    x = int(np.clip((box[0] + box[2]) / 2 // stride, 0, width - 1))
    y = int(np.clip((box[1] + box[3]) / 2 // stride, 0, height - 1))
    rx, ry = ((box[2:] - box[:2]) / (2 * stride) * SPREAD).astype(int)
    top, bottom, left, right = max(y - ry, 0), min(y + ry + 1, height), max(x - rx, 0), min(x + rx + 1, width)
    gx = np.exp(-((np.arange(left, right) - x) ** 2) / (2 * ((2 * rx + 1) / 6) ** 2))
    gy = np.exp(-((np.arange(top, bottom) - y) ** 2) / (2 * ((2 * ry + 1) / 6) ** 2))
    bump = np.outer(gy, gx).astype(np.float32)
    window = np.s_[top:bottom, left:right]
    heat[window] = np.maximum(heat[window], bump)
    boxes[:, top:bottom, left:right] = box[:, None, None]
    weights[window] = bump / bump.sum()


def detector_loss(
    logits: Tensor, predicted: Tensor, heat: Tensor, boxes: Tensor, weights: Tensor, box_weight: float = 2.0
) -> Tensor:
    """Penalty-reduced focal loss on the heat plus weighted generalised-IoU loss on the boxes, for each object."""
    objects = heat.eq(1).sum().clamp(min=1)
    return (
        heat_loss(logits.float(), heat) / objects + box_weight * (giou_loss(predicted, boxes) * weights).sum() / objects
    )


def heat_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """CenterNet's focal loss (sum): cells near a centre are punished less for being hot."""
    p = logits.sigmoid()
    positive = heat.eq(1)
    found = torch.nn.functional.logsigmoid(logits) * (1 - p) ** 2
    empty = torch.nn.functional.logsigmoid(-logits) * p**2 * (1 - heat) ** 4
    return -torch.where(positive, found, empty).sum()


def giou_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - GIoU of boxes xyxy, [N, 4, h, w] each, to [N, h, w]."""
    ax1, ay1, ax2, ay2 = a.unbind(1)
    bx1, by1, bx2, by2 = b.unbind(1)
    inner = (torch.min(ax2, bx2) - torch.max(ax1, bx1)).clamp(min=0)
    inner = inner * (torch.min(ay2, by2) - torch.max(ay1, by1)).clamp(min=0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inner
    hull = (torch.max(ax2, bx2) - torch.min(ax1, bx1)) * (torch.max(ay2, by2) - torch.min(ay1, by1))
    return 1 - inner / union.clamp(min=1e-6) + (hull - union) / hull.clamp(min=1e-6)
