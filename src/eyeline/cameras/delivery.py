"""One frame to the gateway, and what its answer means for the frame."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import aiohttp
import msgspec

from eyeline.cameras.base import Asked
from eyeline.cameras.clocks import clock_of
from eyeline.cameras.spool import Counts, Held
from eyeline.core.clock import isoformat
from eyeline.core.errors import CameraError
from eyeline.core.settings import CameraSettings
from eyeline.core.types import Lane

_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=3)
_REPORT_TIMEOUT = aiohttp.ClientTimeout(total=2)
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Answer:
    """kept: the gateway has it. busy: come back after `wait` seconds. away: no gateway, or none that lets us in.

    refused: this frame is not wanted, now or ever; `detail` says why.
    """

    verdict: Literal["kept", "busy", "away", "refused"]
    wait: float = 0.0
    detail: str = ""
    job: str | None = None


def answer_of(status: int, headers: Mapping[str, str], text: str = "") -> Answer:
    """What a status means. 409 is a yes: a frame's key is its own, so the request that came before was this frame's."""
    if status in {200, 202, 409}:
        return Answer("kept")
    if status == 429:
        return Answer("busy", _seconds(headers.get("Retry-After", "")))
    if status < 400 or status >= 500 or status in {401, 403, 404, 405, 408}:
        return Answer("away", detail=f"HTTP {status}: {text[:200]}")
    return Answer("refused", detail=f"HTTP {status}: {text[:200]}")


def _seconds(text: str) -> float:
    try:
        return min(_LONGEST_WAIT, max(0.05, float(text)))
    except ValueError:
        return 1.0


class Requests(msgspec.Struct, frozen=True):
    """What GET /v1/cameras/{name}/captures answers; `after` is where to go on."""

    captures: list[Asked]
    after: int


def _job(text: str) -> str | None:
    """The job's id in the gateway's answer."""
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any]).get("id")
    except msgspec.DecodeError:
        return None


class Delivery:
    """The way to one gateway for one camera; keeps its connections."""

    def __init__(self, settings: CameraSettings, gateway_url: str, api_key: str | None) -> None:
        self._settings = settings
        self._gateway = gateway_url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = aiohttp.ClientSession(headers=headers, trust_env=False)

    async def send(self, held: Held, data: bytes, lane: Lane) -> Answer:
        """Offer a frame; safe to repeat: its key tells the gateway that it is the same one."""
        settings = self._settings
        query = {"camera": settings.name, "site": settings.site, "lane": lane}
        query["captured_at"] = isoformat(held.captured_at)
        query |= {f"meta.{key}": value for key, value in held.meta.items()}
        if settings.pipeline is not None:
            query["pipeline"] = settings.pipeline
        if held.ref is not None:
            query["ref"] = held.ref
        headers = {"Idempotency-Key": held.key, "Content-Type": "application/octet-stream"}
        try:
            async with self._http.post(
                f"{self._gateway}/v1/images",
                params=query,
                data=data,
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,
            ) as response:
                text = (await response.content.read(65_536)).decode("utf-8", "replace")
                answer = answer_of(response.status, response.headers, text)
                return replace(answer, job=_job(text)) if answer.verdict == "kept" else answer
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Answer("away", detail=f"{type(error).__name__}: {error}")

    async def report(
        self, counts: Counts, state: str, fps: float, health: Mapping[str, Any] | None = None
    ) -> datetime | None:
        """Tell the gateway the camera's accounting and health. Returns the gateway's clock; None where it did not listen."""
        body: dict[str, Any] = {
            "captured": counts.captured,
            "accepted": counts.accepted,
            "dropped": counts.dropped,
            "spooled": counts.spooled,
            "in_hand": counts.in_hand,
            "state": state,
            "fps": round(fps, 2),
            "health": health,
        }
        url = f"{self._gateway}/v1/cameras/{self._settings.name}/status"
        try:
            async with self._http.put(url, json=body, timeout=_REPORT_TIMEOUT, allow_redirects=False) as response:
                return clock_of(response.headers) if response.status < 300 else None
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None

    async def requests(self, after: int | None, wait: float) -> Requests:
        """The captures that were asked for since `after`, waiting up to `wait` seconds for one. Raises CameraError."""
        query = {"wait": f"{wait:g}"} | ({} if after is None else {"after": str(after)})
        url = f"{self._gateway}/v1/cameras/{self._settings.name}/captures"
        timeout = aiohttp.ClientTimeout(total=wait + 10, sock_connect=3)
        try:
            async with self._http.get(url, params=query, timeout=timeout, allow_redirects=False) as response:
                body = await response.content.read(1 << 20)
                if response.status != 200:
                    raise CameraError(f"HTTP {response.status}: {body[:200].decode('utf-8', 'replace')}")
                return msgspec.json.decode(body, type=Requests)
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise CameraError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()
