"""Pages from elsewhere behind the same door as the API: who asks is known before a page's own code runs."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from eyeline.core.errors import Unauthorised
from eyeline.core.pages import PRINCIPAL, Page
from eyeline.gateway.session import LOGIN
from eyeline.gateway.state import State, authenticated


def routes(state: State) -> list[Route]:
    """One route for each page that the gateway was given."""
    return [_route(page, state) for page in state.pages]


def _route(page: Page, state: State) -> Route:
    async def guarded(request: Request) -> Response:
        request.scope["route"] = route  # measured by its pattern
        if page.right is not None:
            try:
                who = authenticated(state, request.scope)
            except Unauthorised:
                if request.method != "GET" or not any(page.path == LOGIN for page in state.pages):
                    raise
                return _to_login(request)
            who.need(page.right)
            request.scope[PRINCIPAL] = who
        return await page.endpoint(request)

    route = Route(page.path, guarded, methods=list(page.methods))
    return route


def _to_login(request: Request) -> Response:
    """Sign in first; the login page leads back here."""
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = urlencode({"next": request.url.path + query})
    return Response(status_code=303, headers={"Location": f"{LOGIN}?{wanted}", "Cache-Control": "no-store"})
