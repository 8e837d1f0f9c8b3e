"""Review: one doubtful picture at a time, decided with a key each."""

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError
from eyeline.core.ids import is_uuid
from eyeline.core.pages import Page, principal_of
from eyeline.core.types import Result
from eyeline.dashboard.format import number
from eyeline.dashboard.pictures import known_labels, picture_of
from eyeline.dashboard.shell import Room, Shell, form_of, unknown
from eyeline.dashboard.sources import Sources
from eyeline.reports.review import Pace, needed, pace
from eyeline.stores.results.review import NewVerdict, RecordKind, ReviewQuery, shown

#: Pictures that the page has at hand.
AHEAD = 20
#: What waits is counted up to here.
COUNTED = 10_000
#: What a plain form may say; boxes are corrected by the script.
KINDS: dict[str, RecordKind] = {"confirmed": "confirmed", "rejected": "rejected", "unsure": "unsure"}


def _pages(shell: Shell) -> tuple[Page, ...]:
    page = ReviewPage(shell)
    return (
        shell.page("/review", page.show, room="review"),
        shell.page("/review/decide", page.decide, room="review", methods=("POST",), right="operate"),
    )


async def _waiting(sources: Sources, who: Principal) -> int:
    progress = await sources.results.review_progress(ReviewQuery(by=who.name, sites=who.sites), utcnow())
    return progress.waiting


ROOM = Room(name="review", pages=_pages, count=_waiting)


class ReviewPage:
    """GET /review, or /review?id= for one result that somebody chose."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """The queue, its first picture large."""
        who = principal_of(request)
        site = request.query_params.get("site", "")[:200] or None
        query = ReviewQuery(by=who.name, sites=who.sites, site=site, limit=AHEAD)
        results = self._sources.results
        queue = [_entry(each.result, each.doubt.reason, each.held_by) for each in await results.to_review(query)]
        chosen = request.query_params.get("id")
        if chosen is not None:
            result = await self._result(chosen, who)
            queue = [_entry(result, "chosen", None), *(each for each in queue if each["result"].id != result.id)]
        now, sites = utcnow(), self._sources.settings.sites
        progress = await results.review_progress(query, now)
        own = await pace(results, sites, query, now)
        share = await needed(results, sites, query, now) if len(queue) < AHEAD else None
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        return await self._shell.render(
            request,
            "review.html",
            room="review",
            title=self._shell.words.say("review.title"),
            script="js/pages/review.js",
            data={
                "queue": [{**each, "result": _told(each["result"])} for each in queue],
                "labels": labels,
                "may": who.may("operate"),
                "site": site,
                "waiting": progress.waiting,
                "pace": asdict(own),
                "record": self._shell.record("{id}"),
            },
            queue=queue,
            first=picture_of(queue[0]["result"], labels) if queue else None,
            progress=self._progress(own, progress.waiting),
            share=share,
            may=who.may("operate"),
            labels=labels,
        )

    def _progress(self, own: Pace, waiting: int) -> str:
        """How far this reviewer is today; the script says the same after each decision."""
        name = "review.progress" if own.seconds is None else "review.progress_pace"
        most = number(own.decided + waiting) + ("+" if waiting > COUNTED else "")
        return self._shell.words.say(name, mine=number(own.decided), all=most, s=own.seconds)

    async def decide(self, request: Request) -> Response:
        """A plain form's verdict, for whoever has no script."""
        who, form = principal_of(request), await form_of(request)
        kind = KINDS.get(form.get("kind", ""))
        if kind is None:
            raise InputError(f"no verdict is called {form.get('kind', '')[:40]!r}; there are: {', '.join(KINDS)}")
        result = await self._result(form.get("id", ""), who)
        await self._sources.results.add_verdict(NewVerdict(result_id=result.id, kind=kind, by=who.name))
        return self._shell.see("/review")

    async def _result(self, id: str, who: Principal) -> Result:  # noqa: A002
        result = await self._sources.results.get(id) if is_uuid(id) else None
        if result is None or not who.sees(result.site) or result.image is None:
            raise unknown("picture", id)
        return result


def _entry(result: Result, reason: str, held_by: str | None) -> dict[str, Any]:
    return {"result": result, "reason": reason, "held_by": held_by}


def _told(result: Result) -> dict[str, Any]:
    """What the editor needs of a result: the same as it reads from GET /v1/review."""
    now = shown(result, result.verdict)
    return {
        "id": result.id,
        "site": result.site,
        "camera": result.camera,
        "ref": result.ref,
        "captured_at": result.captured_at.isoformat(),
        "image": {"width": result.image.width, "height": result.image.height} if result.image else None,
        "detections": [
            {"label": found.label, "score": found.score, "box": list(found.box), "step": found.step}
            for found in now.detections
        ],
        "models": [{"name": model.name, "version": model.version} for model in result.models],
    }
