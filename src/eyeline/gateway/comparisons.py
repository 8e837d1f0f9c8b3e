"""/v1/comparisons: two pipelines, or two versions of a model, are asked about the newest pictures of a site, aside."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import Conflict, InputError
from eyeline.core.ids import uuid7
from eyeline.core.telemetry import printable
from eyeline.core.types import ImageInfo, Job, Result
from eyeline.gateway.comparing import Asked, Comparison, Comparisons, Side
from eyeline.gateway.content import fields, is_form, parsed
from eyeline.gateway.replays import askable_as, picture_of
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed
from eyeline.stores.results.base import ResultQuery

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
#: Pictures of a comparison: as many as one looks at, and at most.
FEW, MOST = 12, 48
#: So many of the newest results are looked through for pictures that are still kept.
LOOKED_AT = 500


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Who is compared, on how many of the newest pictures of a site."""

    a: Side
    b: Side
    site: Annotated[str, msgspec.Meta(max_length=64)]
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = FEW


def routes(state: State) -> APIRouter:
    """The routes of comparisons."""
    router = APIRouter(tags=["models"])
    comparisons = Comparisons(state.results)

    @router.post("/v1/comparisons", summary="Ask two about the same pictures, to compare", status_code=202)
    async def compare(request: Request, who: Operator) -> Response:
        if is_form(request):  # of the page of models, which it leads on from
            made = await _begin(state, comparisons, _typed(await fields(request)), who)
            return Response(status_code=303, headers={"Location": f"/models/compare/{made.id}"})
        made = await _begin(state, comparisons, await parsed(request, Wanted), who)
        return reply(await comparisons.one(who, made.id), status=202)

    @router.get("/v1/comparisons", summary="The newest comparisons, and how alike the answers are")
    async def listed(who: Reader) -> Response:
        return reply({"comparisons": await comparisons.listed(who)})

    @router.get("/v1/comparisons/{id}", summary="One comparison, picture by picture")
    async def one(id: str, who: Reader) -> Response:  # noqa: A002
        return reply(await comparisons.one(who, id))

    return router


def _typed(form: dict[str, str]) -> Wanted:
    """What the form of the page asks for. Raises InputError."""
    sides = (form.get(name, "").partition(" ") for name in ("a", "b"))
    a, b = (Side(pipeline, model) for pipeline, _, model in sides)
    count = form.get("count", "") or str(FEW)
    if not count.isdecimal() or not 1 <= int(count) <= MOST:
        raise InputError(f"count={printable(count, 20)!r}: give 1 to {MOST} pictures")
    return Wanted(a, b, form.get("site", "")[:64], int(count))


async def _begin(state: State, comparisons: Comparisons, wanted: Wanted, who: Principal) -> Comparison:
    """Both sides are asked about every picture; durable when this returns. Raises InputError, Conflict."""
    for side in (wanted.a, wanted.b):
        await askable_as(state, side.pipeline, side.model)
    if wanted.a == wanted.b:
        raise InputError("both sides are the same; choose two that may answer differently")
    if not who.sees(wanted.site):
        raise InputError(f"no site is called {printable(wanted.site, 60)!r}")
    jobs: list[Job] = []
    asked: list[Asked] = []
    for record, image in await _pictures(state, wanted):
        both = [
            await state.intake.ask_aside(record, image, side.pipeline, side.model, who) for side in (wanted.a, wanted.b)
        ]
        jobs += both
        asked.append(Asked(record.id, both[0].id, both[1].id))
    state.relay.offer(jobs)
    new = Comparison(
        id=uuid7(), at=utcnow(), by=who.name, site=wanted.site, a=wanted.a, b=wanted.b, asked=asked
    )  # fmt: skip
    await comparisons.keep(new)
    return new


async def _pictures(state: State, wanted: Wanted) -> list[tuple[Result, ImageInfo]]:
    """The newest of the site that the pipeline of the first side answered and that are kept as they were received, each once.
    Raises Conflict where there is none.
    """
    query = ResultQuery(site=wanted.site, pipeline=wanted.a.pipeline, status="completed", limit=LOOKED_AT)
    found, _ = await state.results.find(query)
    chosen: dict[str, tuple[Result, ImageInfo]] = {}
    for record in found:
        if len(chosen) == wanted.count:
            break
        if record.aside or record.image is None or record.image.sha256 in chosen:
            continue
        try:
            chosen[record.image.sha256] = (record, await picture_of(state, record))
        except Conflict:
            continue  # let go by retention
    if not chosen:
        raise Conflict(
            f"{wanted.site} has no picture of the pipeline {wanted.a.pipeline!r} that is kept as it was received; "
            "nobody can be asked about it"
        )
    return list(chosen.values())
