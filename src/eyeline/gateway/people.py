"""Users: made, changed, removed. The command line and the API both go by this."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from eyeline.core.access import RIGHTS
from eyeline.core.clock import utcnow
from eyeline.core.errors import Conflict, InputError, NotFound
from eyeline.core.settings import NAME, Settings
from eyeline.core.telemetry import printable
from eyeline.stores.results.base import ResultStore, UserRow

#: A camera does not sign in with a password.
ROLES = tuple(role for role, rights in RIGHTS.items() if "read" in rights)


async def create_user(
    settings: Settings,
    results: ResultStore,
    name: str,
    role: str,
    sites: Sequence[str],
    password: str,
    *,
    by: str = "",
) -> UserRow:
    """Keep a new user; `password` is the encoded hash. Raises InputError, Conflict."""
    if not re.fullmatch(NAME, name):
        raise InputError(f"{printable(name, 80)!r}: a name has letters, digits, '_', '.' and '-', 64 at most")
    taken = {user.name for user in await results.users() if user.removed_at is None}
    taken |= {key.name for key in settings.keys} | {key.name for key in await results.keys() if key.revoked_at is None}
    if name in taken:
        raise Conflict(f"somebody, or a key, is called {name!r} already; choose another name")
    if not taken and (role != "admin" or sites):
        raise InputError("the first user must be an admin for all sites, or nobody could make the next one")
    row = UserRow(
        name=name,
        password=password,
        role=_role(role),
        sites=_sites(settings, sites),
        created_at=utcnow(),
    )
    await results.put_user(row, by=by)
    return row


async def change_user(
    settings: Settings,
    results: ResultStore,
    name: str,
    *,
    role: str | None = None,
    sites: Sequence[str] | None = None,
    password: str | None = None,
    by: str = "",
) -> UserRow:
    """Keep what is given and end his sessions. Raises InputError, NotFound, Conflict."""
    user = await present(results, name)
    changes: dict[str, Any] = {}
    if role is not None:
        changes["role"] = _role(role)
    if sites is not None:
        changes["sites"] = _sites(settings, sites)
    if password is not None:
        changes["password"] = password
    if not changes:
        raise InputError("nothing to change; give role, sites or password")
    changed = replace(user, **changes)
    await _keep_an_admin(results, changed)
    await results.put_user(changed, by=by)
    return changed


async def remove_user(results: ResultStore, name: str, *, by: str = "") -> None:
    """From now on he cannot sign in; his name stays in the audit. Raises NotFound, Conflict."""
    removed = replace(await present(results, name), removed_at=utcnow())
    await _keep_an_admin(results, removed)
    await results.put_user(removed, by=by)


async def present(results: ResultStore, name: str) -> UserRow:
    """The user of this name. Raises NotFound."""
    users = {user.name: user for user in await results.users() if user.removed_at is None}
    if name not in users:
        raise NotFound(f"no user is called {printable(name, 80)!r}; known: {', '.join(users) or 'none'}")
    return users[name]


async def _keep_an_admin(results: ResultStore, changed: UserRow) -> None:
    """Raises Conflict where nobody would be left who can make users."""
    after = [changed if user.name == changed.name else user for user in await results.users()]
    if not any(user.role == "admin" and not user.sites and user.removed_at is None for user in after):
        raise Conflict(f"{changed.name!r} is the last admin for all sites; make another one first")


def _role(role: str) -> str:
    if role not in ROLES:
        raise InputError(f"no role of people is called {printable(role, 80)!r}; roles: {', '.join(ROLES)}")
    return role


def _sites(settings: Settings, sites: Sequence[str]) -> tuple[str, ...]:
    places = {site.name for site in settings.sites} | {"default"}
    if unknown := [site for site in sites if site not in places]:
        raise InputError(f"no site is called {printable(unknown[0], 80)!r}; defined: {', '.join(sorted(places))}")
    return tuple(sorted(set(sites)))
