"""A camera that is none: a seeded test pattern with the frame's number, for trials and tests.

synthetic://640x480?seed=7   the size in pixels; the rate is the camera's `fps`, 5 where it is 0
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from eyeline.cameras.base import Frame, Memory
from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError
from eyeline.core.settings import CameraSettings

_ASSUMED_FPS = 5.0
_SMALLEST, _LARGEST = 64, 4096


class SyntheticSource:
    """Frames at an even pace, for ever; frame N of a seed is the same picture every time."""

    live = True

    def __init__(self, url: str, settings: CameraSettings, _memory: Memory) -> None:
        self._size, self._seed = _described(url)
        self._step = 1 / (settings.fps or _ASSUMED_FPS)
        self._quality = settings.quality

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; never ends."""
        begun, number = time.monotonic(), 0
        while True:
            moment = utcnow()
            data = await asyncio.to_thread(self._encoded, number)
            yield Frame(data, moment, meta={"frame": str(number)})
            number += 1
            await asyncio.sleep(begun + number * self._step - time.monotonic())

    async def close(self) -> None:
        """There is nothing to give back."""

    def _encoded(self, number: int) -> bytes:
        pixels = pattern(number, self._size, self._seed)
        data: bytes = simplejpeg.encode_jpeg(pixels, quality=self._quality, colorsubsampling="420")
        return data


def pattern(number: int, size: tuple[int, int] = (640, 480), seed: int = 0) -> NDArray[np.uint8]:
    """Frame `number`: a ramp with seeded noise, a bar that travels, and the number. RGB."""
    width, height = size
    rng = np.random.default_rng((seed, number))
    ramp = np.linspace(60, 200, width, dtype=np.float32)[None, :, None] * np.array([1.0, 0.9, 0.8], np.float32)
    noise = rng.normal(0, 3, (height, width, 1)).astype(np.float32)
    pixels: NDArray[np.uint8] = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    left = number * 8 % width
    pixels[height // 3 : 2 * height // 3, left : left + max(8, width // 16)] = (220, 60, 40)
    scale = height / 240
    cv2.putText(pixels, f"{number:06}", (8, height - 12), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2)
    return pixels


def _described(url: str) -> tuple[tuple[int, int], int]:
    parts = urlsplit(url)
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", parts.netloc or "640x480")
    seed = parse_qs(parts.query).get("seed", ["0"])[0]
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(_SMALLEST <= side <= _LARGEST for side in size) or not seed.isdecimal():
        raise ConfigError(
            f"{url!r} describes no picture; write synthetic://640x480?seed=7, with sides of {_SMALLEST} to {_LARGEST}"
        )
    return size, int(seed)
