"""What there is: pipelines, sites with their own clock."""

from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.settings import STEP_WORDS, PipelineSettings, SiteSettings
from eyeline.core.shifts import shift_start
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed

Caller = Annotated[Principal, Depends(allowed("read"))]


def routes(state: State) -> APIRouter:
    """The routes of the catalogue."""
    router = APIRouter(tags=["catalogue"])

    @router.get("/v1/pipelines", summary="Pipelines and their steps")
    async def pipelines(_: Caller) -> Response:
        told = [shown(pipeline) for pipeline in state.settings.pipelines]
        return reply({"pipelines": told, "default": state.settings.default_pipeline})

    @router.get("/v1/sites", summary="Sites, their time now and their shift")
    async def sites(who: Caller) -> Response:
        now = utcnow()
        return reply({"sites": [site_now(site, now) for site in state.settings.sites if who.sees(site.name)]})

    return router


def shown(pipeline: PipelineSettings) -> dict[str, Any]:
    """A pipeline with its steps, each with what has a meaning in a step of its kind and is set."""
    steps = [
        {"name": step.name, "kind": step.kind}
        | {word: value for word in STEP_WORDS[step.kind] if (value := getattr(step, word)) not in (None, [], "")}
        for step in pipeline.steps
    ]
    for step in steps:
        if "unsure_of" not in step:
            step.pop("unsure", None)
    return {"name": pipeline.name, "models": pipeline.models, "steps": steps}


def site_now(site: SiteSettings, now: datetime) -> dict[str, Any]:
    """The site's time and the shift that runs now; `now` is aware."""
    zone = ZoneInfo(site.timezone)
    began = shift_start(site.shifts, zone, now)
    shift = None if began is None else {"name": began.strftime("%H:%M"), "since": began.isoformat()}
    return {
        "name": site.name,
        "timezone": site.timezone,
        "now": now.astimezone(zone).isoformat(timespec="seconds"),
        "shifts": list(site.shifts),
        "shift": shift,
    }
