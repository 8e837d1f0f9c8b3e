"""/v1/exports: exports that are written in the background (export_jobs.py), followed, fetched and stopped."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.responses import FileResponse, Response

from eyeline.core.access import Principal
from eyeline.core.errors import Conflict, InputError
from eyeline.gateway.content import fields, is_form, parsed
from eyeline.gateway.export import EXPORTS
from eyeline.gateway.export_jobs import ExportJob
from eyeline.gateway.replies import reply
from eyeline.gateway.results import Exported
from eyeline.gateway.state import State, allowed
from eyeline.stores.results.base import Action

Caller = Annotated[Principal, Depends(allowed("read"))]


def routes(state: State) -> APIRouter:
    """The routes of export jobs. Each person sees their own alone."""
    router = APIRouter(tags=["results"])
    jobs = state.exports

    @router.post("/v1/exports", summary="Write an export in the background", status_code=202)
    async def begin(request: Request, who: Caller) -> Response:
        form = is_form(request)
        wanted = _wanted(await fields(request) if form else await parsed(request, dict[str, Any]))
        body = {"sites": who.sites, **wanted.model_dump(exclude_none=True)}
        asked = Action(what="export", by=who.name, body=body)
        job = await jobs.begin(wanted.query(who, None, 500), wanted.limit, who, asked)
        if form:  # of the page of the search, which it leads back to
            return Response(status_code=303, headers={"Location": f"/audit?{urlencode({'q': wanted.q or ''})}#exports"})
        return reply(_told(job), 202, {"Location": f"/v1/exports/{job.id}"})

    @router.get("/v1/exports", summary="Your exports of the last day, newest first")
    async def listed(who: Caller) -> Response:
        return reply({"exports": [_told(job) for job in await jobs.of(who)]})

    @router.get("/v1/exports/{id}", summary="How far an export is")
    async def one(id: str, who: Caller) -> Response:  # noqa: A002
        return reply(_told(await jobs.get(id, who)))

    @router.get("/v1/exports/{id}/file", summary="The file of an export that is done")
    async def file(id: str, who: Caller) -> Response:  # noqa: A002
        job = await jobs.get(id, who)
        if job.state != "done":
            raise Conflict(f"the export {id} is {job.state}; there is a file once it is done")
        kind = EXPORTS[job.asked["format"]]
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        name = f"results-{job.created_at:%Y%m%d-%H%M%S}.{kind.ending}"
        return FileResponse(jobs.file(job), media_type=kind.media_type, filename=name, headers=headers)

    @router.delete("/v1/exports/{id}", summary="Stop an export, or remove its file", status_code=204)
    async def remove(id: str, who: Caller) -> Response:  # noqa: A002
        await jobs.remove(await jobs.get(id, who))
        return Response(status_code=204)

    return router


def _wanted(given: dict[str, Any]) -> Exported:
    try:
        return Exported.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the export"
        raise InputError(f"{place}: {first['msg']}; give format, limit, and q or the filters of /v1/results") from error


def _told(job: ExportJob) -> dict[str, Any]:
    links = {"self": f"/v1/exports/{job.id}"} | ({"file": f"/v1/exports/{job.id}/file"} if job.state == "done" else {})
    return {
        "id": job.id,
        "state": job.state,
        "asked": {name: value for name, value in job.asked.items() if name != "sites"},
        "results": job.results,
        "about": job.about,
        "bytes": job.bytes,
        "error": job.error,
        "created_at": job.created_at,
        "expires_at": job.expires_at,
        "links": links,
    }
