"""`AsyncClient`: the same conversations over an async httpx client."""

from collections.abc import AsyncIterator, Collection
from typing import Any, Self, TypeVar, Unpack

import anyio
import anyio.to_thread
import httpx

from eyeline_client import protocol
from eyeline_client.events import KINDS, Feed
from eyeline_client.images import Color, Source, body_of
from eyeline_client.protocol import Answer, Ask, Filters, Lost, Pause, Picture, Retry, Scope, Talk
from eyeline_client.types import Event, Hold, Job, Kind, Page, Result
from eyeline_client.wire import LOCAL, answer_of, lost, request_of, settings

T = TypeVar("T")


class AsyncClient:
    """A client of one gateway. `retry` says how long to go on trying; `http` goes to httpx.AsyncClient (verify, proxy …)."""

    def __init__(
        self,
        url: str = LOCAL,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        retry: Retry | None = None,
        **http: Any,
    ) -> None:
        self._retry = retry or Retry()
        self._timeout = timeout
        self._http = httpx.AsyncClient(**settings(url, key, http))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        image: Source,
        *,
        color: Color | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **said: Unpack[Picture],
    ) -> Job:
        """Send one image: a path, bytes, a URL, or pixels with their `color`. The job is kept when this returns."""
        kind, body = await anyio.to_thread.run_sync(body_of, image, color)
        return await self._run(protocol.submit(kind, body, said, wait, idempotency_key, self._retry))

    async def wait(self, job: Job | str, timeout: float = 60.0) -> Result:  # noqa: ASYNC109 - the gateway waits, not a task
        """The result of a job, completed or failed. Raises WaitTimeout."""
        return await self._run(protocol.wait(job, timeout, self._retry))

    async def job(self, id: str, *, wait: float = 0.0) -> Job:  # noqa: A002 - the API's word
        """What became of a job; waits up to `wait` (at most 25) seconds for its result."""
        return await self._run(protocol.job(id, min(wait, protocol.LONGEST_WAIT), self._retry))

    async def result(self, id: str) -> Result:  # noqa: A002 - the API's word
        """One result. Raises NotFound."""
        return await self._run(protocol.result(id, self._retry))

    async def page(self, cursor: str | None = None, *, limit: int = 100, **filters: Unpack[Filters]) -> Page:
        """One page of results, newest first."""
        return await self._run(protocol.page(filters, cursor, limit, self._retry))

    async def results(self, *, limit: int = 100, **filters: Unpack[Filters]) -> AsyncIterator[Result]:
        """All results that match, newest first, fetched in pages of `limit`."""
        page = await self.page(None, limit=limit, **filters)
        for found in page.results:
            yield found
        while page.next is not None:
            page = await self.page(page.next, limit=limit, **filters)
            for found in page.results:
                yield found

    async def picture(self, id: str, *, overlay: bool = False, width: int | None = None) -> bytes:  # noqa: A002
        """The picture of a result as JPEG, with what was found drawn on it where `overlay` says so."""
        return await self._run(protocol.picture(id, overlay, width, self._retry))

    async def holds(self, *, lifted: bool = False) -> list[Hold]:
        """Legal holds in force, in the order in which they were placed; with `lifted`, those that were lifted, too."""
        return await self._run(protocol.holds(lifted, self._retry))

    async def place_hold(self, reason: str, **scope: Unpack[Scope]) -> Hold:
        """Keep whatever fits all of `scope` until the hold is lifted, also what has yet to come."""
        return await self._run(protocol.place_hold(reason, scope, self._retry))

    async def lift_hold(self, id: str, reason: str) -> Hold:  # noqa: A002 - the API's word
        """End a hold: what it kept may go. Raises NotFound where none of that id is in force (any more)."""
        return await self._run(protocol.lift_hold(id, reason, self._retry))

    async def get(self, path: str, **params: Any) -> Any:
        """Any other GET of the API as plain data: `get("/v1/counts", by=["label"])`."""
        return await self._run(protocol.get(path, params, self._retry))

    async def events(self, *, after: int | None = None, kinds: Collection[Kind] = KINDS) -> AsyncIterator[Event]:
        """Events as they are recorded, for ever, each once, over cuts and restarts; from `after` on, or from now."""
        feed = Feed(after, kinds, self._retry)
        while True:
            how: Answer | Lost | None = None
            try:
                async with self._http.stream(**request_of(feed.request(), self._timeout)) as response:
                    if response.is_success:
                        async for chunk in response.aiter_bytes():
                            for event in feed.feed(chunk):
                                yield event
                    else:
                        await response.aread()
                        how = answer_of(response)
            except httpx.TransportError as error:
                how = lost(error)
            await anyio.sleep(feed.ended(how))

    async def _run(self, talk: Talk[T]) -> T:
        """Carry a conversation to its end."""
        back: Answer | Lost | None = None
        while True:
            try:
                step = talk.send(back)
            except StopIteration as end:
                found: T = end.value
                return found
            back = await self._do(step)

    async def _do(self, step: Ask | Pause) -> Answer | Lost | None:
        if isinstance(step, Pause):
            await anyio.sleep(step.seconds)
            return None
        try:
            return answer_of(await self._http.request(**request_of(step, self._timeout)))
        except httpx.TransportError as error:
            return lost(error)
