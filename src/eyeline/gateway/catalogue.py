"""What there is: models, pipelines, sites with their own clock."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import EyelineError
from eyeline.core.settings import STEP_WORDS, PipelineSettings, Settings, SiteSettings
from eyeline.core.shifts import shift_start
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed
from eyeline.inference.bundles import load_named, locate

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


def installed(settings: Settings) -> list[dict[str, Any]]:
    """What each bundle says of itself; a broken one says why. Blocks: bundles are verified when they are new."""
    used = {model: pipeline.name for pipeline in settings.pipelines for model in pipeline.models}
    return [
        {"name": name, "pipeline": used.get(name)} | _said(name, path, _changed(path))
        for name, path in sorted(locate(settings.inference.models).items())
    ]


def _changed(path: Path) -> int:
    """When the bundle was last written, for the memory of `_said`."""
    try:
        return (path if path.is_file() else path / "model.toml").stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _said(name: str, path: Path, _changed: int) -> dict[str, Any]:
    try:
        bundle = load_named(name, path)
    except EyelineError as error:
        return {"error": str(error)}
    contract = bundle.contract
    fields = ("task", "labels", "licence", "description", "input")
    return {"version": bundle.version} | {field: getattr(contract, field) for field in fields}


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
