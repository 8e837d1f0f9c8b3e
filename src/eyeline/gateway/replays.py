"""/v1/results/{id}/replay: another model is asked about a record's picture, aside: to compare, and nothing follows from it."""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.errors import BlobError, Conflict, InputError
from eyeline.core.telemetry import printable
from eyeline.core.types import ImageInfo, Job, Result
from eyeline.gateway.content import fields, is_form, parsed
from eyeline.gateway.replies import reply
from eyeline.gateway.results import visible
from eyeline.gateway.state import State, allowed
from eyeline.inference.rollout import askable
from eyeline.stores.pictures import original_of
from eyeline.stores.results.base import Action

Operator = Annotated[Principal, Depends(allowed("operate"))]
Word = Annotated[str, msgspec.Meta(max_length=200)]


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """Whom to ask: a pipeline as it serves now, or with this version of a model that is tried out (name@version)."""

    pipeline: Word
    model: Word = ""


def routes(state: State) -> APIRouter:
    """The route of replays."""
    router = APIRouter(tags=["results"])

    @router.post("/v1/results/{id}/replay", summary="Ask another model about its picture, to compare", status_code=202)
    async def replay(id: str, request: Request, who: Operator) -> Response:  # noqa: A002
        if is_form(request):  # of the record's page, which it leads back to
            pipeline, _, model = (await fields(request)).get("which", "").partition(" ")
            job = await _asked(state, id, Replay(pipeline, model), who)
            return Response(status_code=303, headers={"Location": f"/audit/{id}?asked={job.id}#replays"})
        job = await _asked(state, id, await parsed(request, Replay), who)
        told = {"id": job.id, "status": "queued", "replay_of": id, "links": {"job": f"/v1/jobs/{job.id}"}}
        return reply(told, status=202)

    return router


async def _asked(state: State, id: str, wanted: Replay, who: Principal) -> Job:  # noqa: A002
    """The new job, recorded as who made it. Raises NotFound, Conflict, InputError."""
    record = await visible(state, id, who)
    image = await picture_of(state, record)
    await askable_as(state, wanted.pipeline, wanted.model)
    job = await state.intake.ask_aside(record, image, wanted.pipeline, wanted.model, who)
    state.relay.offer([job])
    body: dict[str, Any] = {"result": id, "job": job.id, "pipeline": wanted.pipeline, "model": wanted.model}
    await state.results.record_action(Action(what="replay", by=who.name, body=body))
    return job


async def askable_as(state: State, pipeline: str, model: str) -> None:
    """Raises InputError where nobody is asked under these names, with those that there are."""
    choices = await asyncio.to_thread(askable, state.settings)
    if (pipeline, model) not in choices:
        listed = ", ".join(" with ".join(filter(None, each)) for each in choices)
        asked = " with ".join(filter(None, (pipeline, model)))
        raise InputError(f"nobody can be asked as {printable(asked, 120)!r}; there are: {listed}")


async def picture_of(state: State, record: Result) -> ImageInfo:
    """What is known of the picture, which is there as it was received. Raises Conflict."""
    if record.aside:
        raise Conflict(f"{record.id} is itself such an answer; ask about the record, {record.replay_of}")
    if record.image is None:
        raise Conflict(f"{record.id} failed ({record.reason}); try it anew instead: POST /v1/jobs/{record.id}/replay")
    ref = original_of(record.site, record.image)
    gone = Conflict(f"the picture of {record.id} is not kept as it was received any more; no other model can be asked")
    if await state.results.picture(ref.url) is not None:
        raise gone
    try:
        await state.blobs.get(ref)
    except BlobError as error:
        if error.transient:
            raise
        raise gone from error
    return record.image
