"""The words of Eyeline (see docs/glossary.md). Nothing of ours is imported here but errors.

What stays inside a process is a frozen dataclass; what crosses a process border is a msgspec struct with a
`schema_version`, whose readers ignore fields they do not know.
Images are RGB uint8 HWC; boxes xyxy float32 in pixels of the upright original; times aware UTC;
durations seconds as float; sizes bytes; scores 0..1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Lane = Literal["live", "bulk"]
LANES: tuple[Lane, ...] = ("live", "bulk")
Status = Literal["queued", "completed", "failed"]

#: What was answered aside (`Result.aside`), as its row and its event call it.
ASIDE = "aside"

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class BlobRef(msgspec.Struct, frozen=True):
    """Where an image's bytes lie. `url` is `<site>/<sha256>`, relative to the blob store."""

    url: str
    size: int
    sha256: str


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The work order on the queue: everything a worker needs, under 4 kB. The image stays in the blob store."""

    id: str
    site: str
    pipeline: str
    lane: Lane
    blob: BlobRef
    received_at: datetime
    captured_at: datetime
    camera: str | None = None
    ref: str | None = None
    meta: dict[str, str] = {}
    deadline: datetime | None = None  # after it the job is failed (`expired`) before any decoding
    trace: str | None = None  # W3C traceparent
    replay_of: str | None = None
    aside: str | None = (
        None  # another model is asked about a record's picture: this one (name@version), "": what serves
    )
    pipeline_digest: str | None = None
    min_reader: int = 1
    schema_version: int = 1


class ImageInfo(msgspec.Struct, frozen=True):
    """What is known of an image: upright size (after EXIF), format by its bytes, size of the file."""

    sha256: str
    width: int
    height: int
    format: str
    bytes: int
    frames_ignored: bool = False


class Detection(msgspec.Struct, frozen=True, omit_defaults=True):
    """One box as it is recorded. `box` is xyxy in pixels of the upright original."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    step: str
    attributes: dict[str, Any] = {}


class Classification(msgspec.Struct, frozen=True):
    """One label for the whole image (or, within attributes, for a crop)."""

    label: str
    score: float
    step: str


class Code(msgspec.Struct, frozen=True):
    """A barcode that was read."""

    text: str
    format: str
    box: tuple[float, float, float, float]


class ModelRef(msgspec.Struct, frozen=True):
    """Exactly which model answered. `version` is `<version>+<12 hex of the bundle's digest>`."""

    name: str
    version: str
    runtime: str
    precision: str


class Reuse(msgspec.Struct, frozen=True):
    """How the answer of `duplicate_of` came to be reused for other bytes: the worst block's distance from its picture, in levels
    of 255, and the limit under which that had to stay.
    """

    how: Literal["near"]
    distance: float
    limit: float


class ChainRef(msgspec.Struct, frozen=True):
    """Where a record is sealed in the audit chain."""

    block: int
    position: int


VerdictKind = Literal["confirmed", "corrected", "rejected", "unsure"]
VERDICTS: tuple[VerdictKind, ...] = ("confirmed", "corrected", "rejected", "unsure")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of a result: the last word that was not taken back. `detections` and `classifications` are what it
    was corrected to; what a person drew or named has the step `human`.
    """

    id: str
    kind: VerdictKind
    by: str
    at: datetime
    comment: str | None = None
    detections: list[Detection] | None = None
    classifications: list[Classification] | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job; everywhere the same (API, events, exports, webhooks)."""

    id: str
    status: Literal["completed", "failed"]
    site: str
    pipeline: str
    captured_at: datetime
    received_at: datetime
    completed_at: datetime
    reason: str | None = None  # `code: sentence`, for failed ones
    ref: str | None = None
    meta: dict[str, str] = {}
    camera: str | None = None
    image: ImageInfo | None = None
    detections: list[Detection] = []
    classifications: list[Classification] = []
    codes: list[Code] = []
    steps: dict[str, dict[str, Any]] = {}  # what a step says beside its answers, by its name: quality, share escalated
    models: list[ModelRef] = []
    environment: str | None = None
    timings: dict[str, float] = {}
    duplicate_of: str | None = None
    reuse: Reuse | None = None  # how, where the bytes were others
    replay_of: str | None = None
    aside: bool = False  # another model's answer to the picture of `replay_of`: to compare, and nothing follows from it
    chain: ChainRef | None = None
    verdict: Verdict | None = None  # kept beside the record, which never changes
    schema_version: int = 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the event log. `seq` is given after commit and never reused; kinds: result, alert, system."""

    seq: int
    kind: Literal["result", "alert", "system"]
    site: str
    at: datetime
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is put on a queue. `topic` is `<pipeline>.<lane>`; `group` is the site, for fairness."""

    id: str
    topic: str
    group: str
    body: bytes
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message as received. `attempt` counts receives (a safety net only); `receipt` names this lease."""

    id: str
    topic: str
    group: str
    body: bytes
    attempt: int
    receipt: str


@dataclass(frozen=True, kw_only=True)
class QueueStats:
    """How full a queue is; None where the broker cannot say."""

    depth: int
    in_flight: int
    oldest_age: float | None
    by_topic: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Mask:
    """The shape of a thing: polygons [x, y, x, y, …] in pixels of the upright original, and their area in those pixels."""

    polygons: list[list[float]]
    area: float


@dataclass(frozen=True)
class Detections:
    """Boxes of one image as a structure of arrays.

    boxes: float32 [N, 4] xyxy in pixels of the upright original; scores: float32 [N]; class_ids: int64 [N];
    labels: the names that class ids index; masks: one for each box, or none at all.
    """

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.int64]
    labels: tuple[str, ...]
    masks: tuple[Mask, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.masks and len(self.masks) != count:
            message = f"{len(self.masks)} masks for {count} boxes"
            raise ValueError(message)
        if self.boxes.shape != (count, 4) or self.class_ids.shape != (count,):
            message = f"boxes {self.boxes.shape}, scores {self.scores.shape}, class ids {self.class_ids.shape} differ"
            raise ValueError(message)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, labels: tuple[str, ...] = ()) -> "Detections":
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), labels)


def topic_of(pipeline: str, lane: Lane) -> str:
    """The queue topic of a pipeline's lane."""
    return f"{pipeline}.{lane}"
