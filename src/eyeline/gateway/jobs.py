"""Jobs: what became of one, waiting for it where asked to; and a failed one tried anew."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.errors import Conflict
from eyeline.core.types import Job
from eyeline.gateway.params import MAX_WAIT
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed, checked_id, unknown_id
from eyeline.stores.results.base import Action, KeptJob

Caller = Annotated[Principal, Depends(allowed("jobs"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="seconds to wait for the result")]


def routes(state: State) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(tags=["jobs"])

    @router.get("/v1/jobs/{id}", summary="What became of a job")
    async def job(id: str, who: Caller, wait: Wait = 0.0) -> Response:  # noqa: A002
        kept = await _visible(state, checked_id("job", id), who)
        if kept.status == "queued" and wait:
            return reply(await _awaited(state, kept, wait))
        return reply(await _told(state, kept))

    @router.post("/v1/jobs/{id}/replay", summary="A new job for the picture of a failed one", status_code=202)
    async def replay(id: str, who: Operator) -> Response:  # noqa: A002
        job = await replayed(state, id, who)
        told = {"id": job.id, "status": "queued", "replay_of": id, "links": {"job": f"/v1/jobs/{job.id}"}}
        return reply(told, status=202)

    return router


async def replayed(state: State, id: str, who: Principal) -> Job:  # noqa: A002
    """A new job for the picture of a failed one, recorded as who made it. Raises NotFound, Conflict."""
    failed = await _visible(state, checked_id("job", id), who)
    if failed.status != "failed":
        raise Conflict(f"the job {id} is {failed.status}; only failed ones can be replayed")
    blob = failed.job.blob
    if not blob.url or await state.results.picture(blob.url) is not None:
        raise Conflict(f"the picture of {id} is not kept as it was received any more; send it again")
    job = await state.intake.replay(failed.job, who)
    state.relay.offer([job])
    await state.results.record_action(Action(what="replay", by=who.name, body={"failed": id, "job": job.id}))
    return job


async def _visible(state: State, id: str, who: Principal) -> KeptJob:  # noqa: A002
    """The job, if the caller may see it: of its sites, and for an ingest key one that it sent itself."""
    kept = await state.results.get_job(id)
    if kept is None or not who.sees(kept.job.site):
        raise unknown_id("job", id)
    if not who.may("read") and kept.principal != who.name:
        raise unknown_id("job", id)
    return kept


async def _told(state: State, kept: KeptJob) -> dict[str, Any]:
    told: dict[str, Any] = {"id": kept.job.id, "status": kept.status}
    if kept.status != "queued":
        told["result"] = await state.results.get(kept.job.id)
    return told


async def _awaited(state: State, kept: KeptJob, seconds: float) -> dict[str, Any]:
    """Register first, look once more, then sleep until the event log brings it."""
    future = state.follower.expect(kept.job.id)
    try:
        known = await state.results.get(kept.job.id)
        found: Any = known or await state.follower.wait(kept.job.id, future, seconds)
        if found is None and kept.job.aside is not None:
            found = await state.results.get(kept.job.id)
    finally:
        state.follower.forget(kept.job.id, future)
    if found is None:
        return {"id": kept.job.id, "status": "queued"}
    status = found["status"] if isinstance(found, dict) else found.status
    return {"id": kept.job.id, "status": status, "result": found}
