"""/v1/models: what is installed, in which versions, what each server serves; and which version is to serve, and where."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.gateway.content import parsed
from eyeline.gateway.replies import reply
from eyeline.gateway.rollouts import Rollouts
from eyeline.gateway.state import State, allowed

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Manager = Annotated[Principal, Depends(allowed("manage"))]
Reason = Annotated[str, msgspec.Meta(min_length=3, max_length=500)]


class Promotion(msgspec.Struct, forbid_unknown_fields=True):
    """Which version is to serve, and why."""

    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    reason: Reason


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """Why the version before is to serve, or the one that is tried out is taken back."""

    reason: Reason


class TryOut(msgspec.Struct, forbid_unknown_fields=True):
    """Which version is to be tried out, at which sites, and why. Without sites it answers replays alone."""

    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    sites: Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=1000)]
    reason: Reason


def routes(state: State) -> APIRouter:
    """The routes of models."""
    router = APIRouter(tags=["models"])
    doing = state.rollouts or Rollouts(state.settings, state.results, state.servers)

    @router.get("/v1/models", summary="Installed models, their versions, and what each server serves")
    async def listed(_: Reader) -> Response:
        return reply(await doing.catalogue())

    @router.post(
        "/v1/models/{name}/promote", summary="Let a version serve: it is checked first, while the old one serves"
    )
    async def promote(name: str, request: Request, who: Manager) -> Response:
        wanted = await parsed(request, Promotion)
        return reply(await doing.promote(who, name, wanted.version, wanted.reason))

    @router.post("/v1/models/{name}/rollback", summary="Let the version serve that served before")
    async def rollback(name: str, request: Request, who: Manager) -> Response:
        return reply(await doing.rollback(who, name, (await parsed(request, Rollback)).reason))

    @router.post("/v1/models/{name}/canary", summary="Let a version answer for some sites, once it is checked")
    async def try_out(name: str, request: Request, who: Manager) -> Response:
        wanted = await parsed(request, TryOut)
        return reply(await doing.try_out(who, name, wanted.version, wanted.sites, wanted.reason))

    @router.post("/v1/models/{name}/canary/end", summary="Let the version that serves answer for all sites again")
    async def take_back(name: str, request: Request, who: Manager) -> Response:
        return reply(await doing.take_back(who, name, (await parsed(request, Rollback)).reason))

    @router.post("/v1/models/{name}/verify", summary="Check a version's digests and golden images now, apart")
    async def verify(name: str, _: Operator, version: Annotated[str | None, Query(max_length=64)] = None) -> Response:
        return reply(await doing.verify(name, version))

    @router.post(
        "/v1/models/{name}/golden", summary="Send a model's golden pictures through each server that serves it"
    )
    async def golden(name: str, who: Manager) -> Response:
        return reply(await doing.check_golden(who, name))

    return router
