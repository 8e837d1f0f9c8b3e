"""An exported model run the way its bundle says, with ONNX Runtime and numpy alone: for golden answers and examinations.

The service has its own implementation of the same contract; `eyeline models eval` measures through that one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from training.data import Picture


@dataclass(frozen=True)
class Found:
    """Detections of one picture: boxes xyxy float32 [n, 4] in its own pixels, scores [n], class ids [n], best first."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


class Runner:
    """One session; `size` is (height, width) of the graph's input, `fit` one of letterbox, stretch, crop."""

    def __init__(self, weights: Path, size: tuple[int, int], fit: str = "letterbox", threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self.size, self.fit = size, fit

    def detect(self, image: Picture, score: float, iou: float = 0.5, most: int = 100) -> Found:
        """Detections in `image` (HW grey or HWC RGB), after class-aware suppression."""
        pixels, scale, shift = fitted(rgb(image), self.size, self.fit)
        raw = self.session.run(None, {"images": pixels[None]})[0][0]
        found = decode(raw, score, iou, most)
        boxes = (found.boxes - np.tile(shift, 2)) / np.tile(scale, 2)
        height, width = image.shape[:2]
        return Found(np.clip(boxes, 0, [width, height, width, height]).astype(np.float32), found.scores, found.classes)

    def classify(self, image: Picture) -> list[NDArray[np.float32]]:
        """Probabilities [classes], one array a head."""
        pixels, _, _ = fitted(rgb(image), self.size, self.fit)
        return [softmax(out[0]) for out in self.session.run(None, {"images": pixels[None]})]


def rgb(image: Picture) -> Picture:
    """Grey pictures as RGB; others as they are."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def fitted(
    image: Picture, size: tuple[int, int], fit: str, pad: int = 114
) -> tuple[Picture, NDArray[np.float64], NDArray[np.float64]]:
    """`image` brought to `size`; and the scale (x, y) and shift (x, y) that take its pixels there."""
    height, width = image.shape[:2]
    ratios = np.array([size[1] / width, size[0] / height])
    if fit == "stretch":
        resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.uint8), ratios, np.zeros(2)
    ratio = float(ratios.min() if fit == "letterbox" else ratios.max())
    w, h = round(width * ratio), round(height * ratio)
    resized = image if (h, w) == (height, width) else cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    left, top = (size[1] - w) // 2, (size[0] - h) // 2
    if fit == "crop":
        out = resized[-top : -top + size[0], -left : -left + size[1]]
    else:
        out = np.full((*size, 3), pad, np.uint8)
        out[top : top + h, left : left + w] = resized
    return np.ascontiguousarray(out), np.array([w / width, h / height]), np.array([left, top], np.float64)


def decode(raw: NDArray[np.float32], score: float, iou: float, most: int) -> Found:
    """A yolov8 output [4 + C, A] to detections in input pixels."""
    classes, cells = np.nonzero(raw[4:] >= score)
    scores = raw[4:][classes, cells]
    order = np.argsort(-scores, kind="stable")[: 20 * most]
    classes, cells, scores = classes[order], cells[order], scores[order]
    centre, half = raw[:2, cells].T, raw[2:4, cells].T / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    kept = suppress(boxes, classes, iou)[:most]
    return Found(boxes[kept].astype(np.float32), scores[kept], classes[kept])


def suppress(boxes: NDArray[np.float32], classes: NDArray[np.int64], iou: float) -> list[int]:
    """Class-aware non-maximum suppression of boxes sorted best first: the indices that stay."""
    apart = boxes + classes[:, None] * 100_000.0  # classes never overlap so far from each other
    left, kept = np.arange(len(boxes)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[overlaps(apart[best : best + 1], apart[left])[0] <= iou]
    return kept


def overlaps(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """IoU of each box of `a` [n, 4] with each of `b` [m, 4]: [n, m]."""
    top = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(bottom - top, 0, None).prod(axis=2)
    sizes_a, sizes_b = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b))
    return np.asarray(inner / np.maximum(sizes_a[:, None] + sizes_b[None] - inner, 1e-9), np.float64)


def softmax(logits: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of one row of logits."""
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return np.asarray(powers / powers.sum(), np.float32)
