"""Human decisions on results: verdicts, their history and undo, and the queue of what waits for one."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import Conflict, InputError, NotFound
from eyeline.core.telemetry import printable
from eyeline.core.types import Classification, Detection, ImageInfo, Result
from eyeline.gateway.body import small_body
from eyeline.gateway.replies import reply
from eyeline.gateway.results import Text, visible
from eyeline.gateway.state import State, allowed, checked_id
from eyeline.gateway.upload import idempotency_key
from eyeline.pipeline.boxes import iou
from eyeline.reports.review import needed, pace
from eyeline.stores.results.review import NewVerdict, ReviewQuery, Said, Waiting, shown

Caller = Annotated[Principal, Depends(allowed("read"))]
Reviewer = Annotated[Principal, Depends(allowed("operate"))]

#: The step of what a person drew or named.
HUMAN = "human"
#: A box's attributes that tell of its outline; and from which share of both on two boxes are about the same thing.
OUTLINES, SAME_THING = {"mask", "mask_dropped"}, 0.5
LONGEST_BODY = 500_000
MOST_BOXES, MOST_LABELS = 1000, 100
LONGEST_LABEL, LONGEST_COMMENT = 200, 2000
#: Pixels that a box may stick out of the picture: what rounding makes.
SLACK = 1.0
#: Seconds for which one who looks at a result is told to others; the page says so again before.
HOLD = 60.0


class Drawn(msgspec.Struct, forbid_unknown_fields=True):
    """A box as a person left it."""

    label: str
    box: tuple[float, float, float, float]


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A label for the whole picture."""

    label: str


class Judgement(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a verdict. A correction says what is there: all of it, not only what is new."""

    kind: Literal["confirmed", "corrected", "rejected", "unsure", "comment"]
    comment: str | None = None
    detections: list[Drawn] | None = None
    classifications: list[Named] | None = None


class Queued(BaseModel):
    """What of the queue is asked for."""

    model_config = ConfigDict(extra="forbid")

    site: Text = None
    limit: int = Field(20, ge=1, le=200)


def routes(state: State) -> APIRouter:
    """The routes of review."""
    router = APIRouter(tags=["review"])

    @router.get("/v1/review", summary="Results that wait for a verdict, the most valuable first")
    async def queue(who: Caller, wanted: Annotated[Queued, Query()]) -> Response:
        query = ReviewQuery(by=who.name, sites=who.sites, site=wanted.site, limit=wanted.limit)
        found = await state.results.to_review(query)
        now, sites = utcnow(), state.settings.sites
        progress = await state.results.review_progress(query, now - timedelta(days=1))
        told: dict[str, Any] = {
            "review": [_waiting(each) for each in found],
            "waiting": progress.waiting,
            "decided": progress.decided,
        }
        told["pace"] = await pace(state.results, sites, query, now)
        told["needed"] = await needed(state.results, sites, query, now) if len(found) < query.limit else None
        return reply(told)

    @router.post("/v1/review/{id}/hold", summary="Tell others that you are looking at a result")
    async def hold(id: str, who: Reviewer) -> Response:  # noqa: A002
        result = await visible(state, id, who)
        held = await state.results.hold_review(result.id, who.name, HOLD)
        return reply({"id": id, "held_by": held and held[0], "held_until": held and held[1]})

    @router.get("/v1/results/{id}/verdicts", summary="All that people said of a result, in the order of time")
    async def history(id: str, who: Caller) -> Response:  # noqa: A002
        result = await visible(state, id, who)
        return reply({"verdicts": await state.results.verdicts(result.id), "verdict": result.verdict})

    @router.post("/v1/results/{id}/verdicts", summary="Confirm, correct, reject, doubt or comment", status_code=201)
    async def judge(id: str, who: Reviewer, request: Request) -> Response:  # noqa: A002
        result = await visible(state, id, who)
        new = _new(result, _judgement(await small_body(request, LONGEST_BODY, "a verdict")), who)
        return await _kept(state, replace(new, key=idempotency_key(request)))

    @router.post("/v1/results/{id}/verdicts/{verdict}/undo", summary="Take a verdict or a comment back")
    async def undo(id: str, verdict: str, who: Reviewer) -> Response:  # noqa: A002
        result = await visible(state, id, who)
        return await _kept(
            state, NewVerdict(result_id=result.id, kind="undo", by=who.name, undoes=checked_id("verdict", verdict))
        )

    return router


async def _kept(state: State, new: NewVerdict) -> Response:
    kept = await state.results.add_verdict(new)
    if kept is None:
        raise NotFound(f"result {new.result_id} has no verdict {printable(new.undoes or '', 60)!r}")
    if kept.digest != new.digest and new.kind != "undo":
        raise Conflict(
            "this Idempotency-Key came with another verdict before; use a new key for a new verdict",
            code="idempotency_conflict",
        )
    result = await state.results.get(new.result_id)
    return reply({"record": kept.record, "verdict": result and result.verdict}, 200 if kept.existing else 201)


def _waiting(waiting: Waiting) -> dict[str, Any]:
    return {
        "result": waiting.result,
        "value": waiting.doubt.value,
        "reason": waiting.doubt.reason,
        "held_by": waiting.held_by,
        "held_until": waiting.held_until,
    }


def _judgement(body: bytes) -> Judgement:
    try:
        return msgspec.json.decode(body, type=Judgement)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f'a verdict reads like {{"kind": "confirmed"}}: {error}') from error


def _new(result: Result, judgement: Judgement, who: Principal) -> NewVerdict:
    """The verdict, if it fits the result. Raises InputError."""
    comment = _words("the comment", judgement.comment, LONGEST_COMMENT) if judgement.comment else None
    if judgement.kind == "comment" and comment is None:
        raise InputError("a comment without words; write it in `comment`")
    if judgement.kind != "comment" and result.image is None:
        raise InputError(f"the job {result.id} failed ({result.reason}): there is nothing to judge, only to comment on")
    given = judgement.detections is not None or judgement.classifications is not None
    if given != (judgement.kind == "corrected"):
        raise InputError(
            "`detections` and `classifications` belong to `corrected`, and that needs at least one of them"
        )
    after = _after(result, judgement, result.image) if given and result.image is not None else None
    return NewVerdict(result_id=result.id, kind=judgement.kind, by=who.name, comment=comment, after=after)


def _after(result: Result, judgement: Judgement, image: ImageInfo) -> Said:
    """What is there now: boxes and labels that were left as they stood keep who said them, and what is not given stays. A box
    that is only called otherwise keeps its outline; one that was drawn anew says that the outline was another box's.
    """
    before = shown(result, result.verdict)
    boxes, labels = judgement.detections, judgement.classifications
    if len(boxes or ()) > MOST_BOXES or len(labels or ()) > MOST_LABELS:
        raise InputError(f"more than {MOST_BOXES} boxes or {MOST_LABELS} labels; keep those that count")
    kept = {(found.label, _rounded(found.box)): found for found in before.detections}
    stood = {found.label: found for found in before.classifications}
    return Said(
        before.detections
        if boxes is None
        else _outlined([_box(number, drawn, image, kept) for number, drawn in enumerate(boxes)], before.detections),
        before.classifications if labels is None else [_label(named, stood) for named in labels],
    )


def _box(
    number: int, drawn: Drawn, image: ImageInfo, kept: dict[tuple[str, tuple[float, ...]], Detection]
) -> Detection:
    left, top, right, bottom = drawn.box
    label = _words(f"the label of box {number + 1}", drawn.label, LONGEST_LABEL)
    inside = -SLACK <= left < right <= image.width + SLACK and -SLACK <= top < bottom <= image.height + SLACK
    if not inside:  # NaN is inside of nothing
        raise InputError(
            f"box {number + 1} is {list(drawn.box)}: give left, top, right, bottom in pixels of the picture, which has "
            f"{image.width} x {image.height}"
        )
    found = kept.get((label, _rounded(drawn.box)))
    box = (max(0.0, left), max(0.0, top), min(float(image.width), right), min(float(image.height), bottom))
    return found or Detection(label, 1.0, box, HUMAN)


def _outlined(after: Sequence[Detection], before: Sequence[Detection]) -> list[Detection]:
    """Those drawn by a person with what is true of their outlines: the mask of the same box, or that the mask of the box in
    whose place they stand was dropped. It stays in the record, which never changes.
    """
    masks = {_rounded(found.box): found.attributes["mask"] for found in before if "mask" in found.attributes}
    stay = {_rounded(found.box) for found in after}
    left = [found.box for found in before if found.attributes.keys() & OUTLINES and _rounded(found.box) not in stay]

    def outlined(found: Detection) -> Detection:
        if found.step != HUMAN or found.attributes:
            return found
        if _rounded(found.box) in masks:
            return msgspec.structs.replace(found, attributes={"mask": masks[_rounded(found.box)]})
        overlaps = iou(np.array([found.box], np.float32), np.array(left, np.float32).reshape(-1, 4))
        if overlaps.max(initial=0.0) >= SAME_THING:
            return msgspec.structs.replace(found, attributes={"mask_dropped": True})
        return found

    return [outlined(found) for found in after]


def _label(named: Named, stood: dict[str, Classification]) -> Classification:
    label = _words("a label", named.label, LONGEST_LABEL)
    return stood.get(label) or Classification(label, 1.0, HUMAN)


def _rounded(box: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(side, 2) for side in box)


def _words(what: str, text: str, most: int) -> str:
    """The text without blanks at its ends. Raises InputError for control characters, for none, and for too many."""
    text = text.strip()
    if not text or len(text) > most:
        raise InputError(f"{what} has {len(text)} characters; give 1 to {most}")
    if text.replace("\n", " ") != printable(text.replace("\n", " "), len(text)):
        raise InputError(f"{what} holds control characters; leave them out")
    return text
