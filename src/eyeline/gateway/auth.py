"""Keys, and who shows one. They are random; only their SHA-256 is kept anywhere."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from eyeline.core.access import NOBODY, RIGHTS, Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import BackendError, ConfigError, Unauthorised
from eyeline.core.settings import NAME, KeySettings, Settings
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import KeyRow, ResultStore

log = logger("gateway")

PREFIX = "eyl_live_"
#: Seconds between two times that the use of one key is kept.
TOUCH = 60.0
REFRESH = 2.0  # seconds between looks at the stored keys: a revoked one is refused within five
LONGEST_KEY = 256


def new_key() -> tuple[str, str]:
    """A new key and the SHA-256 (hex) to keep: 256 random bits behind a prefix that secret scanners find."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, digest_of(secret)


def digest_of(secret: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def create_key(
    settings: Settings,
    results: ResultStore,
    name: str,
    role: str,
    sites: tuple[str, ...],
    *,
    expires_at: datetime | None = None,
    by: str = "",
) -> str:
    """Make a key, keep its hash, and give the secret, which is nowhere afterwards.

    Raises ConfigError for a name that another valid key has (two names are how a key is rotated), and for a role or a
    site that does not exist.
    """
    taken = {key.name for key in settings.keys} | {row.name for row in await results.keys() if row.revoked_at is None}
    if name in {user.name for user in await results.users()}:
        raise ConfigError(f"a user is called {name!r}; choose another name, so that the audit can tell them apart")
    if name in taken:
        raise ConfigError(f"a key is called {name!r} already; choose another name, or revoke that one first")
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{name!r}: a name has letters, digits, '_', '.' and '-', 64 at most")
    known = next((each for each in RIGHTS if each == role), None)
    if known is None:
        raise ConfigError(f"no role is called {role!r}; roles: {', '.join(RIGHTS)}")
    places = {site.name for site in settings.sites} | {"default"}
    if unknown := [site for site in sites if site not in places]:
        raise ConfigError(f"no site is called {unknown[0]!r}; defined: {', '.join(sorted(places))}")
    secret, digest = new_key()
    row = KeyRow(name=name, sha256=digest, role=known, sites=sites, created_at=utcnow(), expires_at=expires_at)
    await results.put_key(row, by=by)
    return secret


class Keyring:
    """The keys that are valid now: those of the settings, and those in the result store, looked up every two seconds."""

    def __init__(self, configured: Sequence[KeySettings], results: ResultStore) -> None:
        self._configured = {key.sha256: Principal(key.name, key.role, tuple(key.sites) or None) for key in configured}
        self._results = results
        self._known = dict(self._configured)
        self._stored_any = False
        self._used: dict[str, datetime] = {}  # since it was kept
        self._kept: dict[str, datetime] = {}

    @property
    def required(self) -> bool:
        """Whether callers must say who they are. Revoking the last key, or removing the last user, does not open the door."""
        return bool(self._configured) or self._stored_any

    async def refresh(self) -> None:
        """Take over what the store says now."""
        rows = await self._results.keys()
        self._stored_any = bool(rows or await self._results.users())
        self._known = self._configured | dict(_valid(rows, utcnow()))

    async def keep_fresh(self) -> None:
        """Refresh for ever, and keep when keys were used. While the store is away, the keys known last stay valid."""
        while True:
            try:
                await self.refresh()
                await self.keep_uses()
            except BackendError as error:
                log.warning("keys not refreshed", error=str(error))
            await asyncio.sleep(REFRESH)

    async def keep_uses(self) -> None:
        """When each key was used last, once a minute at most: asking for something writes nothing by itself."""
        now, long_ago = utcnow(), datetime.min.replace(tzinfo=UTC)
        kept = {key: self._kept.get(key, long_ago) for key in self._used}
        due = {
            key: at for key, at in self._used.items() if at > kept[key] and (now - kept[key]).total_seconds() >= TOUCH
        }
        if due:
            await self._results.touch_keys(due)
            self._kept |= due

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]], session: Principal | None = None) -> Principal:
        """The holder of the Bearer key in these ASGI headers; without one, who is signed in. Raises Unauthorised."""
        shown = next((value for name, value in headers if name == b"authorization"), None)
        if shown is None:
            if session is None and self.required:
                raise Unauthorised(
                    "this needs a key ('Authorization: Bearer eyl_live_…'), or somebody who is signed in"
                )
            return session or NOBODY
        return self._holder(shown)

    def _holder(self, shown: bytes) -> Principal:
        scheme, _, secret = shown.partition(b" ")
        if scheme.lower() != b"bearer" or not secret or len(secret) > LONGEST_KEY:
            raise Unauthorised("the Authorization header must read 'Bearer eyl_live_…'")
        digest = hashlib.sha256(secret.strip()).hexdigest()
        # a look-up by digest tells nothing about the key; the comparison is constant-time all the same
        found = next((known for known in (digest,) if known in self._known), None)
        if found is None or not hmac.compare_digest(found, digest):
            if not self.required:
                return NOBODY
            raise Unauthorised("this key is not known here, or no longer; ask for a new one")
        holder = self._unexpired(self._known[digest])
        self._used[digest] = utcnow()
        return holder

    def _unexpired(self, holder: Principal) -> Principal:
        if holder.expires_at is not None and holder.expires_at <= utcnow():
            raise Unauthorised(f"the key {holder.name!r} has expired; ask for a new one")
        return holder


def _valid(rows: Iterable[KeyRow], now: datetime) -> Iterable[tuple[str, Principal]]:
    for row in rows:
        if row.revoked_at is None and (row.expires_at is None or row.expires_at > now) and row.role in RIGHTS:
            yield row.sha256, Principal(row.name, row.role, row.sites or None, row.expires_at)
