"""Near-duplicates of a camera's last picture: what is remembered of it, and whether reusing its answer keeps being right.

What is compared with is always a picture that the models have seen, never one whose answer was reused: small changes cannot add
up unseen. One of fifty is shown to the models all the same, and where they say something else too often, they are shown all.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyeline.core.clock import isoformat
from eyeline.core.errors import StoreError
from eyeline.core.ids import derived_id
from eyeline.core.settings import CameraSettings
from eyeline.core.telemetry import NEAR, logger
from eyeline.core.types import Classification, Detection, Job, Result
from eyeline.inference.golden import overlap
from eyeline.pipeline.near import Signature, distance, limit
from eyeline.stores.results.base import ResultStore

log = logger("worker")

#: Seconds for which a picture is compared with.
FRESH = 300.0
#: One of so many is checked, told by its id.
SAMPLE = 50
#: The share of checks that may disagree, of the last so many, once there are so many.
MOST, WINDOW, LEAST = 0.05, 200, 20
#: A difference counts where a score of at least this, or of this much more than the other's, is behind it.
SURE = 0.5
#: Overlap from which a box is the same.
SAME_BOX = 0.5
#: Bytes of remembered pictures in this process; those that were not looked at for longest are forgotten.
ROOM = 128_000_000


@dataclass(frozen=True)
class Reference:
    """A camera's last picture that the models saw."""

    result: Result
    signature: Signature
    fingerprint: str
    until: float


@dataclass(frozen=True)
class Match:
    """A picture that counts as the same: its answer, and how far away it is. `reuse` is False where it is only to be checked."""

    result: Result
    distance: float
    limit: float
    reuse: bool


@dataclass
class Camera:
    """What is known of one camera."""

    limit: float
    checks: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    wrong: bool = False

    def judge(self, agreed: bool) -> bool:
        """Add a check; whether that changes what is to be thought of this camera."""
        self.checks.append(agreed)
        share = self.checks.count(False) / len(self.checks)
        wrong = share > (MOST / 2 if self.wrong else MOST) and len(self.checks) >= LEAST
        changed, self.wrong = wrong is not self.wrong, wrong
        return changed


class NearDuplicates:
    """For the cameras that reuse answers. `look` and `learn` compute: call them in a thread, one at a time."""

    def __init__(self, cameras: Sequence[CameraSettings], clock: Callable[[], float] = time.monotonic) -> None:
        self._cameras = {each.name: Camera(limit(each.near_duplicates)) for each in cameras if each.near_duplicates}
        self._references: OrderedDict[tuple[str, str, str], Reference] = OrderedDict()
        self._clock = clock

    def wanted(self, job: Job) -> bool:
        """Whether this job may have an answer of before. One that is replayed was asked for anew."""
        return job.camera in self._cameras and job.replay_of is None

    def look(self, job: Job, fingerprint: str, signature: Signature) -> Match | None:
        """The picture of before that this one repeats."""
        key = _key(job)
        camera, reference = self._cameras[key[1]], self._references.get(key)
        if reference is None or reference.fingerprint != fingerprint or reference.until < self._clock():
            return None
        self._references.move_to_end(key)
        away = distance(signature, reference.signature)
        if away >= camera.limit:
            NEAR.labels(camera=key[1], outcome="different").inc()
            return None
        return Match(reference.result, away, camera.limit, not (camera.wrong or is_sample(job.id)))

    def learn(self, job: Job, fingerprint: str, signature: Signature, result: Result) -> None:
        """The models saw this one: the next are compared with it."""
        key = _key(job)
        self._references[key] = Reference(result, signature.copy(), fingerprint, self._clock() + FRESH)
        self._references.move_to_end(key)
        while len(self._references) > 1 and sum(each.signature.nbytes for each in self._references.values()) > ROOM:
            self._references.popitem(last=False)

    def reused(self, job: Job) -> None:
        """Count an answer that was reused."""
        NEAR.labels(camera=job.camera, outcome="reused").inc()

    async def check(self, store: ResultStore, match: Match, result: Result) -> None:
        """What the models say of a picture that counted as the same. Tells the camera's health where that changed."""
        name = result.camera or ""
        agreed = agree(match.result, result)
        NEAR.labels(camera=name, outcome="agreed" if agreed else "disagreed").inc()
        camera = self._cameras[name]
        if camera.judge(agreed):
            try:
                await store.add_event("system", result.site, _health(camera, result))
            except StoreError as error:
                log.warning("a camera's health is not told", camera=name, error=str(error))


def is_sample(id: str) -> bool:  # noqa: A002
    """Whether the answer of this job is checked although it could be reused: the same for the same id, everywhere."""
    return int(id[-8:], 16) % SAMPLE == 0


def agree(one: Result, other: Result) -> bool:
    """Whether two answers say the same, scores near the thresholds aside."""
    return (
        _tops(one.classifications) == _tops(other.classifications)
        and {code.text for code in one.codes} == {code.text for code in other.codes}
        and _boxes_agree(one.detections, other.detections)
        and _boxes_agree(other.detections, one.detections)
    )


def _boxes_agree(mine: Sequence[Detection], theirs: Sequence[Detection]) -> bool:
    """Every box of mine that is sure has its like among theirs."""
    left = list(theirs)
    for box in sorted(mine, key=lambda each: -each.score):
        like = [each for each in left if (each.step, each.label) == (box.step, box.label)]
        best = max(like, key=lambda each: overlap(each.box, box.box), default=None)
        if best is not None and overlap(best.box, box.box) >= SAME_BOX:
            left.remove(best)
            if _crop_tops(box.attributes) != _crop_tops(best.attributes):
                return False
        elif box.score >= SURE:
            return False
    return True


def _tops(found: Sequence[Classification]) -> dict[str, str]:
    """The first label of each step."""
    best: dict[str, Classification] = {}
    for each in found:
        if each.step not in best or each.score > best[each.step].score:
            best[each.step] = each
    return {step: each.label for step, each in best.items()}


def _crop_tops(attributes: Mapping[str, Any]) -> dict[str, str]:
    return _tops([Classification(**each) for each in attributes.get("classifications", ())])


def _key(job: Job) -> tuple[str, str, str]:
    return job.site, job.camera or "", job.pipeline


def _health(camera: Camera, result: Result) -> dict[str, Any]:
    wrong = camera.checks.count(False)
    return {
        "type": "camera.health",
        "id": derived_id(result.completed_at, "reuse", str(result.camera), result.id),
        "site": result.site,
        "camera": result.camera,
        "pipeline": result.pipeline,
        "health": "reuse",
        "state": "began" if camera.wrong else "ended",
        "detail": f"the models disagree with {wrong} of the last {len(camera.checks)} answers that would have been reused",
        "at": isoformat(result.completed_at),
    }
