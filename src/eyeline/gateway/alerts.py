"""GET /v1/alerts: what was raised, what people did about it, and who was told."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.cases import Disposition
from eyeline.core.cases import State as CaseState
from eyeline.core.clock import parse_time
from eyeline.core.errors import InputError
from eyeline.core.telemetry import printable
from eyeline.gateway.replies import reply
from eyeline.gateway.results import Text, moment
from eyeline.gateway.state import State, allowed, unknown_id
from eyeline.stores.results.base import ENGINE_CHECKED, AlertQuery, AlertRow, DeliveryRow, HistoryRow

Caller = Annotated[Principal, Depends(allowed("read"))]


class Listed(BaseModel):
    """A page of alerts. `since` and `until` are about `opened_at`."""

    model_config = ConfigDict(extra="forbid")

    state: Text = Field(None, description="some of open,acknowledged,resolved")
    severity: Literal["info", "warning", "critical"] | None = None
    site: Text = None
    camera: Text = None
    rule: Text = None
    assignee: Text = None
    disposition: Disposition | None = None
    snoozed: bool | None = Field(None, description="only those that are silent now, or only the others")
    since: Text = Field(None, description="RFC 3339, inclusive")
    until: Text = Field(None, description="RFC 3339, exclusive")
    cursor: Annotated[str | None, Field(max_length=80, description="`next` of the page before")] = None
    limit: int = Field(100, ge=1, le=500)

    def query(self, who: Principal) -> AlertQuery:
        """The query, narrowed to what the caller may see."""
        values = self.model_dump(exclude={"state", "since", "until"})
        since, until = moment("since", self.since), moment("until", self.until)
        return AlertQuery(sites=who.sites, states=_states(self.state), since=since, until=until, **values)


def _states(text: str | None) -> Sequence[CaseState] | None:
    if text is None:
        return None
    chosen = [state for state in get_args(CaseState) if state in text.split(",")]
    if len(chosen) != len(set(text.split(","))):
        raise InputError(
            f"state={printable(text, 60)!r}: choose from {', '.join(get_args(CaseState))}, with commas between"
        )
    return chosen


def routes(state: State) -> APIRouter:
    """The routes of alerts."""
    router = APIRouter(tags=["alerts"])

    @router.get("/v1/alerts", summary="Alerts, newest first")
    async def listed(who: Caller, wanted: Annotated[Listed, Query()]) -> Response:
        found, following = await state.results.find_alerts(wanted.query(who))
        checked = await state.results.load_state(ENGINE_CHECKED)
        told_at = checked.decode() if checked else None
        return reply({"alerts": [told(alert) for alert in found], "next": following, "checked_at": told_at})

    @router.get("/v1/alerts/{id}", summary="One alert: what was done with it, who was told")
    async def one(id: str, who: Caller) -> Response:  # noqa: A002
        alert = await visible(state, id, who)
        history = await state.results.history(id)
        deliveries = await state.results.list_deliveries(id)
        log = {
            "history": [_entry(entry) for entry in history],
            "deliveries": [delivery_told(row) for row in deliveries],
            "timeline": timeline(alert, history, deliveries),
        }
        return reply(told(alert) | log)

    @router.get("/v1/alerts/{id}/deliveries", summary="Who was told of an alert, and when")
    async def deliveries(id: str, who: Caller) -> Response:  # noqa: A002
        await visible(state, id, who)
        return reply({"deliveries": [delivery_told(row) for row in await state.results.list_deliveries(id)]})

    return router


async def visible(state: State, id: str, who: Principal) -> AlertRow:  # noqa: A002
    """The alert. Raises NotFound for one that does not exist or is of a site out of reach."""
    alert = await state.results.get_alert(id)
    if alert is None or not who.sees(alert.site):
        raise unknown_id("alert", id)
    return alert


def told(alert: AlertRow) -> dict[str, Any]:
    """The alert as the API tells it."""
    return {
        "id": alert.id,
        "rule": alert.rule,
        "cause": alert.body.get("group", {}),
        "site": alert.site,
        "camera": alert.body.get("camera"),
        "severity": alert.severity,
        "state": alert.state,
        "disposition": alert.disposition,
        "assignee": alert.assignee,
        "snoozed_until": alert.snoozed_until,
        "opened_at": alert.opened_at,
        "last_at": alert.last_at,
        "count": alert.count,
        "result_id": alert.result_id,
        "version": alert.version,
        "changed_at": alert.changed_at,
        "changed_by": alert.changed_by,
        "tier": alert.tier,
        "body": dict(alert.body),
    }


def delivery_told(row: DeliveryRow) -> dict[str, Any]:
    """A delivery as the API tells it."""
    return {
        "id": row.id,
        "alert": row.alert_id or None,
        "kind": row.kind,
        "site": row.site,
        "channel": row.channel,
        "state": row.state,
        "attempts": row.attempts,
        "captured_at": row.captured_at,
        "delivered_at": row.delivered_at,
        "next_at": row.next_at if row.state in {"pending", "held"} else None,
        "last_error": row.last_error,
        "answer": row.answer,
    }


def _entry(entry: HistoryRow) -> dict[str, Any]:
    return {"id": entry.id, "at": entry.at, "by": entry.by, "what": entry.what, "version": entry.version, **entry.body}


def timeline(alert: AlertRow, history: Sequence[HistoryRow], deliveries: Sequence[DeliveryRow]) -> list[dict[str, Any]]:
    """Raised, told, done: everything about an alert in the order of time."""
    lines: list[dict[str, Any]] = [{"at": alert.opened_at, "what": "opened", "rule": alert.rule}]
    lines += [_entry(entry) for entry in history]
    for row in deliveries:
        if row.delivered_at is not None:
            lines.append({"at": row.delivered_at, "what": "told", "channel": row.channel, "kind": row.kind})
        elif row.state == "failed":
            lines.append({"at": row.next_at, "what": "not told", "channel": row.channel, "why": row.last_error})
    if alert.last_at > alert.opened_at:
        lines.append({"at": alert.last_at, "what": "seen last", "count": alert.count})
    if cleared_at := alert.body.get("cleared_at"):
        lines.append({"at": parse_time(cleared_at), "what": "cleared", "why": alert.body.get("cleared")})
    return sorted(lines, key=lambda line: line["at"])
