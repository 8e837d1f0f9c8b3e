"""Who is told: channels and outputs, the delivery record, silences."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError
from eyeline.core.ids import uuid7
from eyeline.core.settings import Weekly
from eyeline.core.telemetry import printable
from eyeline.gateway.alerts import delivery_told
from eyeline.gateway.cases import Note
from eyeline.gateway.outlets import Outlets
from eyeline.gateway.replies import reply
from eyeline.gateway.results import Text, moment
from eyeline.gateway.state import State, allowed, unknown_id
from eyeline.stores.results.base import Action, DeliveryQuery, SilenceRow

Reader = Annotated[Principal, Depends(allowed("read"))]
Operator = Annotated[Principal, Depends(allowed("operate"))]
Wait = Annotated[float, Query(ge=0, le=30, description="seconds to wait for what comes of it")]
#: Seconds for which people may silence something.
LONGEST = 90 * 86_400


class Listed(BaseModel):
    """A page of the delivery record."""

    model_config = ConfigDict(extra="forbid")

    channel: Text = Field(None, description="or an output")
    state: Literal["pending", "delivered", "failed", "held", "silenced", "summarised"] | None = None
    kind: Literal["alert", "escalation", "reminder", "summary", "report", "output", "test"] | None = None
    cursor: Annotated[str | None, Field(max_length=80, description="`next` of the page before")] = None
    limit: int = Field(100, ge=1, le=500)


class Silenced(BaseModel):
    """What is not sent, why, and until when: a rule that is muted on a camera, or a maintenance window."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[Note, Field(min_length=1, max_length=500)]
    site: Text = None
    camera: Text = None
    rule: Text = None
    since: Text = Field(None, description="RFC 3339; none: now")
    until: Text = Field(None, description="RFC 3339")
    seconds: float | None = Field(None, gt=0, le=LONGEST, description="instead of `until`: for so long")
    weekly: list[Weekly] = Field([], max_length=20, description="only in these times of the week: Sat 06:00-14:00")


def routes(state: State) -> APIRouter:
    """The routes of channels, deliveries and silences."""
    router = APIRouter(tags=["alerts"])
    outlets = Outlets(state.settings, state.results)

    @router.get("/v1/channels", summary="Channels, what they hold back, and how they do")
    async def channels(who: Reader) -> Response:
        return reply({"channels": await outlets.channels(who)})

    @router.post("/v1/channels/{name}/test", summary="Send a test to a channel, and say what came of it")
    async def test(name: str, who: Operator, wait: Wait = 15.0) -> Response:
        return reply(delivery_told(await outlets.test(who, name, wait)))

    @router.get("/v1/outputs", summary="Outputs, how far behind they are, and why")
    async def outputs(who: Reader) -> Response:
        return reply({"outputs": await outlets.outputs(who)})

    @router.get("/v1/deliveries", summary="The delivery record, newest first")
    async def deliveries(who: Reader, wanted: Annotated[Listed, Query()]) -> Response:
        found, following = await state.results.find_deliveries(DeliveryQuery(sites=who.sites, **wanted.model_dump()))
        return reply({"deliveries": [delivery_told(row) for row in found], "next": following})

    @router.post("/v1/deliveries/{id}/retry", summary="Send a failed one again, under its id")
    async def retry(id: str, who: Operator) -> Response:  # noqa: A002
        return reply(delivery_told(await outlets.again(who, id)))

    _silences(router, state)
    return router


def _silences(router: APIRouter, state: State) -> None:
    @router.get("/v1/silences", summary="What is recorded and not sent now or later")
    async def silences(who: Reader) -> Response:
        made = [_made(row) for row in await state.results.silences(utcnow())]
        every = [
            *made,
            *(each.model_dump() | {"id": None, "by": "eyeline.toml"} for each in state.settings.alerts.silences),
        ]
        return reply({"silences": [each for each in every if each["site"] is None or who.sees(each["site"])]})

    @router.post(
        "/v1/silences",
        summary="Record alerts and do not send them: a maintenance window, a muted rule",
        status_code=201,
    )
    async def silence(who: Operator, said: Silenced) -> Response:
        row = _silence(state, who, said)
        told = _made(row)
        await state.results.add_silence(row, Action(what="silence", by=who.name, body=_plain(told)))
        return reply(told, status=201)

    @router.delete("/v1/silences/{id}", summary="End a silence now", status_code=204)
    async def end(id: str, who: Operator) -> Response:  # noqa: A002
        now = utcnow()
        row = next((each for each in await state.results.silences(now) if each.id == id), None)
        if row is None or not _reaches(who, row.site):
            raise unknown_id("silence", id)
        action = Action(what="silence.end", by=who.name, body={"id": id, "reason": row.reason, "site": row.site})
        await state.results.end_silence(id, now, action)
        return Response(status_code=204)


def _silence(state: State, who: Principal, said: Silenced) -> SilenceRow:
    """Raises InputError where it would never end, or reach too far."""
    now = utcnow()
    since = moment("since", said.since) or now
    until: datetime | None = moment("until", said.until)
    if said.seconds is not None:
        if until is not None:
            raise InputError("say `until` or `seconds`, not both")
        until = since + timedelta(seconds=said.seconds)
    if until is None and not said.weekly:
        raise InputError(
            "a silence has an end: say `seconds` or `until`, or the `weekly` times of a maintenance window"
        )
    if until is not None and not max(now, since) < until <= since + timedelta(seconds=LONGEST):
        raise InputError(f"until={said.until!r}: a silence ends after it began, after now, and within 90 days")
    if said.site is not None and (said.site not in state.known.sites or not who.sees(said.site)):
        seen = sorted(name for name in state.known.sites if who.sees(name))
        raise InputError(
            f"no site is called {printable(said.site, 60)!r}; known: {', '.join(seen)}", code="unknown_site"
        )
    if not _reaches(who, said.site):
        raise InputError(f"the key {who.name!r} is limited to sites; name one of them: {', '.join(who.sites or ())}")
    return SilenceRow(
        id=uuid7(),
        reason=said.reason,
        by=who.name,
        since=since,
        site=said.site,
        camera=said.camera,
        rule=said.rule,
        until=until,
        weekly=tuple(said.weekly),
    )


def _reaches(who: Principal, site: str | None) -> bool:
    """Whether the caller may decide for that site; None: for all of them."""
    return who.sites is None or site in who.sites


def _made(row: SilenceRow) -> dict[str, Any]:
    return {
        name: getattr(row, name)
        for name in ("id", "reason", "by", "site", "camera", "rule", "since", "until", "weekly")
    }


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(told)
    return plain
