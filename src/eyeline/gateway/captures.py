"""Triggered capture: someone wants the next frame of a camera, and the camera's agent comes to ask who does.

Nothing here calls an agent. A request is a `system` event in the event log; agents ask for those of their camera, one long
request after the other, at any gateway; the frame comes up the usual way with `meta.capture`, and its arrival is an event
again, which wakes whoever waits, at whichever gateway (docs/decisions/0008).
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.errors import BackendError, Conflict, InputError, NotFound
from eyeline.core.ids import is_uuid, uuid7
from eyeline.core.settings import CameraSettings
from eyeline.core.telemetry import logger, printable
from eyeline.core.types import Event
from eyeline.gateway.follow import Subscriber
from eyeline.gateway.ingest import Accepted
from eyeline.gateway.params import MAX_REF, MAX_WAIT, ImageParams
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed

log = logger("gateway")

WANTED, TAKEN = "camera.capture", "camera.captured"
#: The meta field by which a frame says for which request it was taken.
META = "capture"
#: An agent that did not report for so long (seconds) is away.
SILENT = 10.0
#: How many of the newest events a new agent looks through for requests that still wait.
LOOK_BACK = 500

Caller = Annotated[Principal, Depends(allowed("submit"))]
Agent = Annotated[Principal, Depends(allowed("report"))]
Ref = Annotated[str | None, Query(max_length=MAX_REF, description="your own word for it: order, serial, pallet")]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="seconds to wait for the frame")]
Poll = Annotated[float, Query(ge=0, le=MAX_WAIT, description="seconds to wait for a request")]
After = Annotated[int | None, Query(ge=0, description="go on after this event")]


class CameraAway(Conflict):
    """The camera gives no frames now, so that there is none to wait for."""

    code = "camera_away"


class CaptureTimeout(InputError):
    """No frame came in time. It may still come: its job then carries the ref."""

    code = "capture_timeout"
    status = 504


def routes(state: State) -> APIRouter:
    """The routes of triggered capture."""
    router = APIRouter(tags=["cameras"])

    @router.post("/v1/cameras/{name}/capture", summary="Take the next frame of a camera", status_code=202)
    async def capture(name: str, who: Caller, ref: Ref = None, wait: Wait = 10.0) -> Response:
        camera = visible(state, name, who)
        await _require_frames(state, camera)
        taken = await _taken(state, camera, ref or None, wait)
        job = str(taken["job"])
        links = {"job": f"/v1/jobs/{job}", "result": f"/v1/results/{job}"}
        answer = reply({"id": job, "status": "queued", "ref": ref, "camera": name, "links": links}, status=202)
        answer.headers["Location"] = links["job"]
        return answer

    @router.get("/v1/cameras/{name}/captures", summary="For agents: who wants a frame of this camera")
    async def captures(name: str, who: Agent, after: After = None, wait: Poll = 0.0) -> Response:
        camera = visible(state, name, who)
        events, cursor = await _wanted(state, camera, after, wait)
        return reply({"captures": list(map(_asked, events)), "after": cursor})

    return router


def visible(state: State, name: str, who: Principal) -> CameraSettings:
    """The camera. Raises NotFound for one that is not defined or lies at a site out of reach."""
    camera = state.known.cameras.get(name)
    if camera is None or not who.sees(camera.site):
        seen = sorted(c.name for c in state.known.cameras.values() if who.sees(c.site))
        raise NotFound(f"no camera is called {printable(name, 60)!r}; known: {', '.join(seen) or 'none'}")
    return camera


async def announce(state: State, params: ImageParams, accepted: Sequence[Accepted]) -> None:
    """An image was kept; where it answers a request, say so. A store that is away costs the waiting, not the image."""
    capture = params.meta.get(META)
    if capture is None or params.camera is None or not is_uuid(capture):
        return
    body = {"type": TAKEN, "capture": capture, "camera": params.camera, "job": accepted[0].job.id}
    try:
        await state.results.add_event("system", params.site, body)
    except BackendError as error:
        log.warning("a capture could not be announced", capture=capture, error=str(error))


async def _require_frames(state: State, camera: CameraSettings) -> None:
    """Raises CameraAway where waiting would be in vain."""
    report = (await state.results.cameras()).get(camera.name)
    if report is None:
        raise CameraAway(f"camera {camera.name!r} has never reported; start its agent: eyeline camera {camera.name}")
    silent = (utcnow() - parse_time(str(report["reported_at"]))).total_seconds()
    if silent > SILENT:
        raise CameraAway(f"the agent of camera {camera.name!r} has not reported for {silent:.0f} s; look after it")
    if report.get("state") != "live":
        raise CameraAway(
            f"camera {camera.name!r} is {report.get('state', 'unknown')!r}, not live; it gives no frames now"
        )


async def _taken(state: State, camera: CameraSettings, ref: str | None, wait: float) -> dict[str, Any]:
    """Ask for a frame, and what became of it. Raises CaptureTimeout."""
    capture = uuid7()
    until = utcnow() + timedelta(seconds=wait)
    body = {"type": WANTED, "capture": capture, "camera": camera.name, "ref": ref, "expires_at": isoformat(until)}
    answers = state.follower.subscribe(lambda event: _is(event, TAKEN, capture=capture))
    try:
        await state.results.add_event("system", camera.site, body)
        for event in await _next(state, answers, wait):
            return event.body
    finally:
        state.follower.unsubscribe(answers)
    raise CaptureTimeout(
        f"camera {camera.name!r} gave no frame within {wait:g} s; if it comes later, its job has "
        f"{f'the ref {printable(ref, 60)!r}' if ref else f'meta.{META} {capture}'}"
    )


async def _wanted(state: State, camera: CameraSettings, after: int | None, wait: float) -> tuple[list[Event], int]:
    """Requests after `after` that still wait, and how far was read."""

    def mine(event: Event) -> bool:
        return _is(event, WANTED, camera=camera.name)

    follower = state.follower
    subscriber = follower.subscribe(mine, idle=True)
    try:
        cursor = follower.cursor
        start = max(0, cursor - LOOK_BACK) if after is None or after > cursor else max(after, cursor - LOOK_BACK)
        found = [event async for event in follower.missed(start, cursor) if mine(event)]
        if not any(map(_waits, found)):
            found = [event for event in await _next(state, subscriber, wait) if event.seq > cursor]
        return list(filter(_waits, found)), max([cursor, *(event.seq for event in found)])
    finally:
        follower.unsubscribe(subscriber)


async def _next(state: State, subscriber: Subscriber, seconds: float) -> list[Event]:
    """The next events, for up to so many seconds or until the gateway stops."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not state.follower.stopping.is_set():
        events, _ = await subscriber.take(min(1.0, left))
        if events:
            return events
    return []


def _is(event: Event, kind: str, **fields: str) -> bool:
    body = event.body
    return event.kind == "system" and body.get("type") == kind and all(body.get(k) == v for k, v in fields.items())


def _left(event: Event) -> float:
    return (parse_time(str(event.body["expires_at"])) - utcnow()).total_seconds()


def _waits(event: Event) -> bool:
    return _left(event) > 0


def _asked(event: Event) -> dict[str, Any]:
    return {"id": event.body["capture"], "ref": event.body.get("ref"), "expires_in": round(_left(event), 3)}
