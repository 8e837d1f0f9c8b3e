"""What every page shares: navigation, headers, templates, and the way from a handler to an answer."""

import asyncio
import gzip
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from eyeline import __version__
from eyeline.core.access import Principal, Right
from eyeline.core.errors import BackendError, EyelineError, InputError, NotFound, Overloaded, TooLarge
from eyeline.core.pages import PRINCIPAL, SESSION, Page
from eyeline.core.telemetry import logger
from eyeline.dashboard.assets import Assets
from eyeline.dashboard.cases import open_alerts
from eyeline.dashboard.format import FILTERS, glyph
from eyeline.dashboard.sources import Sources
from eyeline.dashboard.words import words

log = logger("dashboard")

#: The rooms of the navigation in their order, with the letter after `g`; a room without pages is not shown.
NAV = (
    ("live", "/", "l"),
    ("alerts", "/alerts", "a"),
    ("review", "/review", "r"),
    ("audit", "/audit", "u"),
    ("operations", "/operations", "o"),
    ("models", "/models", "m"),
    ("rules", "/rules", "e"),
    ("system", "/system", "s"),
)
#: Every page loads these; naming them early saves the browser the walk from import to import.
SHARED = tuple(
    f"js/{name}.js" for name in ("boot", "bus", "stream", "hub", "keys", "time", "fmt", "toast", "page", "unsaved")
)
#: The newest event when the page's own lists were not read yet: the live stream goes on from there.
CURSOR = "eyeline.cursor"
LONGEST_FORM = 64_000

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Room:
    """A part of the dashboard: its name in the navigation, its pages, and the number beside its name."""

    name: str
    pages: "Callable[[Shell], Sequence[Page]]"
    count: Callable[[Sources, Principal], Awaitable[int]] | None = None


@dataclass(frozen=True)
class Entry:
    """A room as the navigation shows it."""

    name: str
    path: str
    letter: str
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class ShellView:
    """What the frame around every page shows."""

    room: str
    nonce: str
    user: str
    #: Whether somebody is signed in, and so can sign out.
    session: bool
    live: bool
    script: str | None
    nav: Sequence[Entry]
    modules: Sequence[str]
    data: Mapping[str, Any] = field(default_factory=dict)


class Shell:
    """Renders pages. One for the whole dashboard."""

    def __init__(self, sources: Sources, rooms: Sequence[Room]) -> None:
        self.sources = sources
        self.assets = Assets()
        self.words = words()
        self._rooms = {room.name: room for room in rooms}
        self._paths: set[str] = set()
        self._templates = _environment(self)

    def pages(self) -> tuple[Page, ...]:
        """All routes of the dashboard."""
        files = Page(path="/assets/{digest}/{name:path}", endpoint=self.assets.serve, right=None)
        found = [page for room in self._rooms.values() for page in room.pages(self)]
        self._paths = {page.path for page in found}
        return (files, *found)

    def page(
        self,
        path: str,
        handler: Handler,
        *,
        room: str,
        methods: tuple[str, ...] = ("GET",),
        right: Right | None = "read",
    ) -> Page:
        """A route whose errors are told as a page."""

        async def endpoint(request: Request) -> Response:
            if "GET" in methods and right is not None:
                request.scope[CURSOR] = await self._cursor()
            try:
                return await handler(request)
            except EyelineError as error:
                return await self.failed(request, error, room)

        return Page(path=path, endpoint=endpoint, methods=methods, right=right)

    async def render(
        self,
        request: Request,
        template: str,
        *,
        room: str,
        title: str,
        script: str | None = None,
        live: bool = True,
        status: int = 200,
        data: Any = None,
        **view: Any,
    ) -> Response:
        """The page as an answer. `data` is what its script starts with, as JSON; `view` is for the template alone.

        Rendering and compressing are computing: they go to a thread.
        """
        shell = await self._view(request, room, script, live=live)
        given = view | {"shell": shell, "title": title} | ({} if data is None else {"data": data})
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        body = await asyncio.to_thread(self._body, template, given, zipped=zipped)
        headers = _headers(shell.nonce) | ({"Content-Encoding": "gzip"} if zipped else {})
        return Response(body, status, headers, media_type="text/html; charset=utf-8")

    def see(self, path: str) -> Response:
        """After a form was taken: look there (303), so that a reload sends nothing twice. `path` is one of our own."""
        if not path.startswith("/") or path.startswith(("//", "/\\")):
            path = "/"
        return RedirectResponse(path, 303)

    def record(self, id: str) -> str:  # noqa: A002
        """Where a result is shown whole."""
        return f"/audit/{id}" if self.served("/audit/{id}") else f"/v1/results/{id}/image?overlay=1"

    def served(self, path: str) -> bool:
        """Whether there is such a page."""
        return path in self._paths

    async def failed(self, request: Request, error: EyelineError, room: str) -> Response:
        """The page for an error: what happened, and what to do."""
        status, sentence = _said(error)
        title = self.words.say(f"error.{status}") if f"error.{status}" in self.words else self.words.say("error.other")
        return await self.render(
            request, "error.html", room=room, title=title, status=status, live=False, sentence=sentence
        )

    def _body(self, template: str, given: Mapping[str, Any], *, zipped: bool) -> bytes:
        text = self._templates.get_template(template).render(given).encode()
        return gzip.compress(text, 5, mtime=0) if zipped else text

    async def _view(self, request: Request, room: str, script: str | None, *, live: bool) -> ShellView:
        who: Principal | None = request.scope.get(PRINCIPAL)
        opened = await self._open(who) if who is not None else []
        nav = await self._nav(who, len(opened)) if who is not None else []
        now = self.sources.settings
        return ShellView(
            room=room,
            nonce=secrets.token_urlsafe(16),
            user=(who.name or self.words.say("shell.nobody")) if who is not None else "",
            session=request.scope.get(SESSION) is not None,
            live=live and who is not None,
            script=script,
            nav=nav,
            modules=SHARED if script is None else (*SHARED, script),
            data={
                "version": __version__,
                "live": live and who is not None,
                "cursor": request.scope.get(CURSOR, 0),
                "user": who.name if who is not None else "",
                "zones": {site.name: site.timezone for site in now.sites},
                "nav": [asdict(entry) for entry in nav],
                "open": opened,
                "words": self.words.part("shell.", "fresh.", "status.", "keys.", "toast.", "age.", f"{room}."),
            },
        )

    async def _open(self, who: Principal) -> list[str]:
        """The open alerts: every page counts them in its title."""
        try:
            return [alert.id for alert in await open_alerts(self.sources, who)]
        except BackendError:
            return []

    async def _nav(self, who: Principal, opened: int) -> list[Entry]:
        return [
            Entry(name, path, letter, opened if name == "alerts" else await self._count(name, who))
            for name, path, letter in NAV
            if path in self._paths
        ]

    async def _count(self, name: str, who: Principal) -> int:
        counted = self._rooms[name].count if name in self._rooms else None
        try:
            return await counted(self.sources, who) if counted is not None else 0
        except BackendError:
            return 0  # the page itself says what is away

    async def _cursor(self) -> int:
        """The event up to which the page's lists, read after it, are complete; what they hold beyond comes once more."""
        try:
            return await self.sources.results.last_seq()
        except BackendError:
            return 0


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a plain form. Raises TooLarge, InputError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise TooLarge(f"the form has over {LONGEST_FORM} bytes")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200))
    except ValueError as error:
        raise InputError(f"the form cannot be read: {error}") from error


def _environment(shell: Shell) -> Environment:
    environment = Environment(
        loader=PackageLoader("eyeline.dashboard"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {
        "t": shell.words.say,
        "asset": shell.assets.url,
        "glyph": glyph,
        "record": shell.record,
        "served": shell.served,
    }
    environment.filters |= FILTERS
    return environment


def _headers(nonce: str) -> dict[str, str]:
    """What keeps a page from running, loading or sending anything but ours."""
    policy = (
        "default-src 'self'",
        f"script-src 'self' 'nonce-{nonce}'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types eyeline",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
        "Vary": "Accept-Encoding",
    }


def _said(error: EyelineError) -> tuple[int, str]:
    """The status and the sentence; what broke on our side is logged and told without its inside."""
    if isinstance(error, InputError):
        return error.status, str(error)
    if isinstance(error, Overloaded):
        return 429, str(error)
    log.warning("a page failed", error=str(error), kind=type(error).__name__)
    away = isinstance(error, BackendError) and error.transient
    kind = type(error).__name__
    if away:
        return 503, f"a part of the service is not reachable ({kind}); nothing on this page is known now, try again"
    return 500, f"something broke here ({kind}); the log says more"


def unknown(kind: str, id: str) -> NotFound:  # noqa: A002
    """The one answer for what does not exist and for what may not be seen."""
    return NotFound(f"no {kind} has the id {id[:60]!r}, or it is not visible to you")
