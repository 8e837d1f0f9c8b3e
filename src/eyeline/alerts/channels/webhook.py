"""The webhook channel: a POST signed as Standard Webhooks asks (HMAC-SHA256, `v1`), to addresses that are allowed.

A 2xx answer alone is success. Redirects are not followed; 410 says that nobody listens there any more.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import time

import aiohttp

from eyeline.alerts.channels.base import Pictures, no_picture
from eyeline.core.errors import ChannelError, ConfigError, InputError
from eyeline.core.netguard import check_url, guarded_session
from eyeline.core.settings import ChannelSettings
from eyeline.core.telemetry import printable
from eyeline.stores.results.base import DeliveryRow

#: Seconds for a whole attempt, and bytes of an answer that are looked at.
TOTAL = 30.0
ANSWER = 64 * 1024

GONE = 410
#: Answers of the 4xx that are about the moment, not about what was sent: no right (yet), too slow, too early, too many.
LATER = {401, 403, 404, 407, 408, 410, 425, 429}


class WebhookChannel:
    """POSTs to `settings.url`; signs with `settings.secret` (`whsec_` and base64) where there is one, with each of two while one
    is being replaced.
    """

    def __init__(self, settings: ChannelSettings, _pictures: Pictures = no_picture, *, total: float = TOTAL) -> None:
        try:
            check_url(settings.url, allow=settings.allow)
        except InputError as error:
            raise ConfigError(str(error)) from error
        self._settings = settings
        self._total = total
        secret = settings.secret
        self._keys = [] if secret is None else [_key(each) for each in secret.get_secret_value().split() or [""]]
        self._session: aiohttp.ClientSession | None = None

    async def send(self, delivery: DeliveryRow) -> str:
        """See `Channel.send`."""
        headers = self._headers(delivery.id, int(time.time()), delivery.payload)
        try:
            async with self._open().post(
                self._settings.url, data=delivery.payload, headers=headers, allow_redirects=False
            ) as response:
                return await _judge(response)
        except TimeoutError as error:
            raise ChannelError(f"no answer within {self._total:.0f} s") from error
        except aiohttp.ClientError as error:
            raise ChannelError(f"not reached: {printable(str(error), 200)}") from error

    async def close(self) -> None:
        """See `Channel.close`."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = guarded_session(self._settings.allow, total=self._total)
        return self._session

    def _headers(self, ident: str, timestamp: int, payload: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json", "webhook-id": ident, "webhook-timestamp": str(timestamp)}
        if self._keys:
            headers["webhook-signature"] = " ".join(signature(key, ident, timestamp, payload) for key in self._keys)
        return headers


def signature(key: bytes, ident: str, timestamp: int, payload: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.payload`."""
    digest = hmac.new(key, f"{ident}.{timestamp}.".encode() + payload, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    """The key in `whsec_…`. Raises ConfigError, which never shows it."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ConfigError("the secret is not base64; write whsec_ and the base64 of 24 to 64 random bytes") from error
    if not 24 <= len(key) <= 64:
        raise ConfigError(f"the secret has {len(key)} bytes; Standard Webhooks asks for 24 to 64, as whsec_ and base64")
    return key


async def _judge(response: aiohttp.ClientResponse) -> str:
    """The status and the start of what was said, for 2xx. Raises ChannelError with them otherwise."""
    fine = 200 <= response.status < 300
    said = printable((await _start_of(response, 0.5 if fine else 5.0)).decode("utf-8", "replace"), 200)
    if fine:
        return f"HTTP {response.status} {said}".rstrip()
    if 300 <= response.status < 400:
        said = "redirects are not followed; enter the final address"
    raise ChannelError(
        f"HTTP {response.status}: {said or 'nothing more was said'}",
        transient=response.status != GONE,
        gone=response.status == GONE,
        refused=400 <= response.status < 500 and response.status not in LATER,
    )


async def _start_of(response: aiohttp.ClientResponse, patience: float) -> bytes:
    """At most 64 kB, and no more than `patience` seconds of it: the status has already decided."""
    body = b""
    try:
        async with asyncio.timeout(patience):
            while len(body) < ANSWER and (chunk := await response.content.read(ANSWER - len(body))):
                body += chunk
    except (TimeoutError, aiohttp.ClientError):
        pass
    if not response.content.at_eof():
        response.close()
    return body
