"""/v1/series and /v1/operations: what engineers watch, and which worker or server is taken out for a while."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.figures import Range
from eyeline.gateway.drains import Drains
from eyeline.gateway.replies import reply
from eyeline.gateway.report import Metric
from eyeline.gateway.state import State, allowed

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]


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

    return router
