"""GET /v1/reports/shift: what happened in a shift, as data, as a page to print, or as a table."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as Asked
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.gateway.replies import reply
from eyeline.gateway.results import Text
from eyeline.gateway.state import State, allowed
from eyeline.reports.page import csv_page, html_page
from eyeline.reports.shift import chosen, period, shift_report

Caller = Annotated[Principal, Depends(allowed("read"))]
_PAGE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class Wanted(BaseModel):
    """Of which site and time."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    site: Text = Field(None, description="none: the first one that the key may see")
    since: Text = Field(None, alias="from", description="RFC 3339; none: the beginning of the shift")
    until: Text = Field(None, description="RFC 3339; none: now")
    format: Literal["json", "html", "csv"] = "json"


def routes(state: State) -> APIRouter:
    """The route of the shift report."""
    router = APIRouter(tags=["reports"])

    @router.get("/v1/reports/shift", summary="What happened in a shift, and what is handed over")
    async def shift(who: Caller, wanted: Annotated[Wanted, Asked()]) -> Response:
        site = chosen([site for site in state.settings.sites if who.sees(site.name)], wanted.site)
        now = utcnow()
        since, until = period(site, wanted.since, wanted.until, now)
        report = await shift_report(state.results, site, since, until, now, sites=who.sites)
        if wanted.format == "json":
            return reply(report)
        if wanted.format == "html":
            return Response(html_page(report), headers=_PAGE, media_type="text/html; charset=utf-8")
        headers = {"Content-Disposition": 'attachment; filename="shift.csv"', "X-Content-Type-Options": "nosniff"}
        return Response(csv_page(report), headers=headers, media_type="text/csv; charset=utf-8")

    return router
