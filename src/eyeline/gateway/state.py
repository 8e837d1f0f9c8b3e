"""What the routes of one gateway share."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from eyeline.core.access import Principal, Right, reach
from eyeline.core.errors import BlobError, EyelineError, NotFound
from eyeline.core.ids import is_uuid
from eyeline.core.pages import SESSION, Page
from eyeline.core.rulebook import Rulebook
from eyeline.core.settings import CameraSettings, Settings
from eyeline.core.telemetry import printable
from eyeline.core.types import Result
from eyeline.gateway.answers import Answers
from eyeline.gateway.auth import Keyring
from eyeline.gateway.export_jobs import ExportJobs
from eyeline.gateway.fetch import Fetcher
from eyeline.gateway.follow import Follower
from eyeline.gateway.ingest import Intake
from eyeline.gateway.limits import Admission, ByteBudget
from eyeline.gateway.params import Known
from eyeline.gateway.rates import RateLimit
from eyeline.gateway.recorder import Recorder
from eyeline.gateway.relay import Relay
from eyeline.gateway.report import Operations
from eyeline.gateway.rollouts import Rollouts
from eyeline.gateway.sessions import Sessions
from eyeline.inference.servers import Servers
from eyeline.queues.base import Queue
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache.base import Cache, SharedBuckets
from eyeline.stores.cache.definitions import Definitions
from eyeline.stores.results.base import ResultStore

Report = Callable[[], Awaitable[dict[str, Any]]]
#: Makes the bytes of an evidence pack of these results, for whoever asks.
Evidence = Callable[[ResultStore, BlobStore, Sequence[Result], str], AsyncIterator[bytes]]

#: Bytes of request bodies in memory at once: ten of the largest images, and never under 256 MB.
BODIES = 256_000_000


Models = Callable[[], Awaitable[Sequence[str]]]


async def nothing_measured() -> dict[str, Any]:
    """The service level report where none was given."""
    return {"rows": []}


async def nothing_counted() -> dict[str, Any]:
    """The storage report where none was given."""
    return {}


async def all_ready() -> Sequence[str]:
    """No model is known to be unready, where nobody can be asked."""
    return ()


Look = tuple[str, bool, str]
Diagnose = Callable[[CameraSettings], Awaitable[Sequence[Look]]]


async def no_look(_: CameraSettings) -> Sequence[Look]:
    """Where nobody here can look."""
    return [("open", False, "this gateway cannot look at cameras; run: eyeline cameras test URL")]


@dataclass
class State:
    """The backends, and what stands between them and the routes."""

    settings: Settings
    blobs: BlobStore
    results: ResultStore
    queue: Queue
    cache: Cache
    slo: Report = nothing_measured
    storage: Report = nothing_counted
    #: Asks the inference service for the models that are not ready.
    models: Models = all_ready
    #: Reads and tries rules; None: this gateway keeps none.
    rules: Rulebook | None = None
    #: Pages from elsewhere, served behind the same door.
    pages: Sequence[Page] = ()
    #: Makes evidence packs; None where nobody can.
    evidence: Evidence | None = None
    #: The inference servers, where there is somebody to ask.
    servers: Servers | None = None
    #: Changes which versions serve; the page's own, so that one change at a time is made.
    rollouts: Rollouts | None = None
    #: Looks at a camera from here: what was looked at, whether it is well, a sentence.
    diagnose: Diagnose = no_look
    known: Known = field(init=False)
    keyring: Keyring = field(init=False)
    sessions: Sessions = field(init=False)
    rate: RateLimit = field(init=False)
    admission: Admission = field(init=False)
    budget: ByteBudget = field(init=False)
    follower: Follower = field(init=False)
    relay: Relay = field(init=False)
    intake: Intake = field(init=False)
    fetcher: Fetcher = field(init=False)
    answers: Answers = field(init=False)
    recorder: Recorder = field(init=False)
    operations: Operations = field(init=False)
    definitions: Definitions = field(init=False)
    exports: ExportJobs = field(init=False)
    #: What is not working now, by part: filled by whoever notices, named by /readyz.
    troubles: dict[str, str] = field(default_factory=dict)
    #: What each camera's agent said last of its health to this gateway: condition → sentence.
    camera_health: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Models whose jobs wait now. They do not make the gateway unready: it keeps what it is given, up to its bound.
    unready_models: Sequence[str] = ()
    #: Pipelines that no worker runs now; their jobs wait, too.
    unready_pipelines: Sequence[str] = ()

    def noticed(self, error: Exception) -> None:
        """A request failed; remember it if that is about a part of ours. Whoever watches the part forgets it again."""
        if isinstance(error, BlobError) and error.transient:
            self.troubles["blobs"] = str(error)

    def sharing(self) -> list[Coroutine[Any, Any, None]]:
        """What makes the limits those of all gateways together, to be run for ever; nothing where they share no cache."""
        cache = self.cache
        limits = (self.rate, *self.sessions.limits)
        return [limit.share(cache) for limit in limits] if isinstance(cache, SharedBuckets) else []

    def __post_init__(self) -> None:
        gateway = self.settings.gateway
        self.known = Known(self.settings)
        self.unready_pipelines = sorted(self.known.pipelines)  # until the first look
        self.keyring = Keyring(self.settings.keys, self.results)
        self.sessions = Sessions(gateway, self.results)
        self.rate = RateLimit(gateway.rate)
        self.admission = Admission(self.results, max_unfinished=gateway.max_unfinished, max_wait=gateway.max_wait)
        self.budget = ByteBudget(max(BODIES, 10 * gateway.max_bytes))
        self.follower = Follower(self.results, self.admission.completed, lambda: self.admission.busy)
        self.relay = Relay(self.queue, self.results, lambda: self.admission.busy)
        self.answers = Answers(self.cache)
        self.recorder = Recorder(self.results, self.admission)
        self.exports = ExportJobs(self.settings.data_dir, self.results)
        self.operations = Operations(self.settings, self.results, self.servers)
        digests = {pipeline.name: pipeline.digest for pipeline in self.settings.pipelines}
        self.definitions = Definitions(self.cache, digests)
        self.intake = Intake(
            self.blobs,
            self.results,
            self.answers,
            self.admission,
            digests=digests,
            max_bytes=gateway.max_bytes,
            max_pixels=gateway.max_pixels,
        )
        self.fetcher = Fetcher(gateway.fetch_allow, gateway.max_bytes)


def state_of(request: Request) -> State:
    """The state of the gateway that serves this request."""
    state: State = request.app.state.eyeline
    return state


def authenticated(state: State, scope: Any) -> Principal:
    """Who sends this request, within the rate of that key or person; from here on the store shows it those sites alone.
    Raises Unauthorised, Overloaded.
    """
    who = state.keyring.authenticate(scope["headers"], scope.get(SESSION))
    reach.set(who.sites)
    client = scope.get("client")
    state.rate.take(who.name or f"address {client[0] if client else ''}")
    return who


async def still_valid(state: State, scope: Any) -> bool:
    """Whether whoever sent this request some time ago may still do so."""
    try:
        session = await state.sessions.recognise(dict(scope["headers"]), counts=False) if scope.get(SESSION) else None
        state.keyring.authenticate(scope["headers"], session)
    except EyelineError:
        return False
    return True


def allowed(right: Right | None) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency: the caller, if its role carries the right (None: any role will do)."""

    async def caller(request: Request) -> Principal:
        who = authenticated(state_of(request), request.scope)
        if right is not None:
            who.need(right)
        return who

    return caller


def checked_id(kind: str, id: str) -> str:  # noqa: A002
    """The id, if it can be one. Raises NotFound otherwise, as for one that does not exist."""
    if not is_uuid(id):
        raise unknown_id(kind, id)
    return id


def unknown_id(kind: str, id: str) -> NotFound:  # noqa: A002
    """The one answer for an id that does not exist and for one that the caller may not see."""
    return NotFound(f"no {kind} has the id {printable(id, 60)!r}, or it is not visible to this key")
