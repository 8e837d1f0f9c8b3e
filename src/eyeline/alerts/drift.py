"""Drift of what a camera's results say: the best score, and how often each label comes, against up to 14 days. Pure.

Counted only where some rule names `health`; judged once an hour, when the hour is over. What is counted since the last hour
is lost in a crash, which is nothing to a baseline of days.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from eyeline.core.clock import isoformat
from eyeline.core.ids import derived_id
from eyeline.core.types import Detection, Result
from eyeline.pipeline.baseline import HOUR, Baseline

MOST_LABELS = 20
#: The least deviation that counts, of a score and of a share of images.
FLOOR = 0.02


class CameraDrift(msgspec.Struct):
    """One camera: its baselines, the hour being counted, and whether it was said to drift."""

    score: Baseline = msgspec.field(default_factory=Baseline)
    images: Baseline = msgspec.field(default_factory=Baseline)  # one value an image: which hours there were
    labels: dict[str, Baseline] = {}
    hour: int = 0
    drifting: bool = False


class DriftWatch:
    """All cameras. `observe` counts a result; what began or ended to drift comes as bodies of `system` events."""

    def __init__(self, kept: bytes | None = None) -> None:
        #: An hour was completed since `kept`.
        self.dirty = False
        self._cameras = msgspec.json.decode(kept, type=dict[str, CameraDrift]) if kept else {}

    def kept(self) -> bytes:
        """What to keep over a restart."""
        self.dirty = False
        return msgspec.json.encode(self._cameras)

    def observe(self, result: Result) -> Iterator[tuple[str, dict[str, Any]]]:
        """Count a result. Yields (site, body) where an hour is over and the judgement is another."""
        if result.camera is None or result.status != "completed":
            return
        camera = self._cameras.setdefault(result.camera, CameraDrift())
        moment = result.captured_at.timestamp()
        hour = int(moment // HOUR)
        if hour > camera.hour:
            if camera.hour:
                yield from _judged(camera, hour, result)
            camera.hour, self.dirty = hour, True
        _count(camera, result, moment)


def _count(camera: CameraDrift, result: Result, moment: float) -> None:
    seen = {found.label: found.score for found in result.classifications}
    for detection in result.detections:
        seen |= {detection.label: detection.score} | _of_crop(detection)
    if seen:
        camera.score.add(max(seen.values()), moment)
    for label in seen:
        if label not in camera.labels and len(camera.labels) < MOST_LABELS:  # until now it never came
            hours = {hour: (count, 0.0) for hour, (count, _) in camera.images.hours.items()}
            camera.labels[label] = Baseline(hours)
    camera.images.add(1.0, moment)
    for label, share in camera.labels.items():
        share.add(float(label in seen), moment)


def _of_crop(detection: Detection) -> dict[str, float]:
    entries = detection.attributes.get("classifications", ())
    return {str(entry["label"]): float(entry["score"]) for entry in entries if {"label", "score"} <= set(entry)}


def _judged(camera: CameraDrift, hour: int, result: Result) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the hours before this one say, where that is another thing than was said last."""
    detail = "; ".join(_drifts(camera, hour * HOUR - 1.0))
    if bool(detail) == camera.drifting:
        return
    camera.drifting = bool(detail)
    yield (
        result.site,
        {
            "type": "camera.health",
            "id": derived_id(result.received_at, "drift", str(result.camera), str(hour)),
            "site": result.site,
            "camera": result.camera,
            "pipeline": result.pipeline,
            "health": "drift",
            "state": "began" if detail else "ended",
            "detail": detail or "scores and labels are as usual again",
            "at": isoformat(result.received_at),
        },
    )


def _drifts(camera: CameraDrift, moment: float) -> Iterator[str]:
    score = camera.score.drift(moment, FLOOR)
    if score is not None:
        yield f"best score {score.now:.2f}, usual {score.usual:.2f}"
    for label, baseline in camera.labels.items():
        share = baseline.drift(moment, FLOOR)
        if share is not None:
            yield f"{label!r} on {share.now:.1%} of the images, usual {share.usual:.1%}"
