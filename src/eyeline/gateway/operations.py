"""/v1/series and /v1/operations: what engineers watch, whom they take out for a while, and by which rate costs are counted."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.errors import InputError
from eyeline.core.figures import Range
from eyeline.core.telemetry import printable
from eyeline.gateway.content import fields, is_form, parsed
from eyeline.gateway.drains import Drains
from eyeline.gateway.replies import reply
from eyeline.gateway.report import Metric
from eyeline.gateway.state import State, allowed

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Manager = Annotated[Principal, Depends(allowed("manage"))]
#: No machines cost more an hour.
MOST = 1e9


class Rate(msgspec.Struct, forbid_unknown_fields=True):
    """What all machines together cost an hour; null: what the settings say."""

    machines_per_hour: Annotated[float, msgspec.Meta(ge=0, le=MOST)] | None


def routes(state: State) -> APIRouter:
    """The routes of figures over time."""
    router = APIRouter(tags=["system"])
    operations = state.operations
    drains = Drains(state.results, operations, state.servers)

    @router.get("/v1/series", summary="One figure over time, in at most 600 points")
    async def series(
        who: Reader,
        metric: Metric = "throughput",
        over: Annotated[Range, Query(alias="range")] = "1h",
        site: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        return reply(await operations.series(who, metric, over, site))

    @router.get("/v1/operations", summary="Service levels with error budgets, cost, stages, queue, processes")
    async def report(
        who: Reader,
        over: Annotated[Range, Query(alias="range")] = "1h",
        site: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        return reply(await operations.report(who, over, site))

    @router.post("/v1/operations/replicas/{id}/drain", summary="Let a worker or inference server take no new work")
    async def drain(id: str, who: Operator) -> Response:  # noqa: A002
        return reply(await drains.drain(who, id, wanted=True))

    @router.post("/v1/operations/replicas/{id}/drain/end", summary="Put it back to work")
    async def put_back(id: str, who: Operator) -> Response:  # noqa: A002
        return reply(await drains.drain(who, id, wanted=False))

    @router.post("/v1/operations/cost", summary="Keep the rate by which costs are counted, for everyone")
    async def rate(request: Request, who: Manager) -> Response:
        if is_form(request):  # of the page, which it leads back to
            await operations.costs.keep(who, _typed((await fields(request)).get("machines_per_hour", "")))
            return Response(status_code=303, headers={"Location": f"/operations?{request.url.query}#cost"})
        return reply(await operations.costs.keep(who, (await parsed(request, Rate)).machines_per_hour))

    return router


def _typed(text: str) -> float | None:
    """Nothing asks for the rate of the settings. Raises InputError."""
    if not text.strip():
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= MOST:
        raise InputError(f"machines_per_hour={printable(text, 20)!r}: write a number such as 2.5, or nothing")
    return rate
