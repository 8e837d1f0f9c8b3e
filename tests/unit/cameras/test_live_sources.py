"""The parts of live sources that need no camera: pace, pump, USB by a fake device, the synthetic one."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from eyeline.cameras import open_camera, open_trigger
from eyeline.cameras.base import CameraSource, Frame, Memory
from eyeline.cameras.pace import Pace
from eyeline.cameras.pump import SLOTS, Pump
from eyeline.cameras.synthetic import pattern
from eyeline.cameras.usb import device_of
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError, ConfigError
from eyeline.core.settings import CameraSettings
from eyeline.pipeline.decode import decode


def camera(url: str, dropped: Callable[[str], object] = lambda _: None, **changes: Any) -> CameraSource:
    return open_camera(CameraSettings(name="c", url=url, **changes), Memory(lambda _: False, utcnow(), dropped))


async def take(source: CameraSource, count: int) -> list[Frame]:
    frames: list[Frame] = []
    async with asyncio.timeout(20), contextlib.aclosing(source.frames()) as coming:
        async for frame in coming:
            frames.append(frame)
            if len(frames) == count:
                break
    await source.close()
    return frames


@pytest.mark.parametrize("rate", [5.0, 7.0, 12.5, 25.0])
def test_the_pace_is_kept_over_a_source_of_another_rate(rate: float) -> None:
    pace = Pace(rate)
    taken = sum(pace.takes(number / 25) for number in range(2500))
    assert abs(taken - 100 * rate) <= 1


def test_what_was_missed_in_a_pause_is_not_made_up_for_by_a_burst() -> None:
    pace = Pace(2.0)
    assert pace.takes(0.0)
    assert [pace.takes(100.0 + number / 100) for number in range(40)].count(True) == 1


class Ticking:
    """A device with a picture ready at any time; breaks after `last`."""

    def __init__(self, last: int = 10_000) -> None:
        self.number, self.last, self.closed = 0, last, threading.Event()

    def open(self) -> None:
        self.number = 0

    def read(self) -> Frame | None:
        if self.number >= self.last:
            raise CameraError("unplugged")
        self.number += 1
        time.sleep(0.001)
        return Frame(str(self.number).encode(), utcnow())

    def close(self) -> None:
        self.closed.set()


async def until_it_breaks(frames: AsyncIterator[Frame], pause: float = 0.0) -> tuple[list[Frame], CameraError | None]:
    """What came before the camera broke, and how it broke."""
    came: list[Frame] = []
    try:
        async for frame in frames:
            came.append(frame)
            await asyncio.sleep(pause)
    except CameraError as error:
        return came, error
    return came, None


async def test_a_slow_reader_gets_the_newest_frames_and_every_other_is_counted() -> None:
    dropped: list[str] = []
    pump = Pump(Ticking(300), dropped.append)
    frames, error = await until_it_breaks(pump.frames(), pause=0.05)
    await pump.close()
    numbers = [int(frame.data) for frame in frames]
    assert str(error) == "unplugged"
    assert len(numbers) + len(dropped) == 300
    assert set(dropped) == {"newest_first"}
    assert numbers == sorted(numbers)
    assert numbers[-SLOTS:] == [299, 300]


async def test_closing_waits_until_the_device_is_free() -> None:
    device = Ticking()
    pump = Pump(device, lambda _: None)
    async with contextlib.aclosing(pump.frames()) as frames:
        await anext(frames)
    await pump.close()
    assert device.closed.is_set()


class FakeDevice:
    """Stands where OpenCV's capture does: there is no camera at a build machine."""

    def __init__(self, *, there: bool = True, frames: int = 6) -> None:
        self.there, self.left, self.released = there, frames, False

    def isOpened(self) -> bool:
        return self.there

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.full((48, 64, 3), (200, 30, 10), np.uint8)  # BGR: blue

    def release(self) -> None:
        self.released = True


async def test_a_usb_camera_gives_its_frames_in_their_colours_and_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    opened: list[int | str] = []

    def open_it(name: int | str) -> FakeDevice:
        opened.append(name)
        return device

    monkeypatch.setattr("eyeline.cameras.usb.open_device", open_it)
    source = camera("usb:///dev/video3")
    frames, error = await until_it_breaks(source.frames())
    await source.close()
    assert "unplugged" in str(error)
    assert opened == ["/dev/video3"]
    assert device.released
    assert np.abs(decode(frames[0].data).pixels.mean(axis=(0, 1)) - (10, 30, 200)).max() < 4


async def test_a_usb_camera_that_is_not_there_says_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.usb.open_device", lambda _: FakeDevice(there=False))
    with pytest.raises(CameraError, match="plugged in"):
        await take(camera("usb://0"), 1)


async def test_opencv_itself_says_that_no_such_device_is_there() -> None:
    with pytest.raises(CameraError, match="/dev/video97"):
        await take(camera("usb:///dev/video97"), 1)


@pytest.mark.parametrize(("url", "device"), [("usb://2", 2), ("usb:///dev/video0", "/dev/video0")])
def test_devices_have_numbers_or_files(url: str, device: int | str) -> None:
    assert device_of(url) == device


@pytest.mark.parametrize("url", ["usb://", "usb:///etc/passwd", "usb://camera", "usb:///dev/../etc/passwd"])
def test_anything_else_is_no_device(url: str) -> None:
    with pytest.raises(ConfigError, match="usb://0"):
        device_of(url)


async def test_the_synthetic_camera_is_paced_numbered_and_the_same_for_a_seed() -> None:
    begun = time.monotonic()
    frames = await take(camera("synthetic://320x240?seed=7", fps=20), 10)
    assert time.monotonic() - begun >= 0.44
    assert [frame.meta["frame"] for frame in frames] == [str(number) for number in range(10)]
    assert len({frame.data for frame in frames}) == 10
    again = await take(camera("synthetic://320x240?seed=7", fps=20), 2)
    assert [frame.data for frame in again] == [frame.data for frame in frames[:2]]
    assert not np.array_equal(pattern(0, seed=7), pattern(0, seed=8))


@pytest.mark.parametrize("url", ["synthetic://10x10", "synthetic://9999x240", "synthetic://640x480?seed=x"])
def test_an_impossible_pattern_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="synthetic://640x480"):
        camera(url)


def test_a_topic_without_a_broker_stops_the_start() -> None:
    settings = CameraSettings(name="c", url="usb://0", trigger_topic="line/1")
    with pytest.raises(ConfigError, match=r"mqtt\.url"):
        open_trigger(settings, "", lambda _: None)
