"""How the service does: service levels, the system page, health, metrics."""

import asyncio
import contextlib
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from eyeline import __version__
from eyeline.core.access import Principal
from eyeline.core.errors import BackendError, CacheError
from eyeline.core.settings import shown
from eyeline.core.telemetry import QUEUE_DEPTH, logger, metrics_page
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed

log = logger("gateway")

WATCH = 1.0
#: Peak memory is counted in kB on Linux and in bytes on macOS.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]


def routes(state: State) -> APIRouter:
    """The routes of operation. Liveness and readiness need no key: they tell nothing but names of parts."""
    router = APIRouter(tags=["system"])
    began = time.monotonic()

    @router.get("/v1/slo", summary="Service levels, measured against their targets")
    async def slo(_: Reader) -> Response:
        return reply(await state.slo())

    @router.get("/v1/system", summary="Version, settings (secrets masked), queue, process")
    async def system(_: Operator) -> Response:
        return reply(await _system(state, time.monotonic() - began))

    @router.get("/v1/storage", summary="What is kept, what it costs, what was saved, and when the disk is full")
    async def storage(_: Operator) -> Response:
        return reply(await state.storage())

    @router.get("/healthz", summary="Alive")
    async def healthz() -> Response:
        return reply({"status": "alive"})

    @router.get("/readyz", summary="Ready, or which part is not")
    async def readyz() -> Response:
        troubles = not_ready(state)
        told = {
            "ready": not troubles,
            "not_ready": troubles,
            "models_not_ready": state.unready_models,
            "pipelines_not_ready": state.unready_pipelines,
        }
        return reply(told, 503 if troubles else 200)

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics(_: Reader) -> Response:
        page = await asyncio.to_thread(metrics_page)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def not_ready(state: State) -> dict[str, str]:
    """What is not working, by part, in words that tell nothing of the inside."""
    away = {"results": state.admission.error, "queue": state.relay.error or state.troubles.get("queue")}
    away["blobs"] = state.troubles.get("blobs")
    return {part: "not reachable; the log says more" for part, why in away.items() if why}


async def watch(state: State) -> None:
    """Look at the queue once a second, or as often as its broker's prices allow, and at a blob store that failed until it
    works again.
    """
    looked = -math.inf
    while True:
        if "queue" in state.troubles or time.monotonic() - looked >= state.queue.abilities.look_every:
            looked = time.monotonic()
            await _look_at_queue(state)
        if "blobs" in state.troubles:
            await _try_blobs(state)
        state.unready_models = await _unready_models(state)
        await _look_for_workers(state)
        await asyncio.sleep(WATCH)


async def _look_at_queue(state: State) -> None:
    try:
        stats = await state.queue.stats()
        QUEUE_DEPTH.set(stats.depth)
        if len(state.known.pipelines) > 1:
            state.admission.queued(stats.by_topic)
        state.troubles.pop("queue", None)
    except BackendError as error:
        state.troubles["queue"] = str(error)


async def _look_for_workers(state: State) -> None:
    """Which pipelines no worker runs, as far as the cache tells: while it is away, what was known last stands. And the other
    way round, what this gateway understands by them.
    """
    with contextlib.suppress(CacheError):
        await state.definitions.tell()
        state.unready_pipelines = await state.answers.unpublished(state.known.pipelines)


async def _unready_models(state: State) -> Sequence[str]:
    try:
        return await state.models()
    except BackendError:
        return ["(the inference service does not answer)"]


async def _try_blobs(state: State) -> None:
    try:
        await state.intake.try_blobs()
        state.troubles.pop("blobs", None)
        log.info("the blob store works again")
    except BackendError as error:
        state.troubles["blobs"] = str(error)


async def _system(state: State, uptime: float) -> dict[str, Any]:
    stats = await state.queue.stats()
    unfinished = await state.results.unfinished()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "version": __version__,
        "uptime": uptime,
        "settings": shown(state.settings),
        "queue": {
            "depth": stats.depth,
            "in_flight": stats.in_flight,
            "oldest_age": stats.oldest_age,
            "by_topic": dict(stats.by_topic),
        },
        "unfinished": {
            "count": unfinished.count,
            "oldest": unfinished.oldest,
            "by_lane": dict(unfinished.by_lane),
            "by_camera": dict(unfinished.by_camera),
        },
        "process": {
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * RSS_UNIT,
        },
        "not_ready": not_ready(state),
    }
