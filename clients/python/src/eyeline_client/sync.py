"""`Client`: the conversations over a blocking httpx client. Safe to share between threads."""

import time
from collections.abc import Collection, Iterator
from typing import Any, Self, TypeVar, Unpack

import httpx

from eyeline_client import protocol
from eyeline_client.events import KINDS, Feed
from eyeline_client.images import Color, Source, body_of
from eyeline_client.protocol import Answer, Ask, Filters, Lost, Pause, Picture, Retry, Scope, Talk
from eyeline_client.types import Event, Hold, Job, Kind, Page, Result
from eyeline_client.wire import LOCAL, answer_of, lost, request_of, settings

T = TypeVar("T")


class Client:
    """A client of one gateway. `retry` says how long to go on trying; `http` goes to httpx.Client (verify, proxy …)."""

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
        self._http = httpx.Client(**settings(url, key, http))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        image: Source,
        *,
        color: Color | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **said: Unpack[Picture],
    ) -> Job:
        """Send one image: a path, bytes, a URL, or pixels with their `color`. The job is kept when this returns."""
        kind, body = body_of(image, color)
        return self._run(protocol.submit(kind, body, said, wait, idempotency_key, self._retry))

    def wait(self, job: Job | str, timeout: float = 60.0) -> Result:
        """The result of a job, completed or failed. Raises WaitTimeout."""
        return self._run(protocol.wait(job, timeout, self._retry))

    def job(self, id: str, *, wait: float = 0.0) -> Job:  # noqa: A002 - the API's word
        """What became of a job; waits up to `wait` (at most 25) seconds for its result."""
        return self._run(protocol.job(id, min(wait, protocol.LONGEST_WAIT), self._retry))

    def result(self, id: str) -> Result:  # noqa: A002 - the API's word
        """One result. Raises NotFound."""
        return self._run(protocol.result(id, self._retry))

    def page(self, cursor: str | None = None, *, limit: int = 100, **filters: Unpack[Filters]) -> Page:
        """One page of results, newest first."""
        return self._run(protocol.page(filters, cursor, limit, self._retry))

    def results(self, *, limit: int = 100, **filters: Unpack[Filters]) -> Iterator[Result]:
        """All results that match, newest first, fetched in pages of `limit`."""
        page = self.page(None, limit=limit, **filters)
        yield from page.results
        while page.next is not None:
            page = self.page(page.next, limit=limit, **filters)
            yield from page.results

    def picture(self, id: str, *, overlay: bool = False, width: int | None = None) -> bytes:  # noqa: A002
        """The picture of a result as JPEG, with what was found drawn on it where `overlay` says so."""
        return self._run(protocol.picture(id, overlay, width, self._retry))

    def holds(self, *, lifted: bool = False) -> list[Hold]:
        """Legal holds in force, in the order in which they were placed; with `lifted`, those that were lifted, too."""
        return self._run(protocol.holds(lifted, self._retry))

    def place_hold(self, reason: str, **scope: Unpack[Scope]) -> Hold:
        """Keep whatever fits all of `scope` until the hold is lifted, also what has yet to come."""
        return self._run(protocol.place_hold(reason, scope, self._retry))

    def lift_hold(self, id: str, reason: str) -> Hold:  # noqa: A002 - the API's word
        """End a hold: what it kept may go. Raises NotFound where none of that id is in force (any more)."""
        return self._run(protocol.lift_hold(id, reason, self._retry))

    def get(self, path: str, **params: Any) -> Any:
        """Any other GET of the API as plain data: `get("/v1/counts", by=["label"])`."""
        return self._run(protocol.get(path, params, self._retry))

    def events(self, *, after: int | None = None, kinds: Collection[Kind] = KINDS) -> Iterator[Event]:
        """Events as they are recorded, for ever, each once, over cuts and restarts; from `after` on, or from now."""
        feed = Feed(after, kinds, self._retry)
        while True:
            how: Answer | Lost | None = None
            try:
                with self._http.stream(**request_of(feed.request(), self._timeout)) as response:
                    if response.is_success:
                        for chunk in response.iter_bytes():
                            yield from feed.feed(chunk)
                    else:
                        response.read()
                        how = answer_of(response)
            except httpx.TransportError as error:
                how = lost(error)
            time.sleep(feed.ended(how))

    def _run(self, talk: Talk[T]) -> T:
        """Carry a conversation to its end."""
        back: Answer | Lost | None = None
        while True:
            try:
                step = talk.send(back)
            except StopIteration as end:
                found: T = end.value
                return found
            back = self._do(step)

    def _do(self, step: Ask | Pause) -> Answer | Lost | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return answer_of(self._http.request(**request_of(step, self._timeout)))
        except httpx.TransportError as error:
            return lost(error)
