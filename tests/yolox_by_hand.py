"""YOLOX-nano run by hand: the recipe of its authors written anew, sharing no line with the product, to compare answers with."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

SIDE = 416


class ByHand:
    """The original file, as it was downloaded."""

    def __init__(self, weights: Path) -> None:
        self._session: Any = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])

    def boxes(self, image: bytes, score: float) -> list[tuple[int, float, tuple[float, ...]]]:
        """(class, score, box in pixels of the picture): letterboxed at the top left with 114, BGR 0..255, NMS by OpenCV."""
        picture = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        height, width = picture.shape[:2]
        ratio = min(SIDE / height, SIDE / width)
        size = (round(width * ratio), round(height * ratio))
        canvas = np.full((SIDE, SIDE, 3), 114, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(picture, size)
        found = self._session.run(None, {"images": canvas.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        cells = [(x, y, s) for s in (8, 16, 32) for y in range(SIDE // s) for x in range(SIDE // s)]
        x, y, stride = np.array(cells, np.float32).T
        sides = np.exp(found[:, 2:4]) * stride[:, None]
        corner = np.stack([(found[:, 0] + x) * stride, (found[:, 1] + y) * stride], 1) - sides / 2
        scores = found[:, 4:5] * found[:, 5:]
        best, kinds = scores.max(1), scores.argmax(1)
        rectangles = np.concatenate([corner, sides], 1) / ratio
        keep = cv2.dnn.NMSBoxesBatched(rectangles.tolist(), best.tolist(), kinds.tolist(), score, 0.5)
        return [(int(kinds[i]), float(best[i]), _inside(rectangles[i], width, height)) for i in keep]


def _inside(rectangle: Any, width: int, height: int) -> tuple[float, ...]:
    x, y, w, h = (float(value) for value in rectangle)
    return max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
