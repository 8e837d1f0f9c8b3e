"""/v1/users and /v1/keys: who may come in, for those who manage. Every change is recorded with who made it."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError, Conflict, InputError, NotFound
from eyeline.core.telemetry import printable
from eyeline.gateway.auth import create_key
from eyeline.gateway.content import parsed
from eyeline.gateway.passwords import acceptable
from eyeline.gateway.people import change_user, create_user, remove_user
from eyeline.gateway.replies import reply
from eyeline.gateway.state import State, allowed
from eyeline.stores.results.base import KeyRow, UserRow

Manager = Annotated[Principal, Depends(allowed("manage"))]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Sites = Annotated[list[Text], msgspec.Meta(max_length=100)]


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """A user to be."""

    name: Text
    password: Text
    role: Text = "viewer"
    sites: Sites = []


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be different."""

    role: Text | None = None
    sites: Sites | None = None
    password: Text | None = None


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to be."""

    name: Text
    role: Text = "ingest"
    sites: Sites = []
    expires_at: datetime | None = None


def routes(state: State) -> APIRouter:
    """The routes of users and keys."""
    router = APIRouter(tags=["people"])
    results, hashed = state.results, state.sessions.passwords.hashed

    @router.get("/v1/users", summary="Who may sign in")
    async def users(_: Manager) -> Response:
        return reply({"users": [_user(user) for user in await results.users() if user.removed_at is None]})

    @router.post("/v1/users", summary="A new user", status_code=201)
    async def add(request: Request, who: Manager) -> Response:
        new = await parsed(request, NewUser)
        password = await hashed(acceptable(new.password, new.name))
        made = await create_user(state.settings, results, new.name, new.role, new.sites, password, by=who.name)
        await state.keyring.refresh()
        return reply(_user(made), 201)

    @router.patch("/v1/users/{name}", summary="Another role, other sites, a new password; ends the user's sessions")
    async def change(name: str, request: Request, who: Manager) -> Response:
        wanted = await parsed(request, Changes)
        password = None if wanted.password is None else await hashed(acceptable(wanted.password, name))
        changed = await change_user(
            state.settings, results, name, role=wanted.role, sites=wanted.sites, password=password, by=who.name
        )
        state.sessions.forget(name)
        return reply(_user(changed))

    @router.delete("/v1/users/{name}", summary="Remove a user; ends the user's sessions", status_code=204)
    async def remove(name: str, who: Manager) -> Response:
        await remove_user(results, name, by=who.name)
        state.sessions.forget(name)
        return Response(status_code=204)

    @router.get("/v1/keys", summary="API keys (never the secrets)")
    async def keys(_: Manager) -> Response:
        uses = await results.key_uses()
        filed = [
            {"name": key.name, "role": key.role, "sites": key.sites, "from": "eyeline.toml", "state": "valid"}
            | {"used_at": uses.get(key.sha256)}
            for key in state.settings.keys
        ]
        return reply({"keys": filed + [_key(key, uses.get(key.sha256)) for key in await results.keys()]})

    @router.post("/v1/keys", summary="A new API key; its secret is told once", status_code=201)
    async def make(request: Request, who: Manager) -> Response:
        new = await parsed(request, NewKey)
        if new.expires_at is not None and (new.expires_at.tzinfo is None or new.expires_at <= utcnow()):
            raise InputError("expires_at is a time to come with an offset, such as 2030-01-31T12:00:00Z")
        try:
            secret = await create_key(
                state.settings, results, new.name, new.role, tuple(new.sites), expires_at=new.expires_at, by=who.name
            )
        except ConfigError as error:
            raise InputError(str(error)) from error
        await state.keyring.refresh()
        told = {"name": new.name, "role": new.role, "sites": new.sites, "expires_at": new.expires_at, "secret": secret}
        return reply(told, 201, {"Cache-Control": "no-store"})

    @router.delete("/v1/keys/{name}", summary="Refuse a key from now on", status_code=204)
    async def revoke(name: str, who: Manager) -> Response:
        if any(key.name == name for key in state.settings.keys):
            raise Conflict(f"the key {name!r} stands in eyeline.toml; take it out there and start the gateway again")
        row = next((key for key in await results.keys() if key.name == name and key.revoked_at is None), None)
        if row is None:
            raise NotFound(f"no valid key is called {printable(name, 80)!r}")
        await results.put_key(replace(row, revoked_at=utcnow()), by=who.name)
        await state.keyring.refresh()
        return Response(status_code=204)

    return router


def _user(user: UserRow) -> dict[str, Any]:
    return {"name": user.name, "role": user.role, "sites": user.sites, "created_at": user.created_at}


def _key(key: KeyRow, used_at: datetime | None) -> dict[str, Any]:
    told = {name: getattr(key, name) for name in ("name", "role", "sites", "created_at", "expires_at", "revoked_at")}
    expired = key.expires_at is not None and key.expires_at <= utcnow()
    return told | {
        "used_at": used_at,
        "from": "here",
        "state": "revoked" if key.revoked_at else "expired" if expired else "valid",
    }
