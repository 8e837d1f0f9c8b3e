"""A page as the dashboard offers it and the gateway serves it: neighbours that know no more of each other than this."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal, Right

#: Where the gateway leaves who asks, for the page to find.
PRINCIPAL = "eyeline.principal"
#: Where it leaves who is signed in by a cookie (None: nobody), whether or not that is who asks.
SESSION = "eyeline.session"


@dataclass(frozen=True, kw_only=True)
class Page:
    """One route. The gateway has checked who asks before `endpoint` runs; `right` None: everyone may, also without a key."""

    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    methods: tuple[str, ...] = ("GET",)
    right: Right | None = "read"


def principal_of(request: Request) -> Principal:
    """Who asks for this page; only for pages that have a right."""
    who: Principal = request.scope[PRINCIPAL]
    return who
