"""Folders and videos: which frames come, when, and which never twice."""

import asyncio
import contextlib
import itertools
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyeline.cameras import CAMERAS, open_camera, resolved
from eyeline.cameras.base import CameraSource, Frame, Memory
from eyeline.cameras.folder import FolderSource
from eyeline.cameras.probe import test_camera as try_camera
from eyeline.cameras.video import VideoSource, stamped
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError, ConfigError
from eyeline.core.settings import CameraSettings
from eyeline.pipeline.decode import decode
from tests.unit.pipeline.odd_images import picture


def source(url: str | Path, seen: set[str] | None = None, **changes: Any) -> CameraSource:
    memory = Memory((seen or set()).__contains__, datetime(2020, 1, 1, tzinfo=UTC))
    return open_camera(CameraSettings(name="cam", url=str(url), **changes), memory)


async def take(camera: CameraSource, count: int = 10_000, patience: float = 20.0) -> list[Frame]:
    frames: list[Frame] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience), contextlib.aclosing(camera.frames()) as coming:
            async for frame in coming:
                frames.append(frame)
                if len(frames) == count:
                    break
    await camera.close()
    return frames


def write_old(path: Path, data: bytes, age: float = 100.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    moment = time.time() - age
    os.utime(path, (moment, moment))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 10 frames a second; frame N has the brightness 10 × N."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(20):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    return path


def brightness(frame: Frame) -> int:
    return round(float(decode(frame.data).pixels.mean()) / 10)


@pytest.mark.parametrize("scheme", CAMERAS.schemes())
def test_every_scheme_of_the_table_can_be_loaded(scheme: str) -> None:
    assert CAMERAS.load(scheme).__name__.endswith("Source")


def test_a_path_is_a_folder_or_a_video_by_what_lies_there(tmp_path: Path) -> None:
    assert resolved(str(tmp_path)) == f"folder://{tmp_path}"
    assert resolved(f"file://{tmp_path}/belt%201.mp4") == f"video://{tmp_path}/belt 1.mp4"
    assert resolved("inbox/") == "folder://inbox/"
    assert resolved("rtsp://camera/1") == "rtsp://camera/1"
    assert isinstance(source(tmp_path), FolderSource)
    assert isinstance(source(tmp_path / "x.mp4"), VideoSource)


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="folder, http, https, rtsp, rtsps, sqs, synthetic, usb, video"):
        source("gopher://camera")


async def test_files_come_as_they_are_oldest_first(tmp_path: Path) -> None:
    write_old(tmp_path / "b.jpg", b"second", 50)
    write_old(tmp_path / "deep" / "a.jpg", b"first", 90)
    frames = await take(source(tmp_path), 2)
    assert [frame.data for frame in frames] == [b"first", b"second"]
    assert frames[0].captured_at < frames[1].captured_at < utcnow() - timedelta(seconds=40)


async def test_a_file_is_not_taken_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.folder.SETTLE", 2.0)
    path = tmp_path / "slow.jpg"
    taking = asyncio.create_task(take(source(tmp_path), 1))
    with path.open("wb") as file:
        for part in (b"one ", b"two ", b"three"):
            file.write(part)
            file.flush()
            await asyncio.sleep(0.3)
            assert not taking.done()
    assert [frame.data for frame in await taking] == [b"one two three"]


async def test_hidden_unfinished_and_empty_files_and_other_things_are_left_alone(tmp_path: Path) -> None:
    for name in (".hidden.jpg", "half.jpg.part", "x.tmp", ".sync/a.jpg"):
        write_old(tmp_path / name, b"no")
    write_old(tmp_path / "empty.jpg", b"")
    write_old(tmp_path / "notes.txt", b"no picture")
    write_old(tmp_path / "IMG_0001", b"\xff\xd8\xff but a picture by its bytes")
    frames = await take(source(tmp_path), patience=2.5)
    assert [frame.origin.split("|")[0] for frame in frames if frame.origin] == ["IMG_0001"]


async def test_what_was_seen_is_not_taken_again_and_what_is_written_anew_is(tmp_path: Path) -> None:
    write_old(tmp_path / "a.jpg", b"first")
    (first,) = await take(source(tmp_path), 1)
    assert first.origin is not None
    assert await take(source(tmp_path, {first.origin}), patience=0.8) == []
    write_old(tmp_path / "a.jpg", b"another", 20)
    (second,) = await take(source(tmp_path, {first.origin}), 1)
    assert second.data == b"another"


async def test_what_lay_there_before_the_first_run_counts_as_captured_when_found(tmp_path: Path) -> None:
    write_old(tmp_path / "old.jpg", b"old", 10_000)
    memory = Memory(lambda _: False, utcnow())
    (frame,) = await take(FolderSource(f"folder://{tmp_path}", CameraSettings(name="c", url="x"), memory), 1)
    assert utcnow() - frame.captured_at < timedelta(seconds=30)


async def test_a_missing_folder_or_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no folder"):
        await take(source(f"folder://{tmp_path}/gone"))
    with pytest.raises(CameraError, match="no video file"):
        await take(source(tmp_path / "gone.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"this is no video" * 100)
    with pytest.raises(CameraError, match="cannot be opened"):
        await take(source(tmp_path / "bad.mp4"))


async def test_every_frame_of_a_video_comes_once_in_order(video: Path) -> None:
    frames = await take(source(video))
    assert [brightness(frame) for frame in frames] == list(range(20))
    steps = [(b.captured_at - a.captured_at).total_seconds() for a, b in itertools.pairwise(frames)]
    assert all(abs(step - 0.1) < 1e-3 for step in steps)
    assert frames[-1].captured_at <= utcnow()


@pytest.mark.parametrize(
    ("fps", "expected"), [(5, list(range(0, 20, 2))), (1, [0, 10]), (3, [0, 4, 7, 10, 14, 17]), (100, list(range(20)))]
)
async def test_sampling_takes_the_rate_that_was_asked_for(video: Path, fps: float, expected: list[int]) -> None:
    assert [brightness(frame) for frame in await take(source(video, fps=fps))] == expected


async def test_after_a_restart_a_video_goes_on_where_it_was(video: Path) -> None:
    first = await take(source(video), 7)
    seen = {frame.origin for frame in first if frame.origin}
    assert [brightness(frame) for frame in await take(source(video, seen))] == list(range(7, 20))


async def test_a_looped_video_plays_on_at_its_own_pace_and_never_gives_the_same_bytes(video: Path) -> None:
    camera = source(video, loop=True, fps=10)
    assert camera.live
    frames = await take(camera, 22)
    assert [brightness(frame) for frame in frames] == [*range(20), 0, 1]
    assert len({frame.data for frame in frames}) == 22
    assert frames[-1].captured_at - frames[0].captured_at >= timedelta(seconds=1.9)


async def test_a_looped_video_that_falls_behind_plays_on_from_now(video: Path) -> None:
    """Otherwise its frames grow older and older: too old for alerts, and for whoever asks for the next one."""
    camera = source(video, loop=True, fps=10)
    async with contextlib.aclosing(camera.frames()) as frames:
        await anext(frames)
        await asyncio.sleep(0.3)
        asked_at = utcnow()
        late, following = await anext(frames), await anext(frames)
        assert late.captured_at >= asked_at
        assert following.captured_at - late.captured_at >= timedelta(seconds=0.099)
    await camera.close()


def test_what_may_be_dropped_is_live(video: Path) -> None:
    assert not source(video).live
    assert source(video, drop="newest").live
    assert not source(video, loop=True, drop="never").live


def test_the_stamp_is_exif_and_changes_nothing_else() -> None:
    import io

    from PIL import Image

    from eyeline.pipeline.drawing import encode_jpeg

    data = encode_jpeg(picture(), 95)
    moment = datetime(2026, 5, 1, 12, 30, 59, 123456, tzinfo=UTC)
    marked = stamped(data, moment)
    assert np.array_equal(decode(marked).pixels, decode(data).pixels)
    with Image.open(io.BytesIO(marked)) as image:
        exif = image.getexif().get_ifd(0x8769)
    assert exif[0x9003] == "2026:05:01 12:30:59"
    assert exif[0x9291] == "123456"


async def test_trying_a_camera_out_reports_and_saves_a_frame(video: Path, tmp_path: Path) -> None:
    report = await try_camera(str(video), tmp_path / "shot.jpg")
    assert [what for what, _, _ in report] == ["open", "frames", "rate", "size", "light", "clock", "saved"]
    assert decode((tmp_path / "shot.jpg").read_bytes()).width == 64
    ((what, well, sentence),) = await try_camera(str(tmp_path / "gone.mp4"), tmp_path / "none.jpg")
    assert (what, well) == ("open", False)
    assert "gone.mp4" in sentence
