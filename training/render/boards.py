"""Bare circuit boards as a linear-scan camera sees them, grey or binarised, with planted defects and exact truth.

Copper is dark and the board bright. `render(seed)` is a pure function of its arguments: same seed, same picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import boards_defects, boards_layout
from training.render.boards_defects import LABELS, Planted

Picture = NDArray[np.uint8]
Rng = np.random.Generator
SIZE = 640
RIM = 24  # drawn beyond the picture, so that a tilted board still fills it

__all__ = ["LABELS", "SIZE", "Board", "Planted", "render"]


@dataclass(frozen=True)
class Board:
    """A picture (uint8 [640, 640]) with its defects, and the same picture of the board before they were planted."""

    image: Picture
    clean: Picture
    defects: tuple[Planted, ...]


def render(seed: int, look: str = "binary", defects: int | None = None) -> Board:
    """One board. `look` is "binary" or "grey"; `defects` is how many to try, by default 3 to 12 as seeds have it."""
    layout_seed, camera_seed, defect_seed, show_seed = np.random.SeedSequence(seed).spawn(4)
    sheet = boards_layout.draw(np.random.default_rng(layout_seed), SIZE + 2 * RIM)
    before = scan(np.random.default_rng(camera_seed), sheet)
    rng = np.random.default_rng(defect_seed)
    count = int(rng.integers(3, 13)) if defects is None else defects
    wanted = [str(label) for label in rng.choice(LABELS, count, p=(0.19, 0.19, 0.16, 0.16, 0.14, 0.16))]
    after, planted = boards_defects.plant(rng, before, wanted)
    show = grey if look == "grey" else binary
    pictures = [show(np.random.default_rng(show_seed), mask) for mask in (after, before)]
    return Board(pictures[0], pictures[1], tuple(planted))


def scan(rng: Rng, sheet: Picture) -> NDArray[np.bool_]:
    """The camera and its threshold: a slight tilt, lines that do not quite meet, blur, noise; then copper or not."""
    tilt, size = rng.normal(0, 0.25), len(sheet)
    scale = rng.uniform(0.97, 1.05)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), tilt, scale)
    matrix = matrix + np.array([[0, 0, 1], [0, 0, 1]]) * rng.uniform(-RIM, RIM, (2, 1)) / 2
    moved = cv2.warpAffine(sheet, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    view = moved[RIM:-RIM, RIM:-RIM]
    jitter = rng.normal(0, rng.choice([0.0, 0.15, 0.4], p=[0.55, 0.3, 0.15]), SIZE).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    if rng.random() < 0.5:
        columns += jitter[:, None]
    else:
        rows += jitter[None, :]
    sharp = cv2.remap(view, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    seen = np.asarray(cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.7, 1.8)), np.float32)
    grain = _waves(rng, 9.0) * rng.uniform(0, 12) + _grain(rng) * (
        rng.uniform(0.3, 4) if rng.random() < 0.65 else rng.uniform(3, 15)
    )
    return _worn(rng, np.asarray(seen + grain > rng.uniform(85, 170)))


def _worn(rng: Rng, copper: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Specks of one to three pixels, which are nobody's defect."""
    out = copper.copy()
    for _ in range(int(rng.integers(0, 14)) if rng.random() < 0.4 else 0):
        x, y = rng.integers(2, SIZE - 4, 2)
        w, h = rng.integers(1, 4, 2)
        out[y : y + h, x : x + w] ^= True
    return out


def _grain(rng: Rng) -> NDArray[np.float32]:
    """Independent noise of unit strength."""
    return rng.standard_normal((SIZE, SIZE), np.float32)


def _waves(rng: Rng, cells: float) -> NDArray[np.float32]:
    """Smooth noise of unit strength, `cells` pixels from hill to hill."""
    coarse = rng.standard_normal((int(SIZE / cells) + 2,) * 2, np.float32)
    return np.asarray(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)


def binary(rng: Rng, copper: NDArray[np.bool_]) -> Picture:
    """Black copper on a white board, with the faint marks of JPEG."""
    picture = np.where(copper, 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 98))])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def grey(rng: Rng, copper: NDArray[np.bool_]) -> Picture:
    """Before the threshold: two greys with texture, uneven light, streaks along the scan and sensor noise."""
    dark, bright = rng.uniform(25, 85), rng.uniform(140, 225)
    texture = np.where(copper, dark + _waves(rng, 12) * rng.uniform(2, 8), bright + _waves(rng, 40) * rng.uniform(1, 6))
    soft = cv2.GaussianBlur(texture.astype(np.float32), (0, 0), rng.uniform(0.5, 1.2))
    light = 1 + _waves(rng, 400) * 0.05 + np.linspace(-1, 1, SIZE)[None] * rng.uniform(-0.12, 0.12)
    streaks = 1 + rng.normal(0, 0.012, (1, SIZE))
    lit = soft * light * streaks + _grain(rng) * rng.uniform(1.5, 6)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)
