"""/v1/holds: what is neither deleted, erased nor encoded anew until the hold is lifted."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError
from eyeline.core.ids import uuid7
from eyeline.core.telemetry import printable
from eyeline.gateway.cases import Note
from eyeline.gateway.replies import reply
from eyeline.gateway.results import Text, moment, visible
from eyeline.gateway.state import State, allowed, unknown_id
from eyeline.stores.results.base import ItemQuery
from eyeline.stores.results.retaining import Hold

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
#: What a hold kept may go from then on, for good: that is not for everyone who may place one.
Admin = Annotated[Principal, Depends(allowed("manage"))]
All = Annotated[bool, Query(alias="all", description="those that were lifted, too")]


class Placed(BaseModel):
    """What is held, and why: whatever fits all of it, also what has yet to come. `since` and `until` are about `captured_at`."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[Note, Field(min_length=1)]
    site: Text = None
    camera: Text = None
    ref: Text = None
    result: Text = Field(None, description="a result's id")
    item: Text = Field(None, description="an item's id")
    since: Text = Field(None, description="RFC 3339, inclusive")
    until: Text = Field(None, description="RFC 3339, exclusive")


class Lifted(BaseModel):
    """Why a hold ends."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[Note, Field(min_length=1)]


def routes(state: State) -> APIRouter:
    """The routes of legal holds. Who is limited to sites sees, and places, those that name one of them."""
    router = APIRouter(tags=["storage"])

    @router.get("/v1/holds", summary="Legal holds in force, in the order in which they were placed")
    async def listed(who: Reader, every: All = False) -> Response:
        found = await state.results.holds(lifted=every)
        return reply({"holds": [told(hold) for hold in found if _reaches(who, hold.site)]})

    @router.post("/v1/holds", summary="Keep whatever fits all of this until the hold is lifted", status_code=201)
    async def place(who: Operator, said: Placed) -> Response:
        hold = await _hold(state, who, said)
        await state.results.place_hold(hold)
        return reply(told(hold), 201)

    @router.post("/v1/holds/{id}/lift", summary="End a hold; retention then looks at everything anew")
    async def lift(id: str, who: Admin, said: Lifted) -> Response:  # noqa: A002
        if not await state.results.lift_hold(id, by=who.name, reason=said.reason):
            raise unknown_id("hold in force", id)
        return reply(next(told(hold) for hold in await state.results.holds(lifted=True) if hold.id == id))

    return router


def told(hold: Hold) -> dict[str, Any]:
    """The hold as the API tells it."""
    names = ("id", "reason", "by", "placed_at", "lifted_at")
    return {name: getattr(hold, name) for name in names} | hold.scope


async def _hold(state: State, who: Principal, said: Placed) -> Hold:
    """Raises InputError where it names nothing, reaches too far, or can fit nothing; NotFound for an id that there is not: a
    mistyped one would hold nothing, and nobody would know.
    """
    since, until = moment("since", said.since), moment("until", said.until)
    scope = said.model_dump(exclude={"reason"}) | {"since": since, "until": until}
    if all(value is None for value in scope.values()):
        raise InputError("hold what? Name a site, camera, ref, result, item, or a time with since and until")
    if since is not None and until is not None and until <= since:
        raise InputError(f"until={said.until!r} is not after since={said.since!r}: nothing fits")
    if said.site is not None and (said.site not in state.known.sites or not who.sees(said.site)):
        seen = sorted(name for name in state.known.sites if who.sees(name))
        raise InputError(
            f"no site is called {printable(said.site, 60)!r}; known: {', '.join(seen)}", code="unknown_site"
        )
    if not _reaches(who, said.site):
        raise InputError(f"{who.name!r} is limited to sites; name one of them: {', '.join(who.sites or ())}")
    if said.result is not None:
        await visible(state, said.result, who)
    if said.item is not None and not (await state.results.find_items(ItemQuery(id=said.item, sites=who.sites)))[0]:
        raise unknown_id("item", said.item)
    return Hold(id=uuid7(), placed_at=utcnow(), by=who.name, reason=said.reason, **scope)


def _reaches(who: Principal, site: str | None) -> bool:
    """Whether the caller may decide for that site; None: for all of them."""
    return who.sites is None or site in who.sites
