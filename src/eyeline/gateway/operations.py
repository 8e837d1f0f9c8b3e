"""/v1/series and /v1/operations: what engineers watch."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.figures import Range
from eyeline.gateway.replies import reply
from eyeline.gateway.report import Metric
from eyeline.gateway.state import State, allowed

Reader = Annotated[Principal, Depends(allowed("read"))]


def routes(state: State) -> APIRouter:
    """The routes of figures over time."""
    router = APIRouter(tags=["system"])
    operations = state.operations

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

    return router
