"""People who sign in with a browser: sessions, the cookie that names one, and what guards both.

A session is 256 random bits; only their SHA-256 is kept. What a cookie makes possible, a page of another site could try to
use: so an unsafe request with a cookie must say that it comes from a page of this very host and port
(docs/decisions/0019).
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from eyeline.core.access import RIGHTS, Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError, Unauthorised
from eyeline.core.settings import GatewaySettings
from eyeline.core.telemetry import logger, printable
from eyeline.gateway.passwords import LONGEST, Passwords
from eyeline.gateway.rates import RateLimit
from eyeline.stores.results.base import Action, ResultStore, SessionRow, UserRow

log = logger("gateway")

COOKIE = "eyeline"
#: Over https a browser takes such a cookie from this very host alone, and sends it nowhere else.
HOST_COOKIE = "__Host-eyeline"
REFRESH = 2.0  # seconds for which what the store said of a session is believed
TOUCH = timedelta(minutes=1)
#: Sessions of one person; a further one ends the oldest.
MOST = 20
REMEMBERED = 10_000
_TOKEN_LENGTH = 43

#: Tries at signing in: so many at once, and one more after so many seconds. Those that succeed do not count.
TRIES, TRY_AGAIN = 10, 15.0
ADDRESS_TRIES, ADDRESS_AGAIN = 30, 4.0

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True)
class _Known:
    """What the store said, and when."""

    at: float
    session: SessionRow
    user: UserRow


@dataclass(frozen=True)
class SignedIn:
    """A new session: the token is told once."""

    token: str
    session: SessionRow
    user: UserRow


class Sessions:
    """Who is signed in. Another gateway's sessions are known here as well; an ended one is refused within two seconds."""

    def __init__(
        self,
        settings: GatewaySettings,
        results: ResultStore,
        passwords: Passwords | None = None,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._idle = timedelta(seconds=settings.session_idle)
        self._length = timedelta(seconds=settings.session_length)
        self._results = results
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self.passwords = passwords or Passwords()
        told = "too many wrong passwords; try again later"
        self._names = RateLimit(1 / TRY_AGAIN, name="name", burst=TRIES, told=told)
        self._addresses = RateLimit(1 / ADDRESS_AGAIN, name="address", burst=ADDRESS_TRIES, told=told)
        #: What bounds the tries.
        self.limits = (self._names, self._addresses)

    async def recognise(self, headers: Headers, *, counts: bool = True) -> Principal | None:
        """Who is signed in by this cookie; None where nobody is. With `counts`, it is used now, and lives on.

        While the store is away, what was known last stands. Raises StoreError where nothing was.
        """
        token = token_of(headers)
        if token is None:
            return None
        digest = digest_of(token)
        known = await self._look(digest)
        now = self._clock()
        if known is None or not self._valid(known, now):
            self._known.pop(digest, None)
            return None
        who = principal_of(known.user, known.session)
        if counts or who.role == "viewer":  # a wall that only shows is in use; whoever may act must do something
            await self._used(digest, known, now)
        return who

    async def sign_in(self, name: str, password: str, address: str, shown: str | None) -> SignedIn:
        """A new session, in place of the one whose token was `shown`. Raises Unauthorised, Overloaded.

        A name that does not exist takes the same way: limits, hashing, a record of the failure.
        """
        self._addresses.take(address)
        self._names.take(name)
        user = await self._user(name)
        right = len(password) <= LONGEST and await self.passwords.matches(_hash_of(user), password)
        if user is None or not right:
            told = {"name": printable(name, 64), "address": address}
            await self._results.record_action(Action(what="login_failed", body=told))
            log.warning("somebody could not sign in", **told)
            raise Unauthorised("this name and this password do not go together")
        self._addresses.give_back(address)
        self._names.give_back(name)
        if self.passwords.outdated(user.password):
            await self._results.rehash(user.name, user.password, await self.passwords.hashed(password))
        return await self.begin(user, address, shown)

    async def begin(self, user: UserRow, address: str, shown: str | None) -> SignedIn:
        """A session for somebody who is known already."""
        token, now = secrets.token_urlsafe(32), self._clock()
        row = SessionRow(
            sha256=digest_of(token), user=user.name, created_at=now, seen_at=now, expires_at=now + self._length
        )
        before = None if shown is None else digest_of(shown)
        await self._results.begin_session(row, most=MOST, ends=before, address=address)
        self._known.pop(before or "", None)
        return SignedIn(token, row, user)

    async def sign_out(self, headers: Headers) -> None:
        """The session of this cookie ends. Idempotent."""
        token = token_of(headers)
        if token is not None:
            self._known.pop(digest_of(token), None)
            await self._results.end_session(digest_of(token))

    def forget(self, user: str) -> None:
        """That one was changed: what is known of his sessions does not stand."""
        for digest in [digest for digest, known in self._known.items() if known.user.name == user]:
            del self._known[digest]

    async def confirmed(self, name: str, password: str, address: str) -> UserRow:
        """The one who is signed in, by his password once more. Raises Unauthorised, Overloaded."""
        self._addresses.take(address)
        self._names.take(name)
        user = await self._user(name)
        if not await self.passwords.matches(_hash_of(user), password) or user is None:
            raise Unauthorised("this is not your present password")
        self._addresses.give_back(address)
        self._names.give_back(name)
        return user

    async def _user(self, name: str) -> UserRow | None:
        found = (user for user in await self._results.users() if user.name == name and user.removed_at is None)
        return next(found, None)

    async def _look(self, digest: str) -> _Known | None:
        known, now = self._known.get(digest), time.monotonic()
        if known is not None and now - known.at < REFRESH:
            return known
        try:
            found = await self._results.session(digest)
        except BackendError:
            if known is None:
                raise
            return known
        if found is None:
            return None
        session, user = found
        if known is not None:  # what was not written yet
            session = replace(session, seen_at=max(session.seen_at, known.session.seen_at))
        return self._remember(digest, _Known(now, session, user))

    def _remember(self, digest: str, known: _Known) -> _Known:
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _valid(self, known: _Known, now: datetime) -> bool:
        session, user = known.session, known.user
        lives = now < session.expires_at and now - session.seen_at < self._idle
        return lives and user.removed_at is None and user.role in RIGHTS

    async def _used(self, digest: str, known: _Known, now: datetime) -> None:
        """Said to the store once a minute at most."""
        if now - known.session.seen_at < TOUCH:
            return
        self._remember(digest, replace(known, session=replace(known.session, seen_at=now)))
        try:
            await self._results.touch_session(digest, now)
        except BackendError as error:
            log.warning("the use of a session was not kept", error=str(error))


def _hash_of(user: UserRow | None) -> str | None:
    return None if user is None else user.password


def principal_of(user: UserRow, session: SessionRow) -> Principal:
    """Who asks."""
    role: Any = user.role
    return Principal(user.name, role, user.sites or None, session.expires_at)


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_of(headers: Headers) -> str | None:
    """The token in the cookie; None where there is none, or where two say different ones (somebody planted one)."""
    cookies: dict[str, set[str]] = {}
    for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        cookies.setdefault(name, set()).add(value)
    found = cookies.get(HOST_COOKIE) or cookies.get(COOKIE) or set()
    token = next(iter(found), "")
    return token if len(found) == 1 and len(token) == _TOKEN_LENGTH and token.isascii() else None


def cookies(token: str, seconds: float, *, secure: bool) -> list[str]:
    """The `Set-Cookie` headers that keep this token in a browser; an empty token takes it away."""
    common = f"Path=/; HttpOnly; SameSite=Strict; Max-Age={int(seconds)}"
    if not token:
        return [f"{COOKIE}=; {common}", f"{HOST_COOKIE}=; {common}; Secure"]
    return [f"{HOST_COOKIE}={token}; {common}; Secure"] if secure else [f"{COOKIE}={token}; {common}"]


def reached_by_https(headers: Headers) -> bool:
    """Whether the browser's page came over TLS (which a proxy ended): it says so itself, in a header no page can set."""
    return headers.get(b"origin", b"").startswith(b"https://")


def from_here(headers: Headers) -> bool:
    """Whether a browser says that a page of this very host and port made the request. Silence is no."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None and site != b"same-origin":
        return False
    return site is not None if origin is None else _is_host(origin, headers)


def from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that a page of another host or port made the request. Silence is no."""
    if headers.get(b"sec-fetch-site") in {b"cross-site", b"same-site"}:
        return True
    origin = headers.get(b"origin")
    return origin is not None and not _is_host(origin, headers)


def _is_host(origin: bytes, headers: Headers) -> bool:
    scheme, _, place = origin.lower().partition(b"://")
    usual = b":443" if scheme == b"https" else b":80"
    host = headers.get(b"host", b"").strip().lower()
    return bool(place) and place.removesuffix(usual) == host.removesuffix(usual)
