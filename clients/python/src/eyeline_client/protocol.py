"""The conversation with a gateway, without any I/O: what to ask, when to ask again, what an answer means.

A conversation is a generator. It yields an `Ask` and is sent the `Answer` (or the `Lost` that came instead), or yields a
`Pause`, and returns what it found out. `sync.py` and `aio.py` only carry these to the network and the clock.
"""

import random
import time
import uuid
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict, TypeVar

import msgspec

from eyeline_client.errors import NotFound, Overloaded, Refused, Unreachable, WaitTimeout
from eyeline_client.types import Hold, Job, Lane, Page, Result, Status

#: Seconds that one request may wait for a result: under the gateway's 30 and under what proxies usually allow.
LONGEST_WAIT = 25.0
#: Nothing was kept, or a proxy says that it does not know: worth another try.
TRY_AGAIN = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Ask:
    """One request. `wait` is how long the gateway may hold it on purpose, in seconds."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    wait: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Lost:
    """No answer came; whether the request arrived is not known."""

    error: str


@dataclass(frozen=True)
class Pause:
    """Seconds to wait before going on."""

    seconds: float


T = TypeVar("T")
Talk = Generator[Ask | Pause, Answer | Lost | None, T]


@dataclass(frozen=True)
class Retry:
    """How long to go on trying, in seconds; 0 never tries twice. `base` and `longest` bound a single pause."""

    patience: float = 60.0
    base: float = 0.25
    longest: float = 15.0

    def pause(self, attempt: int, asked_for: float = 0.0) -> float:
        """Exponential with full jitter, never immediate, and never less than the gateway asked for."""
        ceiling = min(self.longest, self.base * 2.0 ** (attempt - 1))
        return asked_for + random.uniform(ceiling / 10, ceiling)


class Picture(TypedDict, total=False):
    """What `submit` says of an image; docs/api.md explains each."""

    camera: str
    site: str
    pipeline: str
    captured_at: datetime
    ref: str
    meta: Mapping[str, str]
    lane: Lane
    deadline: float


class Filters(TypedDict, total=False):
    """What lists of results can be narrowed by."""

    site: str
    camera: str
    pipeline: str
    label: str
    min_score: float
    status: Status
    ref: str
    code: str
    since: datetime
    until: datetime
    q: str
    order: Literal["newest", "oldest"]


class Scope(TypedDict, total=False):
    """What a hold can name; what it does not name may be anything."""

    site: str
    camera: str
    ref: str
    result: str
    item: str
    since: datetime
    until: datetime


# ---- conversations
def ask(request: Ask, retry: Retry) -> Talk[Answer]:
    """The good answer to a request that may be repeated. Raises Refused, Overloaded, Unreachable."""
    began, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        answer = yield request
        if isinstance(answer, Answer) and answer.status not in TRY_AGAIN:
            return good(answer)
        pause = retry.pause(attempt, retry_after(answer) if isinstance(answer, Answer) else 0.0)
        if time.monotonic() - began + pause > retry.patience:
            raise given_up(answer, request)
        yield Pause(pause)


def submit(kind: str, body: bytes, said: Picture, wait: float, key: str | None, retry: Retry) -> Talk[Job]:
    """Send one image under one idempotency key, however often it takes: a lost answer never makes a second job."""
    headers = {"Content-Type": kind, "Idempotency-Key": key or str(uuid.uuid4())}
    params = query({name: value for name, value in said.items() if name != "meta"})
    params |= {f"meta.{name}": value for name, value in said.get("meta", {}).items()}
    if wait:
        params["wait"] = f"{min(wait, LONGEST_WAIT):g}"
    answer = yield from ask(Ask("POST", "/v1/images", params, headers, body, min(wait, LONGEST_WAIT)), retry)
    if answer.status == 200:
        result = msgspec.json.decode(answer.content, type=Result)
        return Job(id=result.id, status=result.status, result=result)
    return msgspec.json.decode(answer.content, type=Job)


def job(id: str, wait: float, retry: Retry) -> Talk[Job]:  # noqa: A002 - the API's word
    """What became of a job, waiting up to `wait` seconds for its result."""
    params = {"wait": f"{wait:.3f}"} if wait else {}
    answer = yield from ask(Ask("GET", f"/v1/jobs/{id}", params, wait=wait), retry)
    return msgspec.json.decode(answer.content, type=Job)


def wait(known: Job | str, timeout: float, retry: Retry) -> Talk[Result]:
    """The result of a job, completed or failed. Raises WaitTimeout."""
    if isinstance(known, Job) and known.result is not None:
        return known.result
    id = known if isinstance(known, str) else known.id  # noqa: A001 - the API's word
    deadline = time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        told = yield from job(id, min(left, LONGEST_WAIT), retry)
        if told.result is not None:
            return told.result
        if time.monotonic() >= deadline:
            raise WaitTimeout(f"the job {id} has no result after {timeout:g} s; it is kept: wait for it again", id)
        yield Pause(retry.base)  # a gateway that stops answers at once


def result(id: str, retry: Retry) -> Talk[Result]:  # noqa: A002 - the API's word
    """One result."""
    answer = yield from ask(Ask("GET", f"/v1/results/{id}"), retry)
    return msgspec.json.decode(answer.content, type=Result)


def page(filters: Filters, cursor: str | None, limit: int, retry: Retry) -> Talk[Page]:
    """One page of results."""
    params = query({**filters, "cursor": cursor, "limit": limit})
    answer = yield from ask(Ask("GET", "/v1/results", params), retry)
    return msgspec.json.decode(answer.content, type=Page)


def picture(id: str, overlay: bool, width: int | None, retry: Retry) -> Talk[bytes]:  # noqa: A002
    """The JPEG of a result."""
    params = query({"overlay": "1" if overlay else None, "width": width})
    answer = yield from ask(Ask("GET", f"/v1/results/{id}/image", params), retry)
    return answer.content


def holds(lifted: bool, retry: Retry) -> Talk[list[Hold]]:
    """Legal holds in force; with `lifted`, all that there ever were."""
    told = yield from get("/v1/holds", {"all": 1 if lifted else None}, retry)
    return msgspec.convert(told["holds"], list[Hold])


def place_hold(reason: str, scope: Scope, retry: Retry) -> Talk[Hold]:
    """Hold what fits all of `scope`. Where an answer is lost it may be held twice, which is better than not at all."""
    return _told("/v1/holds", {"reason": reason, **scope}, retry)


def lift_hold(id: str, reason: str, retry: Retry) -> Talk[Hold]:  # noqa: A002 - the API's word
    """End a hold."""
    return _told(f"/v1/holds/{id}/lift", {"reason": reason}, retry)


def _told(path: str, said: Mapping[str, Any], retry: Retry) -> Talk[Hold]:
    headers = {"Content-Type": "application/json"}
    answer = yield from ask(Ask("POST", path, headers=headers, content=msgspec.json.encode(query(said))), retry)
    return msgspec.json.decode(answer.content, type=Hold)


def get(path: str, params: Mapping[str, Any], retry: Retry) -> Talk[Any]:
    """Any other GET of the API, as plain data."""
    answer = yield from ask(Ask("GET", path, query(params)), retry)
    return msgspec.json.decode(answer.content)


# ---- what answers mean
def good(answer: Answer) -> Answer:
    """The answer, if it is one of success. Raises Refused."""
    if 200 <= answer.status < 300:
        return answer
    raise refused(answer)


def refused(answer: Answer) -> Refused:
    """The error of a refusal, from its problem JSON or, where a proxy answered, from its text."""
    try:
        told = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        told = {"detail": answer.content[:200].decode(errors="replace") or "no explanation was given"}
    code, detail = str(told.get("code", "no_code")), str(told.get("detail", told))
    if answer.status in TRY_AGAIN:
        return Overloaded(answer.status, code, detail, retry_after(answer))
    return (NotFound if answer.status == 404 else Refused)(answer.status, code, detail)


def given_up(answer: Answer | Lost | None, request: Ask) -> Refused | Unreachable:
    """The error after the last try."""
    if isinstance(answer, Answer):
        return refused(answer)
    why = answer.error if answer is not None else "no answer"
    key = request.headers.get("Idempotency-Key")
    return Unreachable(f"{request.method} {request.path}: {why}; is Eyeline running there? Start it: eyeline up", key)


def retry_after(answer: Answer) -> float:
    """What `Retry-After` asks for, in seconds; 0 where it asks for nothing that is a number."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0


def query(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text; None is left out. Raises ValueError for a time without a zone."""
    return {name: _text(name, value) for name, value in params.items() if value is not None}


def _text(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name}={value.isoformat()} has no time zone; datetime.now(UTC) has one")
        return value.isoformat()
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
