"""GET /v1/events: results, alerts and system events as they are recorded, as server-sent events with resume."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import InputError
from eyeline.core.types import Event
from eyeline.gateway.follow import FURTHEST, Subscriber
from eyeline.gateway.state import State, allowed, still_valid

HEARTBEAT = 10.0
KINDS = ("result", "alert", "system")

Caller = Annotated[Principal, Depends(allowed("read"))]


def routes(state: State) -> APIRouter:
    """The route of the live stream."""
    router = APIRouter(tags=["events"])

    @router.get("/v1/events", summary="The live stream (server-sent events)")
    async def events(
        request: Request,
        who: Caller,
        after: Annotated[int | None, Query(ge=0, description="resume after this event")] = None,
        kinds: Annotated[str, Query(max_length=40, description="some of result,alert,system")] = ",".join(KINDS),
        every: Annotated[
            float, Query(ge=0, le=5, description="seconds between messages: events that come sooner are told together")
        ] = 0.0,
        last_event_id: Annotated[str | None, Header(max_length=20)] = None,
    ) -> StreamingResponse:
        wanted = _wanted(who, kinds)
        stream = _stream(state, request, wanted, _resumed(last_event_id, after), every)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return router


def _wanted(who: Principal, kinds: str) -> Callable[[Event], bool]:
    chosen = set(kinds.split(","))
    if not chosen <= set(KINDS):
        raise InputError(f"kinds={kinds!r}: choose from {', '.join(KINDS)}, separated by commas")
    return lambda event: event.kind in chosen and who.sees(event.site)


def _resumed(last_event_id: str | None, after: int | None) -> int | None:
    """Where to go on: the browser's header wins over the query it was first opened with."""
    if last_event_id is None:
        return after
    if not last_event_id.isdecimal():
        raise InputError(f"Last-Event-ID {last_event_id!r} is no event number")
    return int(last_event_id)


async def _stream(
    state: State, request: Request, wanted: Callable[[Event], bool], after: int | None, every: float
) -> AsyncIterator[bytes]:
    """What was missed, from the store; then what comes, from the shared reader."""
    follower = state.follower
    subscriber = follower.subscribe(wanted)
    start = follower.cursor
    try:
        # a new reader learns at once where it began, so that a cut before its first event loses nothing
        yield b"retry: 2000\n\n" if after is not None else b"retry: 2000\nid: %d\n\n" % start
        if after is not None and start < after <= await state.results.last_seq():
            start = after  # a page that was made after this process's last look knows more than it
        if after is not None and not 0 <= start - after <= FURTHEST:
            yield _resync(start)  # too far behind, or ahead: another database than the reader knew
        elif after is not None:
            async for event in follower.missed(after, start):
                if wanted(event):
                    yield told(event)
        async for chunk in _live(state, request, subscriber, start, every):
            yield chunk
    finally:
        follower.unsubscribe(subscriber)


async def _live(
    state: State, request: Request, subscriber: Subscriber, last: int, every: float
) -> AsyncIterator[bytes]:
    beat = time.monotonic()
    yield _heartbeat()
    while not state.follower.stopping.is_set():
        events, lost = await subscriber.take(1.0, after=every)
        if lost:
            yield _resync(state.follower.cursor)
        fresh = b"".join(told(event) for event in events if event.seq > last)
        if fresh:
            last = events[-1].seq
            yield fresh
        if time.monotonic() - beat >= HEARTBEAT:
            beat = time.monotonic()
            if not await still_valid(state, request.scope):  # a key revoked, or a session ended meanwhile
                return
            yield _heartbeat()


def told(event: Event) -> bytes:
    """One event on the wire."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), msgspec.json.encode(event.body))


def _heartbeat() -> bytes:
    """That the stream is alive, and the time by this clock; without a number, so that readers do not resume there."""
    return b'event: heartbeat\ndata: {"at":"%s"}\n\n' % isoformat(utcnow()).encode()


def _resync(cursor: int) -> bytes:
    """The reader missed events: it should load the lists anew and go on from here."""
    return b'id: %d\nevent: resync\ndata: {"after":%d}\n\n' % (cursor, cursor)
