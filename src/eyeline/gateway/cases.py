"""POST /v1/alerts/{id}/…: what people decide on alerts, one by one or many at once."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.cases import Decision, Decisive, Disposition
from eyeline.core.clock import utcnow
from eyeline.core.errors import Conflict, InputError
from eyeline.core.shifts import shift_end
from eyeline.gateway.alerts import told
from eyeline.gateway.replies import reply
from eyeline.gateway.results import moment
from eyeline.gateway.state import State, allowed, unknown_id
from eyeline.stores.results.base import Decided

Caller = Annotated[Principal, Depends(allowed("operate"))]
#: People write lines; what is kept has no other control characters.
Note = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Person = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]
#: Seconds for which an alert can be silent.
LONGEST_SNOOZE = 31 * 86_400
MOST = 500


class Said(BaseModel):
    """What goes with every action. `version`: the alert's that was looked at; a newer one answers 409."""

    model_config = ConfigDict(extra="forbid")

    note: Note = ""
    version: int | None = Field(None, ge=0, description="the alert's that was looked at; a newer state answers 409")


class Noted(Said):
    """A note."""

    note: Annotated[Note, Field(min_length=1)]


class Snoozed(Said):
    """Until when: one of the three."""

    seconds: float | None = Field(None, gt=0, le=LONGEST_SNOOZE, description="from now on")
    until: str | None = Field(None, max_length=40, description="RFC 3339")
    shift: bool = Field(default=False, description="until the next shift of its site begins")


class Assigned(Said):
    """To whom; null takes it from everybody."""

    to: Person | None


class Resolved(Said):
    """What it turned out to be."""

    disposition: Disposition


class Many(BaseModel):
    """The same for many alerts; the rest as with one."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Annotated[str, Field(max_length=80)]] = Field(min_length=1, max_length=MOST)
    action: Decisive
    note: Note = ""
    versions: dict[str, int] = Field({}, description="alert id → the version that was looked at")
    seconds: float | None = Field(None, gt=0, le=LONGEST_SNOOZE)
    until: str | None = Field(None, max_length=40)
    shift: bool = False
    to: Person | None = None
    disposition: Disposition | None = None


def routes(state: State) -> APIRouter:
    """The routes of decisions."""
    router = APIRouter(tags=["alerts"])

    def plain(what: Literal["acknowledge", "reopen", "undo"], summary: str) -> None:
        @router.post(f"/v1/alerts/{{id}}/{what}", summary=summary, name=what)
        async def act(id: str, who: Caller, said: Said | None = None) -> Response:  # noqa: A002
            return await _one(state, who, what, id, said or Said())

    plain("acknowledge", "Somebody looks after it")
    plain("reopen", "Open again")
    plain("undo", "Bring back what stood before the last change")

    @router.post("/v1/alerts/{id}/snooze", summary="Silent for a while; told again if it is not resolved by then")
    async def snooze(id: str, who: Caller, said: Snoozed) -> Response:  # noqa: A002
        until = await _until(state, said, id)
        return await _one(state, who, "snooze", id, said, until=until)

    @router.post("/v1/alerts/{id}/assign", summary="Somebody's, or nobody's")
    async def assign(id: str, who: Caller, said: Assigned) -> Response:  # noqa: A002
        return await _one(state, who, "assign", id, said, to=said.to)

    @router.post("/v1/alerts/{id}/note", summary="A note on it")
    async def note(id: str, who: Caller, said: Noted) -> Response:  # noqa: A002
        return await _one(state, who, "note", id, said)

    @router.post("/v1/alerts/{id}/resolve", summary="Over: real, false or test")
    async def resolve(id: str, who: Caller, said: Resolved) -> Response:  # noqa: A002
        return await _one(state, who, "resolve", id, said, disposition=said.disposition)

    @router.post("/v1/alerts/actions", summary="The same action on many alerts")
    async def many(who: Caller, said: Many) -> Response:
        _complete(said)
        done = await _many(state, who, said)
        return reply({"results": [_outcome(one) for one in done]})

    return router


async def _one(
    state: State,
    who: Principal,
    what: Decisive,
    id: str,  # noqa: A002
    said: Said,
    *,
    until: datetime | None = None,
    to: str | None = None,
    disposition: Disposition | None = None,
) -> Response:
    decision = Decision(
        what=what, by=who.name, at=utcnow(), note=said.note, until=until, to=to, disposition=disposition
    )
    [done] = await state.results.decide(decision, {id: said.version}, sites=who.sites)
    if done.alert is None:
        raise unknown_id("alert", id)
    if done.outcome == "conflict":
        raise Conflict(done.why, told={"alert": told(done.alert)})
    return reply({"alert": told(done.alert), "changed": done.outcome == "changed"})


async def _many(state: State, who: Principal, said: Many) -> list[Decided]:
    """In one transaction, but that a snooze for the shift goes by site."""
    decision = Decision(
        what=said.action, by=who.name, at=utcnow(), note=said.note, to=said.to, disposition=said.disposition
    )
    groups: dict[datetime | None, list[str]] = {}
    for ident in dict.fromkeys(said.ids):
        until = await _until(state, said, ident) if said.action == "snooze" else None
        groups.setdefault(until, []).append(ident)
    done: list[Decided] = []
    for until, ids in groups.items():
        timed = Decision(**{**vars(decision), "until": until})
        done += await state.results.decide(timed, {id: said.versions.get(id) for id in ids}, sites=who.sites)  # noqa: A001
    return done


def _complete(said: Many) -> None:
    """What one action needs and another has not. Raises InputError."""
    if said.action == "note" and not said.note:
        raise InputError("the action 'note' needs a `note`")
    if said.action == "resolve" and said.disposition is None:
        raise InputError("the action 'resolve' needs a `disposition`: real, false or test")


def _outcome(one: Decided) -> dict[str, Any]:
    status = {"changed": 200, "unchanged": 200, "conflict": 409, "unknown": 404}[one.outcome]
    answer: dict[str, Any] = {"id": one.id, "status": status, "changed": one.outcome == "changed"}
    if one.alert is not None:
        answer["alert"] = told(one.alert)
    return answer | ({"detail": one.why} if one.why else {})


async def _until(state: State, said: Snoozed | Many, id: str) -> datetime:  # noqa: A002
    """The end of a snooze. Raises InputError where it is not said, or over already."""
    if sum((said.seconds is not None, said.until is not None, said.shift)) != 1:
        raise InputError("say for how long: one of `seconds`, `until` and `shift`")
    now = utcnow()
    if said.seconds is not None:
        return now + timedelta(seconds=said.seconds)
    if said.until is not None:
        until: datetime = moment("until", said.until)
        if not now < until <= now + timedelta(seconds=LONGEST_SNOOZE):
            raise InputError(f"until={said.until!r}: a snooze ends after now and within 31 days")
        return until
    alert = await state.results.get_alert(id)
    return _next_shift(state, alert.site) if alert is not None else now


def _next_shift(state: State, site: str) -> datetime:
    sites: Mapping[str, Any] = {each.name: each for each in state.settings.sites}
    shifts, zone = (sites[site].shifts, sites[site].timezone) if site in sites else ([], "UTC")
    end = shift_end(shifts, ZoneInfo(zone), utcnow())
    if end is None:
        raise InputError(f"the site {site!r} has no shifts (`shifts` in its [[sites]]); say `seconds` or `until`")
    return end
