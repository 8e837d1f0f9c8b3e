"""/v1/session: signing in and out, and who I am. By JSON, or by the login page's plain form, which is answered by a redirect."""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from eyeline.core.access import RIGHTS, Principal
from eyeline.core.errors import Forbidden, InputError, Overloaded, Unauthorised
from eyeline.core.pages import SESSION
from eyeline.gateway.body import Headers
from eyeline.gateway.content import fields, is_form, parsed
from eyeline.gateway.passwords import acceptable
from eyeline.gateway.people import change_user
from eyeline.gateway.replies import reply
from eyeline.gateway.sessions import SignedIn, cookies, principal_of, reached_by_https, token_of
from eyeline.gateway.state import State, allowed

LOGIN = "/login"
#: Where the form for one's own password stands, and says what came of it.
ACCOUNT = "/system?password={}#you"

Caller = Annotated[Principal, Depends(allowed(None))]


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """What signing in takes. `next`: where the form's redirect leads."""

    name: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=1024)]
    next: Annotated[str, msgspec.Meta(max_length=2048)] = "/"


class NewPassword(msgspec.Struct, forbid_unknown_fields=True):
    """What changing one's own password takes."""

    present: Annotated[str, msgspec.Meta(max_length=1024)]
    new: Annotated[str, msgspec.Meta(max_length=1024)]


def routes(state: State) -> APIRouter:
    """The routes of one's own session."""
    router = APIRouter(tags=["people"])

    @router.post("/v1/session", summary="Sign in")
    async def sign_in(request: Request) -> Response:
        if is_form(request):
            return await _by_form(state, request)
        signed = await _sign_in(state, request, await parsed(request, Credentials))
        who = principal_of(signed.user, signed.session)
        return _with_cookie(reply(told(who, "session")), request, signed)

    @router.get("/v1/session", summary="Who I am, and what I may do")
    async def whoami(request: Request, who: Caller) -> Response:
        return reply(told(who, _kind(request, who)), headers={"Cache-Control": "no-store"})

    @router.delete("/v1/session", summary="Sign out", status_code=204)
    async def sign_out(request: Request) -> Response:
        await state.sessions.sign_out(_headers(request))
        return _without_cookie(Response(status_code=204))

    @router.post("/v1/session/end", summary="Sign out, by a form", status_code=303)
    async def leave(request: Request) -> Response:
        await state.sessions.sign_out(_headers(request))
        return _without_cookie(_redirect(LOGIN))

    @router.put("/v1/session/password", summary="Change one's own password")
    async def change(request: Request, who: Caller) -> Response:
        if request.scope.get(SESSION) is None:
            raise Forbidden("only who is signed in has a password to change")
        signed = await _changed(state, request, who, await parsed(request, NewPassword))
        return _with_cookie(reply(told(who, "session")), request, signed)

    @router.post("/v1/session/password", summary="Change one's own password, by a form", status_code=303)
    async def change_by_form(request: Request, who: Caller) -> Response:
        if request.scope.get(SESSION) is None:
            raise Forbidden("only who is signed in has a password to change")
        sent = await fields(request)
        given = {name: sent.get(name, "") for name in NewPassword.__struct_fields__}
        try:
            signed = await _changed(state, request, who, msgspec.convert(given, NewPassword))
        except Unauthorised:
            return _redirect(ACCOUNT.format("wrong"))
        except Overloaded:
            return _redirect(ACCOUNT.format("slow"))
        except (InputError, msgspec.ValidationError):
            return _redirect(ACCOUNT.format("weak"))
        return _with_cookie(_redirect(ACCOUNT.format("changed")), request, signed)

    return router


async def _changed(state: State, request: Request, who: Principal, wanted: NewPassword) -> SignedIn:
    """A new password, and a session with it: all others have ended. Raises Unauthorised, Overloaded, InputError."""
    address = _address(request)
    await state.sessions.confirmed(who.name, wanted.present, address)
    password = await state.sessions.passwords.hashed(acceptable(wanted.new, who.name))
    user = await change_user(state.settings, state.results, who.name, password=password, by=who.name)
    state.sessions.forget(who.name)
    return await state.sessions.begin(user, address, None)


def told(who: Principal, kind: Literal["session", "key", "open"]) -> dict[str, Any]:
    """Who somebody is, as the API tells it. `kind`: how he is known; `open`, where nobody needs to be."""
    return {
        "name": who.name,
        "role": who.role,
        "sites": who.sites,
        "rights": sorted(filter(who.may, RIGHTS[who.role])),
        "kind": kind,
        "expires_at": who.expires_at,
    }


def safe_next(text: str) -> str:
    """A path of this site, or the first page: never another site's."""
    plain = text.startswith("/") and not text.startswith("//") and "\\" not in text
    return text if plain and text.isascii() and text.isprintable() else "/"


async def _by_form(state: State, request: Request) -> Response:
    """What the login page sends; works without scripts. A failure leads back to it with its reason."""
    sent = await fields(request)
    given = {name: value for name, value in sent.items() if name in Credentials.__struct_fields__}
    following = safe_next(given.get("next", "/"))
    try:
        wanted = msgspec.convert({"name": "", "password": ""} | given, Credentials)
        signed = await _sign_in(state, request, wanted)
    except (Unauthorised, Overloaded, msgspec.ValidationError) as error:
        why = "slow" if isinstance(error, Overloaded) else "wrong"
        return _redirect(f"{LOGIN}?{urlencode({'error': why, 'next': following})}")
    return _with_cookie(_redirect(following), request, signed)


async def _sign_in(state: State, request: Request, wanted: Credentials) -> SignedIn:
    return await state.sessions.sign_in(wanted.name, wanted.password, _address(request), token_of(_headers(request)))


def _kind(request: Request, who: Principal) -> Literal["session", "key", "open"]:
    if not who.name:
        return "open"
    return "key" if "authorization" in request.headers else "session"


def _headers(request: Request) -> Headers:
    return dict(request.scope["headers"])


def _address(request: Request) -> str:
    client = request.scope.get("client")
    return client[0] if client else ""


def _redirect(to: str) -> Response:
    return Response(status_code=303, headers={"Location": to, "Cache-Control": "no-store"})


def _with_cookie(answer: Response, request: Request, signed: SignedIn) -> Response:
    seconds = (signed.session.expires_at - signed.session.created_at).total_seconds()
    for cookie in cookies(signed.token, seconds, secure=reached_by_https(_headers(request))):
        answer.headers.append("Set-Cookie", cookie)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _without_cookie(answer: Response) -> Response:
    for cookie in cookies("", 0, secure=False):
        answer.headers.append("Set-Cookie", cookie)
    return answer
