"""Small pictures for tests: made here, each with its own digest."""

import io
from functools import cache

import numpy as np
from PIL import Image


@cache
def jpeg(width: int = 320, height: int = 240, level: int = 128, seed: int = 0) -> bytes:
    """A noisy JPEG around one grey level."""
    noise = np.random.default_rng(seed).integers(-12, 12, (height, width, 3))
    pixels = np.clip(level + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85)
    return out.getvalue()


def unique_jpeg(number: int) -> bytes:
    """A small JPEG of one of eight brightnesses whose digest no other number has (a comment segment after SOI)."""
    data = jpeg(64, 48, 20 + 30 * (number % 8))
    return data[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + data[2:]
