"""/v1/models: what is installed, in which versions, what each server serves; and which version is to serve."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import ConfigError, Conflict, NotFound
from eyeline.core.settings import Settings
from eyeline.core.telemetry import printable
from eyeline.gateway.catalogue import installed
from eyeline.gateway.content import parsed
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed
from eyeline.inference import rollout
from eyeline.inference.bundles import locate, versions
from eyeline.inference.proving import prove_apart
from eyeline.inference.rollout import Rolled
from eyeline.inference.servers import Servers
from eyeline.stores.results.base import Action, ResultStore

#: The name under which the history of what served lies in the store, and how much of it is kept.
HISTORY, REMEMBERED = "models/history", 200

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Manager = Annotated[Principal, Depends(allowed("manage"))]
Reason = Annotated[str, msgspec.Meta(min_length=3, max_length=500)]


class Promotion(msgspec.Struct, forbid_unknown_fields=True):
    """Which version is to serve, and why."""

    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    reason: Reason


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """Why the version before is to serve."""

    reason: Reason


def routes(state: State) -> APIRouter:
    """The routes of models."""
    router = APIRouter(tags=["models"])
    models, changing = state.settings.inference.models, asyncio.Lock()

    @router.get("/v1/models", summary="Installed models, their versions, and what each server serves")
    async def listed(_: Reader) -> Response:
        return reply(await catalogue(state.settings, state.results, state.servers))

    @router.post(
        "/v1/models/{name}/promote", summary="Let a version serve: it is checked first, while the old one serves"
    )
    async def promote(name: str, request: Request, who: Manager) -> Response:
        wanted = await parsed(request, Promotion)
        work = partial(rollout.promote, models, name, wanted.version, state.servers)
        return reply(await _rolled(state, changing, who, "model.promoted", wanted.reason, work))

    @router.post("/v1/models/{name}/rollback", summary="Let the version serve that served before")
    async def rollback(name: str, request: Request, who: Manager) -> Response:
        reason = (await parsed(request, Rollback)).reason
        work = partial(rollout.rollback, models, name, state.servers)
        return reply(await _rolled(state, changing, who, "model.rolled_back", reason, work))

    @router.post("/v1/models/{name}/verify", summary="Check a version's digests and golden images now, apart")
    async def verify(name: str, _: Operator, version: Annotated[str | None, Query(max_length=64)] = None) -> Response:
        where = await asyncio.to_thread(locate, models)
        if name not in where:
            raise NotFound(f"no model is called {printable(name, 80)!r}; installed: {', '.join(sorted(where))}")
        path = versions(models / name).get(version) if version else where[name]
        if path is None:
            raise NotFound(f"{name} has no version {printable(version or '', 40)!r}")
        async with _alone(changing):
            try:
                proof = await prove_apart(name, path, state.settings.inference, state.settings.data_dir / "engines")
            except ConfigError as error:
                return reply({"model": name, "version": path.name, "passed": False, "detail": str(error)})
        return reply({"model": name, "version": path.name, "passed": True, "digest": proof.digest})

    return router


async def catalogue(settings: Settings, results: ResultStore, servers: Servers | None) -> dict[str, Any]:
    """What is installed, what each server serves, and what was promoted by whom; for the API and the page."""
    return {
        "models": await asyncio.to_thread(_with_versions, settings),
        "servers": await servers.compared() if servers else [],
        "history": await _history(results),
    }


def _with_versions(settings: Settings) -> list[dict[str, Any]]:
    models = settings.inference.models
    return [model | {"versions": rollout.versions(models / model["name"])} for model in installed(settings)]


async def _rolled(
    state: State,
    changing: asyncio.Lock,
    who: Principal,
    what: Literal["model.promoted", "model.rolled_back"],
    reason: str,
    work: Callable[[], Awaitable[Rolled]],
) -> dict[str, Any]:
    """Change, record who did it and why, and tell whoever listens."""
    async with _alone(changing):
        done = await work()
        told = {"what": what, "model": done.model, "version": done.version, "from": done.before, "reason": reason}
        line = told | {"by": who.name, "at": isoformat(utcnow())}
        history = [line, *await _history(state.results)][:REMEMBERED]
        body = {name: value for name, value in told.items() if name != "what"}
        await state.results.keep_state(HISTORY, msgspec.json.encode(history), Action(what=what, by=who.name, body=body))
    await state.results.add_event("system", "default", {"type": what} | body)
    return told | {"servers": done.servers, "waits": done.waits}


@asynccontextmanager
async def _alone(lock: asyncio.Lock) -> AsyncIterator[None]:
    """Raises Conflict where another one is at it: a second change meanwhile would be one that its author cannot see."""
    if lock.locked():
        raise Conflict("another version is being checked or loaded now; try again when that is done")
    async with lock:
        yield


async def _history(results: ResultStore) -> list[dict[str, Any]]:
    kept = await results.load_state(HISTORY)
    found: list[dict[str, Any]] = msgspec.json.decode(kept) if kept else []
    return found
