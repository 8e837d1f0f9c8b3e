"""Writes results down: what was found, or why nothing was, with everything that shaped the answer."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec

from eyeline.core.clock import utcnow
from eyeline.core.dedupe import duplicate
from eyeline.core.types import Delivery, ImageInfo, Job, Result, Reuse
from eyeline.worker.orders import Prepared
from eyeline.worker.plans import ReadyPlan
from eyeline.worker.steps import Findings

#: Libraries whose version can change a pixel or a box.
_LIBRARIES = ("eyeline", "numpy", "opencv-python-headless", "pillow", "simplejpeg", "pillow-heif", "zxing-cpp")


@cache
def environment() -> str:
    """A short digest of the libraries' versions and the machine's kind, the same on machines that compute the same."""
    lines = [f"python {platform.python_version()}", f"machine {platform.machine()}"]
    for name in _LIBRARIES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def completed(
    job: Job, ready: ReadyPlan, prepared: Prepared, findings: Findings, timings: Mapping[str, float]
) -> Result:
    """The result of a job whose steps all ran; `timings` are seconds by stage, to which those of the steps are added."""
    spent = dict(timings)
    for stage, seconds in findings.timings.items():
        spent[stage] = spent.get(stage, 0.0) + seconds
    return Result(
        id=job.id,
        status="completed",
        site=job.site,
        pipeline=job.pipeline,
        captured_at=job.captured_at,
        received_at=job.received_at,
        completed_at=utcnow(),
        ref=job.ref,
        meta=job.meta,
        camera=job.camera,
        image=_image(job, prepared),
        detections=findings.detections,
        classifications=findings.classifications,
        codes=findings.codes,
        steps=findings.said,
        models=list(ready.models),
        environment=environment(),
        timings={stage: round(seconds, 6) for stage, seconds in spent.items()},
        replay_of=job.replay_of,
        aside=job.aside is not None,
    )


def reused(
    job: Job, prepared: Prepared, known: Result, distance: float, limit: float, timings: Mapping[str, float]
) -> Result:
    """The result of a job whose picture repeats that of `known`: its answer, on a picture of its own."""
    return msgspec.structs.replace(
        duplicate(known, job, utcnow(), {stage: round(seconds, 6) for stage, seconds in timings.items()}),
        image=_image(job, prepared),
        reuse=Reuse("near", round(distance, 2), round(limit, 2)),
    )


def _image(job: Job, prepared: Prepared) -> ImageInfo:
    return ImageInfo(
        job.blob.sha256, prepared.width, prepared.height, prepared.format, job.blob.size, prepared.frames_ignored
    )


def failed(job: Job, reason: str, timings: Mapping[str, float]) -> Result:
    """The result of a job that has none; reason: `code: sentence`."""
    return Result(
        id=job.id,
        status="failed",
        reason=reason[:1000],
        site=job.site,
        pipeline=job.pipeline,
        captured_at=job.captured_at,
        received_at=job.received_at,
        completed_at=utcnow(),
        ref=job.ref,
        meta=job.meta,
        camera=job.camera,
        environment=environment(),
        timings={stage: round(seconds, 6) for stage, seconds in timings.items()},
        replay_of=job.replay_of,
        aside=job.aside is not None,
    )


def unreadable(delivery: Delivery, why: str) -> Result:
    """The failed result of a message that is no job; what is known of it stands on its envelope."""
    now = utcnow()
    return Result(
        id=delivery.id,
        status="failed",
        reason=f"unreadable_job: {why}"[:1000],
        site=delivery.group,
        pipeline=delivery.topic.rpartition(".")[0],
        captured_at=now,
        received_at=now,
        completed_at=now,
        environment=environment(),
    )
