"""The words of review: what people say of results, and which results should be shown to them first. Nothing here does I/O."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from eyeline.core.types import VERDICTS, Classification, Detection, ModelRef, Result, Verdict, VerdictKind

RecordKind = Literal["confirmed", "corrected", "rejected", "unsure", "comment", "undo"]


class Said(msgspec.Struct, frozen=True):
    """What is said to be on a picture, by models or by a person."""

    detections: list[Detection] = []
    classifications: list[Classification] = []


@dataclass(frozen=True, kw_only=True)
class NewVerdict:
    """What a person says now. `undoes` is the record that an `undo` takes back; `after` what a `corrected` one says instead.

    `key` is the idempotency key under which the same person may send it again.
    """

    result_id: str
    kind: RecordKind
    by: str = ""
    comment: str | None = None
    after: Said | None = None
    undoes: str | None = None
    key: str | None = None

    @property
    def digest(self) -> str:
        """Tells another verdict under the same key."""
        said = (self.result_id, self.kind, self.comment, self.after, self.undoes)
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


class VerdictRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, a comment or an undo as it is kept, for ever: `before` is what stood there, `models` who had said it."""

    id: str
    result_id: str
    kind: RecordKind
    by: str
    at: datetime
    comment: str | None = None
    before: Said = Said()
    after: Said | None = None
    undoes: str | None = None
    undone_by: str | None = None
    models: list[ModelRef] = []


@dataclass(frozen=True, kw_only=True)
class KeptVerdict:
    """A record that is kept. `existing`: it was there already; `digest` is of what was sent then."""

    record: VerdictRecord
    digest: str
    existing: bool = False


@dataclass(frozen=True)
class Doubt:
    """Why a result should be looked at, and how much that is worth (0 to 1)."""

    value: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReviewQuery:
    """Which waiting results. `sites` is what the reviewer may see (None: all); what `by` was unsure of is for others."""

    by: str = ""
    sites: Sequence[str] | None = None
    site: str | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A result that waits for a decision, and who is looking at it now."""

    result: Result
    doubt: Doubt
    held_by: str | None = None
    held_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the queue is: `waiting` is counted up to a bound only, `decided` since the time that was asked for."""

    waiting: int
    decided: int


class Reviews(Protocol):
    """The part of the result store that is about review. Raises StoreError."""

    async def add_verdict(self, new: NewVerdict) -> KeptVerdict | None:
        """Keep what a person says, as an action of the audit, with the result's current verdict, in one transaction.

        None where the result, or the record that is to be undone, is not there. What has the idempotency key of an earlier one,
        and the undo of what is undone, give the record that is there.
        """
        ...

    async def verdicts(self, result_id: str) -> list[VerdictRecord]:
        """All that was ever said of a result, in the order of time."""
        ...

    async def known_labels(self, labels: Sequence[str]) -> set[str]:
        """Those that enough results bear already not to be new."""
        ...

    async def doubted(self, ids: Sequence[str]) -> set[str]:
        """Those of these results for which somebody's verdict was asked, whether it was given or not."""
        ...

    async def to_review(self, query: ReviewQuery) -> list[Waiting]:
        """What waits for a decision, the most valuable first."""
        ...

    async def review_progress(self, query: ReviewQuery, since: datetime) -> Progress:
        """How many wait, and how many were decided since."""
        ...

    async def decisions(self, query: ReviewQuery, since: datetime) -> list[datetime]:
        """When `query.by` decided since then, in order: the first 10 000 that were not taken back."""
        ...

    async def count_doubted(self, query: ReviewQuery, since: datetime, until: datetime) -> int:
        """How many results that were asked for in that time had to be looked at."""
        ...

    async def hold_review(self, result_id: str, by: str, seconds: float) -> tuple[str, datetime] | None:
        """Tell others that `by` looks at a result. Returns who holds it now, and until when; None where there is no such result.

        It keeps nobody from deciding.
        """
        ...


def current(records: Sequence[VerdictRecord]) -> Verdict | None:
    """The last verdict that was not taken back."""
    for record in reversed(records):
        kind = next((kind for kind in VERDICTS if kind == record.kind), None)
        if record.undone_by is None and kind is not None:
            return _verdict_of(record, kind)
    return None


def _verdict_of(record: VerdictRecord, kind: VerdictKind) -> Verdict:
    """The record as results carry it."""
    return Verdict(
        id=record.id,
        kind=kind,
        by=record.by,
        at=record.at,
        comment=record.comment,
        detections=None if record.after is None else record.after.detections,
        classifications=None if record.after is None else record.after.classifications,
    )


def shown(result: Result, verdict: Verdict | None) -> Said:
    """What stands on the picture now: the correction, or what the models said."""
    if verdict is None or verdict.detections is None:
        return Said(result.detections, result.classifications)
    return Said(verdict.detections, verdict.classifications or [])


def doubts(result: Result, known: Collection[str], *, below: float, sample: float) -> Doubt | None:
    """Why somebody should look at this result, if at all: the most valuable reason.

    What failed shows nothing, and a duplicate nothing new. The sample is drawn by the id: again, it is the same.
    """
    if result.status != "completed" or result.duplicate_of is not None or result.replay_of is not None:
        return None
    reasons = [Doubt(1.0, "new label")] if labels_of(result) - set(known) else []
    if _disagree(result):
        reasons.append(Doubt(0.9, "steps disagree"))
    reasons += [Doubt(_closeness(score, below), "low score") for score in _scores(result) if score < below]
    if not reasons and _drawn(result.id) < sample:
        return Doubt(0.01, "sample")
    return max(reasons, key=lambda doubt: doubt.value, default=None)


def disagreement(record: Result, aside: Result) -> Doubt | None:
    """Why somebody should look at a record once another version was asked about its picture: it sees other things there.

    What another pipeline says is an answer to another question.
    """
    asked_alike = record.status == aside.status == "completed" and record.pipeline == aside.pipeline
    if not asked_alike or labels_of(record) == labels_of(aside):
        return None
    return Doubt(0.9, "models disagree")


def labels_of(result: Result) -> set[str]:
    """Everything that its models named."""
    boxes = {found.label for found in result.detections}
    return boxes | {label for group in _named(result) for _, label, _ in group}


def _scores(result: Result) -> list[float]:
    """What decided: the score of each box, and the best of each step's labels for a picture or a crop."""
    scores = [found.score for found in result.detections]
    for group in _named(result):
        best: dict[str, float] = {}
        for step, _, score in group:
            best[step] = max(score, best.get(step, 0.0))
        scores += best.values()
    return scores


def _named(result: Result) -> list[list[tuple[str, str, float]]]:
    """(step, label, score) of everything that was named: of the picture, and of each of its crops."""
    return [
        [(said.step, said.label, said.score) for said in result.classifications],
        *(
            [(said["step"], said["label"], said["score"]) for said in found.attributes.get("classifications", ())]
            for found in result.detections
        ),
    ]


def _closeness(score: float, below: float) -> float:
    """0.1 for one that is nothing at all, towards 0.8 for one that is nearly sure."""
    return 0.1 + 0.7 * score / below


def _disagree(result: Result) -> bool:
    """Whether two steps name the same crop, or the same picture, differently while each is sure of a word that both use."""
    return any(_two_words(group) for group in _named(result))


def _two_words(group: Sequence[tuple[str, str, float]]) -> bool:
    best: dict[str, tuple[float, str]] = {}
    words: dict[str, set[str]] = {}
    for step, label, score in group:
        best[step] = max(best.get(step, (0.0, "")), (score, label))
        words.setdefault(step, set()).add(label)
    return any(
        best[one][1] != best[other][1] and (best[one][1] in words[other] or best[other][1] in words[one])
        for one in best
        for other in best
        if one < other
    )


def _drawn(ident: str) -> float:
    """A number from 0 to 1 that an id always gives."""
    return int.from_bytes(hashlib.sha256(ident.encode()).digest()[:4], "big") / 2**32
