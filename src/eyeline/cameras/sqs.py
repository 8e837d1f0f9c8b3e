"""Pictures that a queue of SQS tells of: events of S3 about objects that were created, or addresses of pictures.

A message is held until every picture that it names is with the gateway (or was refused by it for good), and only then deleted:
whatever dies in between, SQS gives it again, and what was captured already is not captured twice.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus, urljoin, urlsplit

import aiohttp

from eyeline.cameras.base import Frame, Memory
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import CameraError, ConfigError, InputError, NotFound, QueueError, TooLarge
from eyeline.core.netguard import check_url, guarded_session
from eyeline.core.settings import CameraSettings
from eyeline.core.telemetry import logger, printable
from eyeline.queues.inbox import Inbox, Letter

log = logger("cameras")

#: Bytes of one picture at most, seconds of one download, steps of a redirect.
MOST, DOWNLOAD, STEPS = 25_000_000, 30.0, 3
#: Seconds for which a message is held, after which that is renewed, and of one look: short while something is on its way.
LEASE, RENEW, WAIT, BUSY_WAIT = 120.0, 60.0, 20.0, 1.0
#: Why a message's picture was given up.
DROPPED_MESSAGE, DROPPED_MISSING, DROPPED_TOO_LARGE = "bad_message", "picture_missing", "too_large"


@dataclass(frozen=True)
class Picture:
    """One picture that a message names: an address, `s3://bucket/key` or http(s)."""

    url: str
    created_at: datetime | None = None


@dataclass
class _Held:
    """A message in hand: when its lease was renewed last, and the origins of its pictures."""

    letter: Letter
    renewed: float
    origins: list[str] = field(default_factory=list)


def pictures_of(body: str) -> list[Picture]:
    """What a message names. An event about anything else names nothing. Raises ValueError for what is no such message."""
    text = body.strip()
    if text.startswith(("http://", "https://", "s3://")):
        return [Picture(text)]
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError("neither an event nor an address")  # noqa: TRY004 - of what others send, not of what we call
    if told.get("Type") == "Notification" and isinstance(told.get("Message"), str):
        return pictures_of(told["Message"])  # by way of SNS
    if isinstance(told.get("url"), str):
        return [Picture(told["url"])]
    if isinstance(told.get("Records"), list):
        return list(_records(told["Records"]))
    if told.get("source") == "aws.s3":
        return list(_event_bridge(told))
    if "Event" in told:  # S3's own test of a new notification
        return []
    raise ValueError("neither an event of S3 nor an address of a picture")


def _records(records: list[Any]) -> Iterator[Picture]:
    try:
        for record in records:
            if str(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated:"):
                bucket, key = record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])
                yield Picture(f"s3://{bucket}/{key}", parse_time(record["eventTime"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"an event without {error}") from error


def _event_bridge(told: dict[str, Any]) -> Iterator[Picture]:
    if told.get("detail-type") != "Object Created":
        return
    try:
        bucket, key = told["detail"]["bucket"]["name"], told["detail"]["object"]["key"]
        yield Picture(f"s3://{bucket}/{key}", parse_time(told["time"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"an event without {error}") from error


class SqsSource:
    """`sqs://[key:secret@]queue?region=…&endpoint=…`. Addresses on the web are judged: `allow` lets private ones in."""

    live = False

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        if settings.drop == "newest":
            raise ConfigError(f'camera {settings.name!r}: pictures of a queue wait for room; leave drop = "newest" out')
        self._inbox = Inbox(url)
        self._allow = settings.allow
        self._memory = memory
        self._held: dict[str, _Held] = {}
        self._http: aiohttp.ClientSession | None = None

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; never ends."""
        try:
            while True:
                await self._look_after()
                for letter in await self._inbox.receive(BUSY_WAIT if self._held else WAIT, LEASE):
                    async for frame in self._open(letter):
                        yield frame
        except QueueError as error:
            raise CameraError(str(error)) from error

    async def close(self) -> None:
        """What is held comes again when its lease ends."""
        await self._inbox.close()
        if self._http is not None:
            await self._http.close()

    async def _look_after(self) -> None:
        """Delete what is done, hold the rest."""
        for held in list(self._held.values()):
            if not any(self._memory.pending(origin) for origin in held.origins):
                await self._done(held)
            elif _now() - held.renewed > RENEW:
                await self._inbox.hold(held.letter, LEASE)
                held.renewed = _now()

    async def _done(self, held: _Held) -> None:
        await self._inbox.delete(held.letter)
        self._held.pop(held.letter.id, None)
        for origin in held.origins:
            self._memory.forget(origin)

    async def _open(self, letter: Letter) -> AsyncGenerator[Frame, None]:
        """The message's pictures that were not captured before. What cannot be had now is left for another time."""
        held = _Held(letter, _now())
        try:
            pictures = pictures_of(letter.body)
        except ValueError as error:
            log.warning("a message names no picture", error=str(error), body=printable(letter.body, 200))
            self._memory.dropped(DROPPED_MESSAGE)
            pictures = []
        for number, picture in enumerate(pictures):
            origin = f"{letter.id}/{number}"
            if not self._memory.seen(origin):
                try:
                    data = await self._fetch(picture.url)
                except InputError as error:
                    log.warning("a picture is given up", error=printable(str(error), 300))
                    self._memory.dropped(DROPPED_TOO_LARGE if isinstance(error, TooLarge) else DROPPED_MISSING)
                    continue
                yield Frame(data, picture.created_at or utcnow(), origin, {"url": picture.url[:256]})
            held.origins.append(origin)
        self._held[letter.id] = held

    async def _fetch(self, url: str) -> bytes:
        """Raises NotFound and TooLarge for what will never come, CameraError for what may."""
        if url.startswith("s3://"):
            parts = urlsplit(url)
            return await self._inbox.fetch(parts.netloc, url.removeprefix(f"s3://{parts.netloc}/"), MOST)
        if self._http is None:
            self._http = guarded_session(self._allow, total=DOWNLOAD)
        try:
            for _ in range(STEPS + 1):
                check_url(url, allow=self._allow)
                async with self._http.get(url, allow_redirects=False) as answer:
                    if answer.status < 300:
                        return await _read(answer, url)
                    url = _next(answer, url)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise CameraError(f"{printable(url, 200)} cannot be had now: {printable(str(error), 200)}") from error
        raise NotFound(f"{printable(url, 200)} leads on and on")


def _next(answer: aiohttp.ClientResponse, url: str) -> str:
    """Where a redirect leads. Raises NotFound for an address that will not answer, CameraError for one that may."""
    if 300 <= answer.status < 400 and "Location" in answer.headers:
        return urljoin(url, answer.headers["Location"])
    told = f"{printable(url, 200)} answers HTTP {answer.status}"
    if answer.status in {408, 429} or answer.status >= 500:
        raise CameraError(told)
    raise NotFound(told)


async def _read(answer: aiohttp.ClientResponse, url: str) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        data += chunk
        if len(data) > MOST:
            raise TooLarge(f"{printable(url, 200)} has over {MOST:,} bytes")
    return bytes(data)


def _now() -> float:
    return asyncio.get_running_loop().time()
