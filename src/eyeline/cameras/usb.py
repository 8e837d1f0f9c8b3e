"""A camera on this machine (Video4Linux): usb:///dev/video0 or usb://0, read by OpenCV."""

import re
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import simplejpeg

from eyeline.cameras.base import Frame, Memory
from eyeline.cameras.pace import Pace
from eyeline.cameras.pump import Pump
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError, ConfigError
from eyeline.core.settings import CameraSettings


def open_device(device: int | str) -> Any:
    """OpenCV's capture of a device: the one place where hardware is touched, and where tests put another one."""
    return cv2.VideoCapture(device, cv2.CAP_V4L2)


def device_of(url: str) -> int | str:
    """`usb://0` is the device 0, `usb:///dev/video0` the file. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.netloc.isdecimal() and parts.path in {"", "/"}:
        return int(parts.netloc)
    if not parts.netloc and re.fullmatch(r"/dev/[\w/.:-]+", parts.path) and ".." not in parts.path:
        return parts.path
    raise ConfigError(f"{url!r} names no device; write usb://0 or usb:///dev/video0")


class UsbSource:
    """Live frames of a device; newest first."""

    live = True

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        self._pump = Pump(_Device(device_of(url), settings), memory.dropped)

    def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; never ends but by CameraError."""
        return self._pump.frames()

    async def close(self) -> None:
        """Give the device back."""
        await self._pump.close()


class _Device:
    """The device, opened; used by one thread."""

    def __init__(self, device: int | str, settings: CameraSettings) -> None:
        self._device = device
        self._quality = settings.quality
        self._pace = Pace(settings.fps)
        self._capture: Any = None

    def open(self) -> None:
        self._capture = open_device(self._device)
        if not self._capture.isOpened():
            raise CameraError(
                f"the device {self._device!r} cannot be opened; is it plugged in, may this user read it (group video), "
                "and does no other program use it?"
            )

    def read(self) -> Frame | None:
        if not self._capture.grab():
            raise CameraError(f"the device {self._device!r} gives no more frames; was it unplugged?")
        if not self._pace.takes(time.monotonic()):
            return None
        moment = utcnow()
        whole, pixels = self._capture.retrieve()
        if not whole:
            raise CameraError(f"the device {self._device!r} gives frames that cannot be read")
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=self._quality, colorspace="BGR", colorsubsampling="420"
        )
        return Frame(data, moment)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
