"""/v1/queue: the line by site and lane; and the jobs that failed, to be tried anew."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.errors import Conflict, InputError
from eyeline.core.types import Result
from eyeline.gateway.content import parsed
from eyeline.gateway.jobs import replayed
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed
from eyeline.stores.results.base import ResultQuery

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Id = Annotated[str, msgspec.Meta(max_length=64)]


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """Which failed jobs are to be tried anew."""

    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=100)]


def routes(state: State) -> APIRouter:
    """The routes of the queue."""
    router = APIRouter(tags=["jobs"])

    @router.get("/v1/queue", summary="The line of unfinished jobs, by site and lane")
    async def line(who: Reader) -> Response:
        waiting = [row for row in await state.results.line() if who.sees(row.site)]
        return reply({"waiting": sum(row.count for row in waiting), "by_site": waiting})

    @router.get("/v1/queue/dead", summary="Failed jobs with their reasons, newest first")
    async def dead(
        who: Reader,
        cursor: Annotated[str | None, Query(max_length=80)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        query = ResultQuery(sites=who.sites, status="failed", cursor=cursor, limit=limit)
        found, following = await state.results.find(query)
        return reply({"jobs": [_failed(result) for result in found], "next": following})

    @router.post("/v1/queue/dead/replay", summary="A new job for each of those failed ones")
    async def replay(request: Request, who: Operator) -> Response:
        wanted = await parsed(request, Replay)
        done: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        for id_ in dict.fromkeys(wanted.ids):
            try:
                done.append({"id": id_, "job": (await replayed(state, id_, who)).id})
            except (InputError, Conflict) as error:
                refused.append({"id": id_, "detail": str(error)})
        return reply({"replayed": done, "refused": refused})

    return router


def _failed(result: Result) -> dict[str, Any]:
    names = ("id", "site", "camera", "pipeline", "ref", "captured_at", "completed_at", "reason", "replay_of")
    return {name: getattr(result, name) for name in names}
