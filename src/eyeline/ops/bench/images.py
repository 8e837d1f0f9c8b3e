"""The pictures of a benchmark: real files, each made unique without changing a pixel."""

from importlib.resources import files
from pathlib import Path

import cv2

from eyeline.core.errors import ConfigError

COUNT = 64


def load_images(folder: Path | None) -> list[bytes]:
    """Up to 64 JPEGs of `folder`; without one, frames of the bundled clips at 1280x720. Raises ConfigError for none."""
    if folder is None:
        return _clip_frames()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not paths:
        raise ConfigError(f"no .jpg below {folder}; name a folder of JPEGs with --images")
    return [path.read_bytes() for path in paths[:COUNT]]


def _clip_frames() -> list[bytes]:
    clips = sorted(Path(str(files("eyeline") / "bundled" / "clips")).glob("*bound.mp4"))
    frames: list[bytes] = []
    for clip in clips:
        video = cv2.VideoCapture(str(clip))
        for number in range(COUNT // len(clips)):
            video.set(cv2.CAP_PROP_POS_FRAMES, number * 5)
            well, frame = video.read()
            if well:
                large = cv2.resize(frame, (1280, 720), interpolation=cv2.INTER_CUBIC)
                frames.append(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        video.release()
    if not frames:
        raise ConfigError("the bundled clips are missing; name a folder of JPEGs with --images")
    return frames


def unique(jpeg: bytes, number: int) -> bytes:
    """The same picture with another digest: a comment segment with `number` after SOI, so that no cache answers it."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + jpeg[2:]
