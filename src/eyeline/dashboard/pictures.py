"""A result as a picture with boxes: the same as static/js/overlay.js makes of it (a test compares them)."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eyeline.core.errors import EyelineError
from eyeline.core.settings import Settings
from eyeline.core.types import Detection, Result
from eyeline.dashboard.format import PALETTE
from eyeline.inference.bundles import locate, read_contract

#: A score below is doubtful.
DOUBTFUL = 0.5


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in whole pixels of the upright original."""

    x: int
    y: int
    w: int
    h: int
    label: str
    score: float
    colour: str
    doubtful: bool
    alert: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a frame shows. `words` is what it is called for those who do not see it."""

    src: str
    width: int
    height: int
    words: str
    boxes: tuple[Box, ...]

    def plain(self) -> dict[str, Any]:
        """As data for scripts."""
        return asdict(self)

    @property
    def doubtful(self) -> bool:
        """Whether somebody should look at it."""
        return any(box.doubtful for box in self.boxes)


def picture_of(result: Result, labels: Sequence[str], alerting: Collection[str] = ()) -> Picture | None:
    """The picture of a result, alerting and sure boxes first; None where there is none to show."""
    if result.status != "completed" or result.image is None:
        return None
    boxes = [_box(found, labels, alerting) for found in result.detections]
    boxes.sort(key=lambda box: (not box.alert, -box.score))
    return Picture(
        src=f"/v1/results/{result.id}/image",
        width=result.image.width,
        height=result.image.height,
        words=_words(result, boxes),
        boxes=tuple(boxes),
    )


def _box(found: Detection, labels: Sequence[str], alerting: Collection[str]) -> Box:
    """What a later step says of the crop is what counts: `damaged`, not `carton`."""
    inner = (found.attributes.get("classifications") or [None])[0]
    label, score = (inner["label"], inner["score"]) if inner else (found.label, found.score)
    x1, y1, x2, y2 = (math.floor(value + 0.5) for value in found.box)
    return Box(
        x=x1,
        y=y1,
        w=x2 - x1,
        h=y2 - y1,
        label=label,
        score=score,
        colour=PALETTE[colour_of(label, labels)],
        doubtful=score < DOUBTFUL,
        alert=label in alerting or found.label in alerting,
    )


def colour_of(label: str, labels: Sequence[str]) -> int:
    """The place of a class's colour in the palette."""
    return _place(label, labels) % len(PALETTE)


def _place(label: str, labels: Sequence[str]) -> int:
    """A class has its colour by its place among the known ones; an unknown one by its letters."""
    if label in labels:
        return labels.index(label)
    place = 0
    for letter in label:
        place = (place * 31 + ord(letter)) % 997
    return place


def _words(result: Result, boxes: Sequence[Box]) -> str:
    said = [f"{count} {label}" for label, count in Counter(box.label for box in boxes).items()]
    said += [whole.label for whole in result.classifications]
    return ", ".join(said[:6]) or "nothing found"


@cache
def _labels(models: tuple[Path, ...]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for path in models:
        try:
            contract = read_contract(path / "model.toml")
        except (EyelineError, OSError):
            continue  # the models page says what is wrong with it
        for label in (*contract.labels, *(label for head in contract.output.heads for label in head.labels)):
            found[label] = None
    return tuple(found)


def known_labels(settings: Settings) -> tuple[str, ...]:
    """The classes of the models that the pipelines use, in their order. Blocks at first: files are read."""
    used = dict.fromkeys(model for pipeline in settings.pipelines for model in pipeline.models)
    there = locate(settings.inference.models)
    return _labels(tuple(there[name] for name in used if name in there))
