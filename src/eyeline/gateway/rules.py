"""Rules: those of the settings, those that people made, and trying one before it holds."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.errors import BadRule, NotFound, TooLarge
from eyeline.core.rulebook import Rulebook
from eyeline.gateway.replies import reply
from eyeline.gateway.results import moment
from eyeline.gateway.state import State, allowed

LONGEST_RULE = 16_384
TOML = {"application/toml", "text/toml"}

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Version = Annotated[
    int | None, Query(ge=0, description="the version that you looked at; 409 where there is a newer one")
]
Since = Annotated[str | None, Query(max_length=40, description="RFC 3339; none: a day ago")]


def routes(state: State) -> APIRouter:
    """The routes of rules. A rule's name may hold anything, slashes too."""
    router = APIRouter(tags=["rules"])

    @router.get("/v1/rules", summary="All rules, those of the settings first")
    async def listed(who: Reader) -> Response:
        book = _book(state)
        return reply({"rules": await book.listed(who), "channels": list(book.channels)})

    @router.post("/v1/rules/dry-run", summary="What a rule would have done")
    async def dry_run(request: Request, who: Operator, since: Since = None) -> Response:
        """One that is only tried needs no name."""
        book = _book(state)
        rule = book.read({"name": "this rule", **_parsed(book, await _read(request), request)})
        found = await book.try_out(rule, moment("since", since), who)
        return reply({"rule": rule.model_dump(mode="json"), "toml": book.toml(rule), **found})

    @router.get("/v1/rules/{name:path}", summary="One rule with all its versions")
    async def one(name: str, who: Reader) -> Response:
        return reply(await _book(state).one(name, who))

    @router.put("/v1/rules/{name:path}", summary="Make or change a rule; it holds within seconds")
    async def put(name: str, request: Request, who: Operator, version: Version = None) -> Response:
        book = _book(state)
        rule = book.read({**_parsed(book, await _read(request), request), "name": name})
        return reply(await book.save(rule, version, who))

    @router.delete("/v1/rules/{name:path}", summary="Remove a rule; its versions are kept", status_code=204)
    async def delete(name: str, who: Operator, version: Version = None) -> Response:
        await _book(state).remove(name, version, who)
        return Response(status_code=204)

    return router


def _book(state: State) -> Rulebook:
    if state.rules is None:
        raise NotFound("this gateway keeps no rules")
    return state.rules


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_RULE:
            raise TooLarge(f"a rule is over {LONGEST_RULE} bytes")
    return bytes(body)


def _parsed(book: Rulebook, body: bytes, request: Request) -> dict[str, Any]:
    """What the body says, as JSON or as TOML. Raises BadRule."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in TOML:
        return book.from_toml(body)
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRule(f"the rule cannot be read as JSON: {error}") from error
