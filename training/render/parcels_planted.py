"""Damage painted onto photographs of intact things: real light, real lens, real clutter, and still an exact label.

A photograph serves twice, as it is (intact) and with a planted hole, tear, stain or buckle (damaged), so that no
property of photographs can come to mean damage.
"""

import cv2
import numpy as np

from training.render import parcels_damage, parcels_surface
from training.render.parcels_mesh import Floats, Pixels
from training.render.parcels_surface import Skin

#: Metres across which a photograph of a parcel is taken to show; it sets the pitch of bare corrugation.
ACROSS = 0.4


def plant(rng: np.random.Generator, image: Pixels, box: tuple[float, float, float, float]) -> Pixels:
    """`image` (RGB uint8 [h, w, 3]) with one or two damages inside `box` (xyxy pixels)."""
    out = image.copy()
    x1, y1, x2, y2 = _part(rng, box, image.shape)
    piece = np.ascontiguousarray(out[y1:y2, x1:x2])
    skin = Skin(piece, np.zeros((*piece.shape[:2], 2), np.float32), max(box[2] - box[0], 32) / ACROSS)
    kind = rng.choice(["torn", "buckled", "wet", "both"], p=[0.4, 0.32, 0.13, 0.15])
    severity = float(rng.uniform(0.2, 1))
    if kind in {"torn", "both"}:
        parcels_damage.tear(rng, skin, severity)
    if kind == "wet":
        parcels_damage.soak(rng, skin, severity, from_below=bool(rng.random() < 0.5))
    if kind in {"buckled", "both"}:
        _buckle(rng, skin, severity)
    lit = _shaded(rng, skin)
    feather = _feather(rng, piece.shape[:2])
    out[y1:y2, x1:x2] = np.clip(out[y1:y2, x1:x2] * (1 - feather) + lit * feather, 0, 255)
    return out


def _part(
    rng: np.random.Generator, box: tuple[float, float, float, float], shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """A part of the box, 35 to 80 % of its sides, at least 24 pixels."""
    wide, tall = (box[2] - box[0]) * rng.uniform(0.35, 0.8), (box[3] - box[1]) * rng.uniform(0.35, 0.8)
    x = box[0] + rng.uniform(0.1, 0.9) * (box[2] - box[0] - wide)
    y = box[1] + rng.uniform(0.1, 0.9) * (box[3] - box[1] - tall)
    x1, y1 = int(np.clip(x, 0, shape[1] - 24)), int(np.clip(y, 0, shape[0] - 24))
    return x1, y1, int(np.clip(x + wide, x1 + 24, shape[1])), int(np.clip(y + tall, y1 + 24, shape[0]))


def _buckle(rng: np.random.Generator, skin: Skin, severity: float) -> None:
    """Creases in the surface, and the picture pulled along with them."""
    shape = skin.shape
    heights = np.zeros(shape, np.float32)
    for cells in rng.uniform(1.5, 7, 3):
        heights += np.abs(parcels_surface.noise(rng, shape, float(cells), 1)) / cells
    heights *= min(shape) * (0.06 + 0.16 * severity)
    down, along = np.gradient(cv2.GaussianBlur(heights, (0, 0), 1.0))
    inner = _feather(rng, shape)[..., 0]
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    pull = min(shape) * 0.05 * inner
    skin.texture[:] = cv2.remap(
        skin.texture, x + along * pull, y + down * pull, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    skin.slope += np.stack([along, down], -1) * inner[..., None]


def _shaded(rng: np.random.Generator, skin: Skin) -> Floats:
    """The skin lit from one side: slopes towards the lamp brighten, slopes away darken."""
    turn = rng.uniform(0, 2 * np.pi)
    tilt = skin.slope @ np.array([np.cos(turn), np.sin(turn)], np.float32)
    gain = np.exp(np.clip(tilt * rng.uniform(0.25, 0.7), -1.3, 0.5))
    return np.asarray(skin.texture * gain[..., None], np.float32)


def _feather(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """1 inside, 0 at the rim, with a wandering border, [h, w, 1]."""
    rows, columns = (
        np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None],
        np.linspace(-1, 1, shape[1], dtype=np.float32)[None],
    )
    rim = 1 - np.maximum(np.abs(rows), np.abs(columns)) + 0.05 * parcels_surface.noise(rng, (shape[0], shape[1]), 5, 2)
    return np.asarray(np.clip(rim / 0.12, 0, 1)[..., None], np.float32)
