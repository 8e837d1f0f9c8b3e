"""A camera over HTTP: single pictures (fetched again and again) or motion JPEG, told apart by the content type.

The bytes go on as the camera made them. The address stands in the settings, so it may be a private one; where the camera
redirects to another host, that host must be public or lie in the camera's `allow`, and is sent no password.
"""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import unquote

import aiohttp
from yarl import URL

from eyeline.cameras.base import Frame, Memory
from eyeline.cameras.clocks import clock_of
from eyeline.cameras.multipart import LARGEST_PART, Parts, boundary_of
from eyeline.cameras.pace import Pace
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError, InputError
from eyeline.core.netguard import check_url, guarded_session
from eyeline.core.settings import CameraSettings, mask
from eyeline.pipeline.decode import probe

REDIRECTS = 3
CHUNK = 65_536
#: Pictures a second where the settings name no rate: a snapshot address has none of its own.
SNAPSHOT_FPS = 1.0
CONNECT = 5.0
DROPPED_CORRUPT = "corrupt"
#: Pictures in a row that are none, after which the camera counts as broken.
MOST_CORRUPT = 20

_REDIRECTS = {301, 302, 303, 307, 308}


class HttpSource:
    """Live frames of http:// or https://user:password@host/path."""

    live = True

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        parsed = URL(url)
        self._url = parsed.with_user(None)
        self._login = (unquote(parsed.user), unquote(parsed.password or "")) if parsed.user else None
        self._shown = mask(url)
        self._settings = settings
        self._memory = memory
        self._pace = Pace(settings.fps)
        self._corrupt = 0
        self._sessions: list[aiohttp.ClientSession] = []

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; never ends but by CameraError."""
        own = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        foreign = guarded_session(self._settings.allow)
        self._sessions = [own, foreign]
        try:
            while True:
                async with AsyncExitStack() as stack:
                    answer = await self._get(stack, own, foreign)
                    kind = answer.content_type
                    frames = self._stream(answer) if kind.startswith("multipart/") else self._snapshot(answer)
                    async for frame in frames:
                        yield frame
                if kind.startswith("multipart/"):
                    raise CameraError(f"{self._shown}: the camera ended the stream")
        except TimeoutError as error:
            raise CameraError(
                f"{self._shown}: no answer in time: stalled, switched off or behind a firewall"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise CameraError(f"{self._shown}: {_reason(error)}") from error

    async def close(self) -> None:
        """Close connections."""
        for session in self._sessions:
            await session.close()

    # ------------------------------------------------------------ what comes
    async def _snapshot(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[Frame, None]:
        begun, moment = time.monotonic(), utcnow()
        if answer.content_type.startswith("text/"):
            raise CameraError(
                f"{self._shown} answers with {answer.content_type}, no picture; it may be the camera's web page: "
                "look up the address of its snapshot or MJPEG"
            )
        data = await _read(answer)
        if self._whole(data):
            yield Frame(data, moment, camera_clock=clock_of(answer.headers))
        pause = 1 / (self._settings.fps or SNAPSHOT_FPS)
        await asyncio.sleep(max(0.0, pause - (time.monotonic() - begun)))

    async def _stream(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[Frame, None]:
        parts = Parts(boundary_of(answer.headers["Content-Type"]))
        async for chunk in answer.content.iter_chunked(CHUNK):
            for headers, data in parts.feed(chunk):
                if self._whole(data) and self._pace.takes(time.monotonic()):
                    yield Frame(data, utcnow(), camera_clock=clock_of(headers))

    def _whole(self, data: bytes) -> bool:
        """Whether it is a picture. One that is none is dropped; too many of them are a broken camera."""
        try:
            header = probe(data)
            cut = header.format == "jpeg" and b"\xff\xd9" not in data[-64:]
        except InputError:
            cut = True
        if not cut:
            self._corrupt = 0
            return True
        self._memory.dropped(DROPPED_CORRUPT)
        self._corrupt += 1
        if self._corrupt >= MOST_CORRUPT:
            raise CameraError(
                f"{self._shown} sends no pictures: {self._corrupt} answers in a row cannot be read as one"
            )
        return False

    # ------------------------------------------------------------ asking
    async def _get(
        self, stack: AsyncExitStack, own: aiohttp.ClientSession, foreign: aiohttp.ClientSession
    ) -> aiohttp.ClientResponse:
        """The camera's answer, after a login and redirects. Raises CameraError for anything but 200."""
        url = self._url
        for _ in range(REDIRECTS + 1):
            at_home = url.host == self._url.host
            answer = await self._ask(stack, own if at_home else foreign, url, login=at_home)
            if answer.status not in _REDIRECTS:
                return self._fine(answer)
            url = self._judged(url.join(URL(answer.headers.get("Location", ""))))
        raise CameraError(f"{self._shown} redirects more than {REDIRECTS} times")

    async def _ask(
        self, stack: AsyncExitStack, session: aiohttp.ClientSession, url: URL, *, login: bool
    ) -> aiohttp.ClientResponse:
        stall = self._settings.stall_seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT, stall), sock_read=stall)

        async def get(**how: Any) -> aiohttp.ClientResponse:
            return await stack.enter_async_context(session.get(url, allow_redirects=False, timeout=timeout, **how))

        answer = await get()
        if answer.status != 401 or not login or self._login is None:
            return answer
        # a password is sent only when asked for, and in the clear only where the camera knows nothing better
        if answer.headers.get("WWW-Authenticate", "").lower().startswith("digest"):
            return await get(middlewares=(aiohttp.DigestAuthMiddleware(*self._login),))
        pair = base64.b64encode(":".join(self._login).encode()).decode()
        return await get(headers={"Authorization": f"Basic {pair}"})

    def _judged(self, url: URL) -> URL:
        if url.scheme not in {"http", "https"}:
            raise CameraError(f"{self._shown} redirects to {url.scheme}://; only http and https are followed")
        if url.host != self._url.host:
            try:
                check_url(str(url), allow=self._settings.allow)
            except InputError as error:
                raise CameraError(
                    f"{self._shown} redirects to {url.host}, which is private; list its range in the camera's `allow`, "
                    "or use that address itself"
                ) from error
        return url

    def _fine(self, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        if answer.status == 200:
            return answer
        if answer.status in {401, 403}:
            said = "wants a user name and password; write them as http://user:password@host/…"
            raise CameraError(f"{self._shown} {'refuses the user name or the password' if self._login else said}")
        if answer.status == 404:
            raise CameraError(f"{self._shown} answers 404: it has no such address; correct the path")
        raise CameraError(f"{self._shown} answers HTTP {answer.status}")


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        data += chunk
        if len(data) > LARGEST_PART:
            raise CameraError(f"a picture is over {LARGEST_PART:,} bytes")
    return bytes(data)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name is not known; check the address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return (
            "its certificate is not trusted here; give the camera a valid one, or use http:// within your own network"
        )
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
        return "nothing listens there; check address and port, and whether the camera is on"
    return f"the connection broke ({type(error).__name__})"
