"""Results: a filtered list, one, its picture, and exports."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from eyeline.core.access import Principal
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import InputError, NotFound
from eyeline.core.telemetry import printable
from eyeline.core.types import VERDICTS, Result
from eyeline.gateway.export import Exporter
from eyeline.gateway.images import View, picture
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed, checked_id, unknown_id
from eyeline.stores.results.base import Action, Ended, ResultQuery, Word
from eyeline.stores.results.search import LONGEST, Search, parse

Caller = Annotated[Principal, Depends(allowed("read"))]
#: What is kept has no control characters, and some databases take none even in a question.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Text = Annotated[str | None, Field(max_length=200, pattern=PRINTABLE)]
#: Words that are offered for a token.
OFFERED = 20


class Filters(BaseModel):
    """What all lists of results can be narrowed by. `since` and `until` are about `captured_at`."""

    model_config = ConfigDict(extra="forbid")

    site: Text = None
    camera: Text = None
    pipeline: Text = None
    label: Text = None
    min_score: float | None = Field(None, ge=0, le=1)
    status: Literal["completed", "failed"] | None = None
    ref: Text = None
    code: Text = None
    since: Text = Field(None, description="RFC 3339, inclusive")
    until: Text = Field(None, description="RFC 3339, exclusive")
    q: Annotated[
        str | None, Field(max_length=LONGEST, description="a search (docs/review.md), instead of the others")
    ] = None

    def query(self, who: Principal, cursor: str | None, limit: int) -> ResultQuery:
        """The query, narrowed to what the caller may see."""
        if self.q is not None:
            if given := sorted(self.model_fields_set & Filters.model_fields.keys() - {"q"}):
                raise InputError(f"q is a whole search; write {given[0]} into it as {given[0]}:…")
            return replace(parse(self.q, utcnow()).query, sites=who.sites, cursor=cursor, limit=limit)
        return ResultQuery(
            sites=who.sites,
            site=self.site,
            camera=self.camera,
            pipeline=self.pipeline,
            label=self.label,
            min_score=self.min_score,
            status=self.status,
            ref=self.ref,
            code=self.code,
            since=moment("since", self.since),
            until=moment("until", self.until),
            cursor=cursor,
            limit=limit,
        )


class Listed(Filters):
    """A page of the list."""

    cursor: Annotated[str | None, Field(max_length=64, description="`next` of the page before")] = None
    limit: int = Field(100, ge=1, le=1000)
    order: Literal["newest", "oldest"] = Field("newest", description="which come first")


class Searched(BaseModel):
    """A search that is only counted."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field("", max_length=LONGEST, description="a search (docs/review.md)")


class Offered(BaseModel):
    """A word of a search that is being written."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(
        max_length=20, description="site, camera, pipeline, label, status, verdict, by, model, ref or code"
    )
    text: Annotated[str, Field(max_length=200, pattern=PRINTABLE)] = Field("", description="how it begins")


class Exported(Filters):
    """An export."""

    format: str = Field("jsonl", max_length=40, description="jsonl, csv, parquet, coco, yolo or yolo-seg")
    limit: int | None = Field(None, ge=1, description="at most so many results, the newest; none: all")


class Pictured(BaseModel):
    """How a picture is shown."""

    model_config = ConfigDict(extra="forbid")

    overlay: bool = Field(default=False, description="draw what was found")
    width: int | None = Field(None, ge=16, le=4096, description="pixels; never enlarged")
    crop: int | None = Field(None, ge=0, description="only the detection of this index, from 0, with some room around")


def routes(state: State) -> APIRouter:
    """The routes of results. The export stands before `{id}`, which would swallow it."""
    router = APIRouter(tags=["results"])
    exporter = Exporter(state.results)

    @router.get("/v1/results", summary="Results, newest first or oldest")
    async def listed(who: Caller, wanted: Annotated[Listed, Query()]) -> Response:
        if wanted.cursor is not None:
            checked_id("result", wanted.cursor)
        query = replace(wanted.query(who, wanted.cursor, wanted.limit), oldest=wanted.order == "oldest")
        found, following = await state.results.find(query)
        return reply({"results": found, "next": following})

    @router.get("/v1/results/export", summary="All matching results as a file")
    async def exported(who: Caller, wanted: Annotated[Exported, Query()]) -> StreamingResponse:
        asked = Action(what="export", by=who.name, body={"sites": who.sites, **wanted.model_dump(exclude_none=True)})
        return await exporter.export(wanted.query(who, None, 500), wanted.format, wanted.limit, asked)

    @router.get("/v1/results/summary", summary="How many results a search finds, and when they were captured")
    async def summary(who: Caller, wanted: Annotated[Searched, Query()]) -> Response:
        now = utcnow()
        search = parse(wanted.q, now)
        matches = await state.results.matches(replace(search.query, sites=who.sites))
        without = [] if matches.count else await _without(state, search, who, now)
        return reply({"q": str(search), "without": without, **asdict(matches)})

    @router.get("/v1/results/words", summary="What could stand behind a token of a search")
    async def words(who: Caller, wanted: Annotated[Offered, Query()]) -> Response:
        return reply({"token": wanted.token, "words": await _words(state, wanted.token, wanted.text, who)})

    @router.get("/v1/results/{id}", summary="One result")
    async def one(id: str, who: Caller) -> Response:  # noqa: A002
        return reply(await visible(state, id, who))

    @router.get("/v1/results/{id}/evidence", summary="Its evidence pack: picture, record, verdicts, proof (ZIP)")
    async def evidence(id: str, who: Caller) -> Response:  # noqa: A002
        return await packed(state, [await visible(state, id, who)], who)

    @router.get("/v1/results/{id}/image", summary="Its picture, re-encoded without metadata")
    async def image(id: str, who: Caller, wanted: Annotated[Pictured, Query()]) -> Response:  # noqa: A002
        result = await visible(state, id, who)
        return await picture(state, result, View(width=wanted.width, overlay=wanted.overlay, crop=wanted.crop))

    return router


async def _without(state: State, search: Search, who: Principal, now: datetime) -> list[dict[str, Any]]:
    """Which token excluded everything: what each one's absence would find, the most first."""
    counted = []
    for token in search.tokens:
        matches = await state.results.matches(replace(search.without(token.name, now).query, sites=who.sites))
        counted.append({"token": str(token), "count": matches.count, "more": matches.more})
    return sorted((each for each in counted if each["count"]), key=lambda each: -int(each["count"]))


async def _words(state: State, token: str, beginning: str, who: Principal) -> list[str]:
    known = {
        "site": [name for name in state.known.sites if who.sees(name)],
        **(
            {}
            if who.sites is None
            else {"camera": [one.name for one in state.known.cameras.values() if who.sees(one.site)]}
        ),
        "pipeline": list(state.known.pipelines),
        "status": list(get_args(Ended)),
        "verdict": [*VERDICTS, "none"],
    }
    if token in known:
        return sorted(word for word in known[token] if word.startswith(beginning))[:OFFERED]
    for word in get_args(Word):
        if word == token:
            return await state.results.words(word, beginning, OFFERED, who.sites)
    raise InputError(
        f"nothing is offered for {printable(token, 20)!r}; there are {', '.join([*known, *get_args(Word)])}"
    )


async def packed(state: State, chosen: Sequence[Result], who: Principal) -> Response:
    """The results as a ZIP that is made while it is sent. Raises NotFound where there is nothing to pack."""
    if state.evidence is None or not chosen:
        raise NotFound("there is no picture to pack, or this gateway makes no evidence packs")
    stream = state.evidence(state.results, state.blobs, chosen, who.name)
    first = await anext(stream)  # what goes wrong at once is an answer of its own

    async def parts() -> AsyncIterator[bytes]:
        yield first
        async for part in stream:
            yield part

    headers = {
        "Content-Disposition": f'attachment; filename="evidence-{chosen[0].id}.zip"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return StreamingResponse(parts(), media_type="application/zip", headers=headers)


async def visible(state: State, id: str, who: Principal) -> Result:  # noqa: A002
    """The result, if the caller may see it. Raises NotFound."""
    result = await state.results.get(checked_id("result", id))
    if result is None or not who.sees(result.site):
        raise unknown_id("result", id)
    return result


def moment(name: str, text: str | None) -> Any:
    """The time that a parameter names, or None. Raises InputError."""
    if text is None:
        return None
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name}={text!r} is no time such as 2026-01-31T12:00:00Z ('+' is written %2B)") from error
