"""Cameras: what is configured, what their agents report, and the accounting of every frame."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from msgspec import structs
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import Conflict, InputError
from eyeline.core.ids import uuid7
from eyeline.core.settings import CameraSettings, mask
from eyeline.gateway.body import small_body
from eyeline.gateway.captures import visible
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed

LONGEST_REPORT = 16_384
HEALTH = "camera.health"

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Reporter = Annotated[Principal, Depends(allowed("report"))]
Count = Annotated[int, msgspec.Meta(ge=0)]


class CameraHealth(msgspec.Struct, frozen=True):
    """What an agent finds wrong with its camera: condition → a sentence; what its frames look like; and `clocks`: by how many
    seconds whose clock (`camera`, `gateway`) is ahead of the agent's.
    """

    conditions: dict[Annotated[str, msgspec.Meta(max_length=32)], Annotated[str, msgspec.Meta(max_length=1000)]] = {}
    brightness: float | None = None
    sharpness: float | None = None
    clocks: dict[Annotated[str, msgspec.Meta(max_length=32)], float] = {}


class CameraReport(msgspec.Struct, frozen=True):
    """What an agent says of its camera: frames since it was set up, none counted twice.

    `captured` = `accepted` (the gateway answered 202 or 200) + `dropped` by reason + `spooled` + `in_hand`.
    """

    captured: Count = 0
    accepted: Count = 0
    dropped: dict[Annotated[str, msgspec.Meta(max_length=64)], Count] = {}
    spooled: Count = 0
    in_hand: Count = 0
    state: Annotated[str, msgspec.Meta(max_length=64)] = "unknown"
    fps: float | None = None
    health: CameraHealth | None = None  # None: not known yet; what was said before stands


class Account(msgspec.Struct, frozen=True):
    """Every frame of a camera, by what became of it; `balance` is what is not accounted for, and must be 0."""

    captured: int
    completed: int
    failed: int
    duplicates: int  # among the completed ones
    dropped: dict[str, int]
    spooled: int
    in_flight: int
    balance: int


def account(report: CameraReport | None, counted: Mapping[str, int]) -> Account:
    """The books of one camera from its agent's report and the store's counts, which are read after the report.

    The store may be ahead: a job that the report does not know yet was in hand, or spooled, or captured since.
    """
    said = report or CameraReport()
    completed, failed = counted.get("completed", 0), counted.get("failed", 0)
    queued = counted.get("in_flight", 0)
    jobs = completed + failed + queued
    ahead = max(0, jobs - said.accepted)
    from_hand = min(ahead, said.in_hand)
    from_spool = min(ahead - from_hand, said.spooled)
    captured = said.captured + ahead - from_hand - from_spool
    in_flight = queued + said.in_hand - from_hand
    spooled = said.spooled - from_spool
    dropped = sum(said.dropped.values())
    return Account(
        captured=captured,
        completed=completed,
        failed=failed,
        duplicates=counted.get("duplicates", 0),
        dropped=dict(said.dropped),
        spooled=spooled,
        in_flight=in_flight,
        balance=captured - (completed + failed + dropped + spooled + in_flight),
    )


def routes(state: State) -> APIRouter:
    """The routes of cameras."""
    router = APIRouter(tags=["cameras"])
    looking = asyncio.Lock()

    @router.get("/v1/cameras", summary="Cameras and the accounting of their frames")
    async def listed(who: Reader) -> Response:
        reports = await state.results.cameras()
        counts = await state.results.camera_counts()  # after the reports: see `account`
        cameras = [camera for camera in state.known.cameras.values() if who.sees(camera.site)]
        return reply({"cameras": [_told(c, reports.get(c.name), counts.get(c.name, {})) for c in cameras]})

    @router.put("/v1/cameras/{name}/status", summary="An agent's report of its camera", status_code=204)
    async def report(name: str, request: Request, who: Reporter) -> Response:
        camera = visible(state, name, who)
        said = await _with_health(
            state, camera, _parsed(await small_body(request, LONGEST_REPORT, "a camera's report"))
        )
        await state.results.report_camera(name, camera.site, msgspec.to_builtins(said))
        return Response(status_code=204)

    @router.post("/v1/cameras/{name}/diagnose", summary="Look at a camera six times, now, from this machine")
    async def diagnose(name: str, who: Operator) -> Response:
        camera = visible(state, name, who)
        if looking.locked():
            raise Conflict("another camera is being looked at; try again in a few seconds")
        async with looking:
            looks = await state.diagnose(camera)
        return reply(
            {"camera": name, "looks": [dict(zip(("what", "well", "told"), look, strict=True)) for look in looks]}
        )

    return router


async def _with_health(state: State, camera: CameraSettings, said: CameraReport) -> CameraReport:
    """The report with the health that stands; what began or ended since the last one becomes an event.

    The last one is looked up only where this gateway remembers another: several gateways share the reports of a camera.
    """
    remembered = state.camera_health.get(camera.name)
    if said.health is not None and remembered is not None and remembered.keys() == said.health.conditions.keys():
        return said
    before = CameraHealth()
    reported = (await state.results.cameras()).get(camera.name)
    if reported is not None:
        before = msgspec.convert(dict(reported), CameraReport, strict=False).health or before
    if said.health is None:
        return structs.replace(said, health=before)
    for event in health_events(camera, state.known.pipeline_of(camera), before.conditions, said.health.conditions):
        await state.results.add_event("system", camera.site, event)
    state.camera_health[camera.name] = dict(said.health.conditions)
    return said


def health_events(
    camera: CameraSettings, pipeline: str, before: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """One event for each condition that began or ended."""
    at = isoformat(utcnow())
    for condition in sorted(before.keys() ^ now.keys()):
        yield {
            "type": HEALTH,
            "id": uuid7(),
            "site": camera.site,
            "camera": camera.name,
            "pipeline": pipeline,
            "health": condition,
            "state": "began" if condition in now else "ended",
            "detail": now.get(condition, before.get(condition, "")),
            "at": at,
        }


def _parsed(body: bytes) -> CameraReport:
    try:
        return msgspec.json.decode(body, type=CameraReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the camera's report cannot be read: {error}") from error


def _told(camera: CameraSettings, reported: Mapping[str, Any] | None, counted: Mapping[str, int]) -> dict[str, Any]:
    report = msgspec.convert(dict(reported), CameraReport, strict=False) if reported else None
    return {
        "name": camera.name,
        "site": camera.site,
        "pipeline": camera.pipeline,
        "url": mask(camera.url),
        "state": report.state if report else "never reported",
        "fps": report.fps if report else None,
        "reported_at": reported.get("reported_at") if reported else None,
        "health": report.health if report else None,
        "frames": account(report, counted),
    }
