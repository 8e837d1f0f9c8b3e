"""What the commands say to a running Eyeline: send pictures, wait for results, ask for lists."""

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from eyeline.core.errors import BackendError, InputError
from eyeline.core.ids import uuid7
from eyeline.core.telemetry import printable

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic"}
CONCURRENCY = 8


@dataclass(frozen=True)
class Outcome:
    """What came of one file: the result as the API answers it, or the sentence that says why there is none."""

    path: Path
    result: dict[str, Any] | None
    error: str | None = None


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths` and, below folders, those that are named like images; InputError for a missing one."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"no file or folder at {path}")
    return found


class Api:
    """A small client of the HTTP API, for the command line. Raises InputError (4xx) and BackendError (no answer, 5xx)."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=120))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """The JSON answer; a 429 or 503 is waited out as it asks, up to ten times."""
        for _ in range(10):
            try:
                async with self._session.request(method, self.url + path, **kwargs) as answer:
                    if answer.status in (429, 503):
                        await asyncio.sleep(min(float(answer.headers.get("Retry-After", "1")), 10.0))
                        continue
                    return await _content(answer)
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                raise BackendError(
                    f"no Eyeline answers at {self.url} ({error}); start one with `eyeline up`"
                ) from error
        raise BackendError(f"{self.url} stayed full; try again later, or send fewer at once")

    async def download(self, path: str, params: Mapping[str, str]) -> bytes:
        """The bytes of a picture."""
        async with self._session.get(self.url + path, params=dict(params)) as answer:
            if answer.status != 200:
                raise InputError(f"{path} answered {answer.status}: {(await answer.text())[:300]}")
            return await answer.read()

    async def picture(self, result_id: str) -> bytes | None:
        """The whole picture of a result in full size, also where it was encoded anew; None where that is not kept any more."""
        path = f"/v1/results/{result_id}/image"
        async with self._session.get(self.url + path) as answer:
            if answer.status == 404 or answer.headers.get("X-Eyeline-Kept") == "thumbnail":
                return None
            if answer.status != 200:
                raise InputError(f"{path} answered {answer.status}: {(await answer.text())[:300]}")
            return await answer.read()

    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The bytes of a long answer as they come. Raises BackendError where it breaks off."""
        patience = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
        try:
            async with self._session.get(self.url + path, params=dict(params), timeout=patience) as answer:
                if answer.status != 200:
                    await _content(answer)
                async for chunk in answer.content.iter_chunked(1 << 16):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BackendError(f"{self.url}{path} broke off ({error}); nothing was kept, try again") from error

    async def submit(self, path: Path, params: Mapping[str, str]) -> dict[str, Any]:
        """Send one file and wait for its result."""
        body = await asyncio.to_thread(path.read_bytes)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers = {"Content-Type": kind, "Idempotency-Key": uuid7()}  # a repeat after a lost answer is the same job
        answer = await self.call(
            "POST",
            "/v1/images",
            params={"meta.file": printable(path.name.encode(errors="replace").decode(), 200), **params, "wait": "10"},
            data=body,
            headers=headers,
        )
        while "status" in answer and answer["status"] == "queued":
            answer = await self.call("GET", f"/v1/jobs/{answer['id']}", params={"wait": "10"})
        result: dict[str, Any] = answer.get("result") or answer
        return result


async def _content(answer: aiohttp.ClientResponse) -> Any:
    if answer.status >= 500:
        raise BackendError(f"{answer.url.path} answered {answer.status}: {(await answer.text())[:300]}")
    content = await answer.json(content_type=None)
    if answer.status >= 400:
        raise InputError(str(content.get("detail", content)), code=str(content.get("code", answer.status)))
    return content


async def submit_all(api: Api, files: Sequence[Path], params: Mapping[str, str]) -> AsyncIterator[Outcome]:
    """Send the files, a few at a time, and give each outcome as it comes."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(path: Path) -> Outcome:
        async with gate:
            try:
                return Outcome(path, await api.submit(path, params))
            except InputError as error:
                return Outcome(path, None, f"{error.code}: {error}")

    tasks = [asyncio.create_task(one(path)) for path in files]
    try:
        for next_one in asyncio.as_completed(tasks):
            yield await next_one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
