"""What the API answers. Fields that are not known here are ignored, so that an older client reads a newer gateway.

A test compares these with the gateway's /openapi.json, field by field and type by type.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

Lane = Literal["live", "bulk"]
Status = Literal["queued", "completed", "failed"]
#: `resync`: the reader fell too far behind and events were left out; load the lists anew and go on.
Kind = Literal["result", "alert", "system", "resync"]


class ImageInfo(msgspec.Struct, frozen=True):
    """What is known of an image: upright size (after EXIF), format by its bytes, size of the file."""

    sha256: str
    width: int
    height: int
    format: str
    bytes: int
    frames_ignored: bool = False


class Detection(msgspec.Struct, frozen=True):
    """One box. `box` is xyxy in pixels of the upright original."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    step: str
    attributes: dict[str, Any] = {}

    @property
    def mask(self) -> list[list[float]]:
        """The shape of the thing, where the model gives one: polygons [x, y, x, y, …] in the pixels of `box`."""
        polygons: list[list[float]] = self.attributes.get("mask", {}).get("polygons", [])
        return polygons


class Classification(msgspec.Struct, frozen=True):
    """One label for the whole image."""

    label: str
    score: float
    step: str


class Code(msgspec.Struct, frozen=True):
    """A barcode that was read."""

    text: str
    format: str
    box: tuple[float, float, float, float]


class ModelRef(msgspec.Struct, frozen=True):
    """Exactly which model answered."""

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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of a result. `detections` and `classifications` are what it was corrected to."""

    id: str
    kind: Literal["confirmed", "corrected", "rejected", "unsure"]
    by: str
    at: datetime
    comment: str | None = None
    detections: list[Detection] | None = None
    classifications: list[Classification] | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job. A failed one says why in `reason` (`code: sentence`)."""

    id: str
    status: Literal["completed", "failed"]
    site: str
    pipeline: str
    captured_at: datetime
    received_at: datetime
    completed_at: datetime
    reason: str | None = None
    ref: str | None = None
    meta: dict[str, str] = {}
    camera: str | None = None
    image: ImageInfo | None = None
    detections: list[Detection] = []
    classifications: list[Classification] = []
    codes: list[Code] = []
    steps: dict[str, dict[str, Any]] = {}
    models: list[ModelRef] = []
    environment: str | None = None
    timings: dict[str, float] = {}
    duplicate_of: str | None = None
    reuse: Reuse | None = None
    replay_of: str | None = None
    aside: bool = False
    chain: ChainRef | None = None
    verdict: Verdict | None = None
    schema_version: int = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job that the gateway has kept; `result` is there once it is known."""

    id: str
    status: Status
    result: Result | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of results, newest first. `next` is the cursor of the page after it, None on the last one."""

    results: list[Result]
    next: str | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A legal hold: whatever fits all that it names is kept until it is lifted. `since` and `until` are about `captured_at`."""

    id: str
    reason: str
    by: str
    placed_at: datetime
    lifted_at: datetime | None = None
    site: str | None = None
    camera: str | None = None
    ref: str | None = None
    result: str | None = None
    item: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `seq` says where to go on (`events(after=seq)`); `body` is what the gateway told."""

    seq: int
    kind: Kind
    body: dict[str, Any]

    @property
    def result(self) -> Result:
        """The result that a `result` event carries."""
        return msgspec.convert(self.body, Result)
