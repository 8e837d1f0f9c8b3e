"""Pictures for a golden set: from a folder, from a video, or from what comes with Eyeline."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2

from eyeline.core.errors import ConfigError, InputError
from eyeline.inference.bundles import bundled_folder
from eyeline.pipeline.decode import decode, probe
from eyeline.pipeline.drawing import encode_jpeg, thumbnail

T = TypeVar("T")

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv"})
#: Pictures that are looked at, and those of them that the bundle keeps.
LOOKED_AT, KEPT = 24, 8
#: Pictures with a telling name that are looked at.
NAMED = 60
#: Bytes of all kept pictures together.
KEPT_BYTES = 600_000
_SIDE = 960


def samples(source: Path | None, limit: int = LOOKED_AT) -> dict[str, bytes]:
    """Name → encoded picture, `limit` at most, spread evenly over what is there.

    source: a folder, a picture or a video; None: pictures of the bundled models, then frames of the bundled clips.
    Raises ConfigError where no picture can be decoded.
    """
    found = _from(source, 2 * limit) if source is not None else _bundled(limit)
    chosen = dict(spread([(name, data) for name, data in found if _decodes(data)], limit))
    if not chosen:
        where = source or "what comes with Eyeline"
        raise ConfigError(f"no picture that can be decoded in {where}; give some with --images FOLDER")
    return chosen


def small(data: bytes, most: int) -> tuple[bytes, str]:
    """The picture in `most` bytes at most, and its ending: as it is where it is small enough, else as a smaller JPEG."""
    form = probe(data).format
    if len(data) <= most and form in ("jpeg", "png"):
        return data, "jpg" if form == "jpeg" else "png"
    pixels = decode(data).pixels
    side = _SIDE
    while True:
        scale = min(1.0, side / max(pixels.shape[:2]))
        encoded = encode_jpeg(thumbnail(pixels, max(1, round(pixels.shape[1] * scale))), 90)
        if len(encoded) <= most or side <= 64:
            return encoded, "jpg"
        side = side * 3 // 4


def named(source: Path | None, labels: Sequence[str], limit: int = NAMED) -> list[tuple[bytes, frozenset[str]]]:
    """Pictures of a folder whose path says what is on them: their bytes, and the labels that stand in the path as words.

    Nothing for a video, a single picture or no source at all.
    """
    if source is None or not source.is_dir():
        return []
    said = [(path, _said(_title(path, source), labels)) for path in _pictures(source)]
    chosen = spread([(path, hints) for path, hints in said if hints], limit)
    return [(data, hints) for path, hints in chosen if _decodes(data := path.read_bytes())]


def _said(title: str, labels: Sequence[str]) -> frozenset[str]:
    words = f" {_words(title)} "
    return frozenset(label for label in labels if len(label) > 2 and f" {_words(label)} " in words)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _title(path: Path, source: Path) -> str:
    return path.relative_to(source).with_suffix("").as_posix()


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())


def _from(source: Path, limit: int) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in spread(_pictures(source), limit):
            yield _title(path, source), path.read_bytes()
    elif source.suffix.lower() in VIDEOS and source.is_file():
        yield from _frames(source, limit)
    elif source.is_file():
        yield source.stem, source.read_bytes()
    else:
        raise ConfigError(f"no pictures at {source}: there is no such folder, picture or video")


def _bundled(limit: int) -> Iterator[tuple[str, bytes]]:
    models = bundled_folder()
    for folder in sorted(models.glob("*/golden")):
        yield from ((f"{folder.parent.name}-{name}", data) for name, data in _from(folder, limit))
    for clip in sorted((models.parent / "clips").glob("*.mp4")):
        yield from _frames(clip, 4)


def _frames(video: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` frames at even distances, as JPEG."""
    opened = cv2.VideoCapture(str(video))
    try:
        total = int(opened.get(cv2.CAP_PROP_FRAME_COUNT))
        for at in spread(list(range(max(total, 1))), count):
            opened.set(cv2.CAP_PROP_POS_FRAMES, at)
            well, frame = opened.read()
            if well:
                yield f"{video.stem}-{at:05d}", encode_jpeg(frame[:, :, ::-1], 92)  # type: ignore[arg-type]
    finally:
        opened.release()


def _decodes(data: bytes) -> bool:
    try:
        decode(data)
    except InputError:
        return False
    return True


def spread(items: list[T], count: int) -> list[T]:
    """`count` of them at even distances, from the first to the last."""
    if len(items) <= count:
        return items
    return [items[round(at * (len(items) - 1) / max(1, count - 1))] for at in range(count)]
