"""The shift report: what happened, and what is handed over to the next shift. Made to be printed."""

from collections.abc import Sequence
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.clock import utcnow
from eyeline.core.pages import Page, principal_of
from eyeline.dashboard.shell import Room, Shell
from eyeline.reports.page import footer, sections
from eyeline.reports.shift import chosen, headline, period, shift_report


def _pages(shell: Shell) -> Sequence[Page]:
    return (shell.page("/report", ReportPage(shell).show, room="alerts"),)


ROOM = Room(name="report", pages=_pages)


class ReportPage:
    """GET /report: of the shift that runs now, unless a site and a time are named."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def show(self, request: Request) -> Response:
        """The report as the address asks for it."""
        who, asked = principal_of(request), request.query_params
        seen = [site for site in self._shell.sources.settings.sites if who.sees(site.name)]
        site = chosen(seen, asked.get("site") or None)
        now = utcnow()
        since, until = period(site, asked.get("from") or None, asked.get("until") or None, now)
        report = await shift_report(self._shell.sources.results, site, since, until, now, sites=who.sites)
        _, _, summary = headline(report).partition("\n")
        exact = {"site": site.name, "from": report["from"], "until": report["until"]}
        return await self._shell.render(
            request,
            "report.html",
            room="alerts",
            title=self._shell.words.say("report.title"),
            live=False,
            site=site,
            sites=[each.name for each in seen],
            since=since,
            until=until,
            summary=summary,
            sections=sections(report),
            footer=footer(report),
            before="/report?" + urlencode({"site": site.name, "until": report["from"]}),
            table="/v1/reports/shift?" + urlencode(exact | {"format": "csv"}),
        )
