"""Audit search: every result by the words of a search, as a table or as pictures."""

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import InputError
from eyeline.core.ids import is_uuid
from eyeline.core.pages import Page, principal_of
from eyeline.core.types import VERDICTS, Result
from eyeline.dashboard.format import number
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.shell import Room, Shell
from eyeline.stores.results.base import Matches
from eyeline.stores.results.search import NAMES, Search, Token, from_fields, parse

COLUMNS = ("time", "camera", "site", "ref", "found", "score", "status", "verdict", "by", "model", "id")
USUAL = ("time", "camera", "ref", "found", "score", "status", "verdict")
SIZES = (25, 100, 500, 1000)
#: What the page exports as: at once, or, where there are more results than are counted, in the background.
EXPORTS = ("csv", "jsonl", "parquet")
#: What is asked where nothing is: the last day.
START = "from:-24h"


def _pages(shell: Shell) -> tuple[Page, ...]:
    return (shell.page("/audit", AuditPage(shell).show, room="audit"),)


ROOM = Room(name="audit", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A result in a list."""

    result: Result
    found: str
    score: float | None
    picture: Picture | None
    zone: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of the histogram, in a picture of 600 x 60, and the address that narrows the search to its time."""

    x: float
    y: float
    width: float
    height: float
    count: int
    start: datetime
    href: str


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A token without which something would be found."""

    token: str
    count: int
    more: bool
    href: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """An export in the background: what was asked, and how far it is in words."""

    id: str
    asked: str
    at: datetime
    state: str
    words: str


class AuditPage:
    """GET /audit."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """The search as the address asks for it: `q`, or a field for each token."""
        now, params = utcnow(), request.query_params
        text = params.get("q", START if not any(name in params for name in NAMES) else None)
        try:
            fields = {name: params[name] for name in NAMES if name in params}
            search = parse(text, now) if text is not None else from_fields(fields, now)
        except InputError as error:
            return await self._refused(request, text or "", str(error))
        view = _view(params)
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        found = await self._found(search, principal_of(request), view, now, labels)
        return await self._render(request, str(search), search.fields, view, **found)

    def _written(self, job: Any) -> Written:
        """The script says the same of those that are being written."""
        about = {"n": number(job.results), "about": number(job.about), "error": job.error}
        name = "begun" if job.state == "running" and job.about is None else job.state
        asked = " ".join(
            f"{key}:{value}" if key != "q" else str(value) for key, value in job.asked.items() if key != "sites"
        )
        words = self._shell.words.say(f"audit.export_{name}", **about)
        return Written(id=job.id, asked=asked, at=job.created_at, state=job.state, words=words)

    async def _found(
        self, search: Search, who: Principal, view: Mapping[str, Any], now: datetime, labels: Sequence[str]
    ) -> dict[str, Any]:
        results = self._sources.results
        query = replace(
            search.query, sites=who.sites, cursor=view["cursor"], oldest=view["oldest"], limit=view["limit"]
        )
        page, following = await results.find(query)
        matches = await results.matches(replace(query, cursor=None))
        zones = {site.name: site.timezone for site in self._sources.settings.sites}
        return {
            "rows": [_row(result, labels, zones) for result in page],
            "following": _address(search, view, cursor=following) if following else None,
            "matches": matches,
            "bars": _bars(search, matches, view),
            "narrow": {"href": _link("", view, cursor=None), "q": _timeless(search)} if matches.histogram else None,
            "missed": [] if matches.count else await self._missed(search, who, now, view),
        }

    async def _missed(self, search: Search, who: Principal, now: datetime, view: Mapping[str, Any]) -> list[Missed]:
        found = []
        for token in search.tokens:
            without = search.without(token.name, now)
            matches = await self._sources.results.matches(replace(without.query, sites=who.sites))
            if matches.count:
                address = _address(without, view)
                found.append(Missed(token=str(token), count=matches.count, more=matches.more, href=address))
        return sorted(found, key=lambda missed: -missed.count)

    async def _refused(self, request: Request, text: str, why: str) -> Response:
        nothing = Matches(count=0, more=False, width=60, histogram=[])
        empty: dict[str, Any] = {"rows": [], "following": None, "matches": nothing, "bars": [], "missed": []}
        view = _view(request.query_params)
        return await self._render(request, text, {}, view, status=400, why=why, **empty)

    async def _render(
        self, request: Request, text: str, fields: Mapping[str, str], view: Mapping[str, Any], **given: Any
    ) -> Response:
        who = principal_of(request)
        return await self._shell.render(
            request,
            "audit.html",
            room="audit",
            title=self._shell.words.say("audit.title"),
            script="js/pages/audit.js",
            data={"names": list(NAMES), "narrow": given.pop("narrow", None), "bars": _plain(given["matches"])},
            q=text,
            fields=fields,
            view=view,
            names=list(NAMES),
            columns=COLUMNS,
            sizes=SIZES,
            verdicts=[*VERDICTS, "none"],
            written=[self._written(job) for job in await self._sources.exports(who)],
            exports=[name for name in EXPORTS if name != "parquet" or parquet_here()],
            may_rule=who.may("operate") and who.sites is None and self._shell.served("/rules/edit"),
            link=lambda **changes: _link(text, view, **changes),
            **({"why": None} | given),
        )


def _view(params: Mapping[str, str]) -> dict[str, Any]:
    """How it is shown; what is not known is left out."""
    columns = tuple(name for name in params.get("cols", "").split(",") if name in COLUMNS)
    cursor = params.get("cursor")
    limit = int(params["limit"]) if params.get("limit", "").isdecimal() else SIZES[1]
    return {
        "gallery": params.get("view") == "gallery",
        "oldest": params.get("order") == "oldest",
        "columns": columns or USUAL,
        "limit": limit if limit in SIZES else SIZES[1],
        "cursor": cursor if cursor is not None and is_uuid(cursor) else None,
    }


def _link(text: str, view: Mapping[str, Any], **changes: Any) -> str:
    wanted = {**view, **changes}
    named = {
        "q": text,
        "view": "gallery" if wanted["gallery"] else "",
        "order": "oldest" if wanted["oldest"] else "",
        "cols": "" if wanted["columns"] == USUAL else ",".join(wanted["columns"]),
        "limit": "" if wanted["limit"] == SIZES[1] else wanted["limit"],
        "cursor": wanted["cursor"] or "",
    }
    return "/audit?" + urlencode({name: value for name, value in named.items() if value or name == "q"})


def _address(search: Search, view: Mapping[str, Any], cursor: str | None = None) -> str:
    return _link(str(search), view, cursor=cursor)


def _row(result: Result, labels: Sequence[str], zones: Mapping[str, str]) -> Row:
    picture = picture_of(result, labels)
    said: dict[str, int] = {}
    for label in [
        *(box.label for box in (picture.boxes if picture else ())),
        *(one.label for one in result.classifications),
    ]:
        said[label] = said.get(label, 0) + 1
    scores = [found.score for found in result.detections] + [found.score for found in result.classifications]
    return Row(
        result=result,
        found=", ".join(f"{count} {label}" if count > 1 else label for label, count in said.items()),
        score=max(scores, default=None),
        picture=picture_of(result, labels),
        zone=zones.get(result.site, "UTC"),
    )


def parquet_here() -> bool:
    """Whether this gateway can write Parquet."""
    return importlib.util.find_spec("pyarrow") is not None


def _timeless(search: Search) -> str:
    """The search without its times."""
    return " ".join(str(token) for token in search.tokens if token.name not in {"from", "until"})


def _plain(matches: Matches) -> dict[str, Any]:
    """The histogram as the brush reads it: places of `width` seconds from `first` on, and how many are in each."""
    if not matches.histogram:
        return {}
    first, width = matches.histogram[0].start.timestamp(), matches.width
    counts = {int((bar.start.timestamp() - first) // width): bar.count for bar in matches.histogram}
    return {"first": first, "width": width, "places": max(counts) + 1, "counts": counts}


def _bars(search: Search, matches: Matches, view: Mapping[str, Any]) -> list[Bar]:
    if not matches.histogram:
        return []
    width, first = timedelta(seconds=matches.width), matches.histogram[0].start
    places = (matches.histogram[-1].start - first) // width + 1
    most = max(bar.count for bar in matches.histogram)
    bars = []
    for bar in matches.histogram:
        height = max(2.0, 56.0 * bar.count / most)
        times = [Token("from", isoformat(bar.start)), Token("until", isoformat(bar.start + width))]
        text = " ".join(filter(None, [_timeless(search), *map(str, times)]))
        bars.append(
            Bar(
                x=round(600.0 * ((bar.start - first) // width) / places, 2),
                y=round(58 - height, 1),
                width=round(max(1.0, 600.0 / places - 1), 2),
                height=round(height, 1),
                count=bar.count,
                start=bar.start,
                href=_link(text, view, cursor=None),
            )
        )
    return bars
