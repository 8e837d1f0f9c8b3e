"""Signing in: a plain form that works without scripts. The gateway takes it, and leads back to the page that was wanted."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.pages import Page
from eyeline.dashboard.shell import Room, Shell

ERRORS = {"wrong", "slow"}


def _pages(shell: Shell) -> Sequence[Page]:
    return (shell.page("/login", LoginPage(shell).show, room="login", right=None),)


ROOM = Room(name="login", pages=_pages)


class LoginPage:
    """GET /login."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def show(self, request: Request) -> Response:
        """The form, with what went wrong before and where it leads."""
        error = request.query_params.get("error")
        return await self._shell.render(
            request,
            "login.html",
            room="login",
            title=self._shell.words.say("login.title"),
            script="js/pages/login.js",
            live=False,
            error=error if error in ERRORS else None,
            following=inside(request.query_params.get("next", "/")),
        )


def inside(path: str) -> str:
    """A path of this site, or the first page."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isascii() and path.isprintable()
    return path if plain and "\\" not in path and not path.startswith("/login") else "/"
