"""The promise of the result store: jobs, results, the event log and what alerts and cameras keep, in one database."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from eyeline.core.cases import Decision, Disposition, Recorded, State
from eyeline.core.types import Event, Job, Lane, Result, Status, VerdictKind
from eyeline.stores.results.retaining import Retaining, Tallies
from eyeline.stores.results.review import Doubt, Reviews


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to be kept before the 202. `body_digest` tells a changed body under the same idempotency key."""

    job: Job
    principal: str = ""  # whose idempotency key it is
    idempotency_key: str | None = None
    body_digest: str | None = None
    enqueued: bool = False


@dataclass(frozen=True, kw_only=True)
class KeptJob:
    """A `jobs` row. `existing` says that this id was kept earlier (idempotency key seen before)."""

    job: Job
    status: Status
    attempts: int
    enqueued: bool
    body_digest: str | None = None
    existing: bool = False
    principal: str = ""  # who sent it


class Prefix(str):
    """In a query: everything that begins so."""

    __slots__ = ()


Ended = Literal["completed", "failed"]
#: What words can be chosen from, beside those that settings and types name.
Word = Literal["camera", "label", "ref", "code", "by", "model"]


@dataclass(frozen=True, kw_only=True)
class ResultQuery:
    """Filters of GET /v1/results; None means any. `sites` is what the caller may see (None: all).

    The scores are those of `label`, or the best of all where none is named; `max_score` is exclusive. `site`, `camera` and
    `ref` may be a Prefix. `verdict` and `by` are about the current verdict, `none` for results without one; `model` is a
    name, a version, or name@version.
    """

    sites: Sequence[str] | None = None
    site: str | None = None
    camera: str | None = None
    pipeline: str | None = None
    label: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    status: Ended | None = None
    verdict: VerdictKind | Literal["none"] | None = None
    by: str | None = None
    model: str | None = None
    ref: str | None = None
    code: str | None = None
    since: datetime | None = None  # on captured_at, inclusive
    until: datetime | None = None  # exclusive
    cursor: str | None = None  # the last id of the page before
    oldest: bool = False  # these first, instead of the newest
    limit: int = 100


@dataclass(frozen=True)
class Bucket:
    """How many results were captured from `start` on."""

    start: datetime
    count: int


@dataclass(frozen=True, kw_only=True)
class Matches:
    """How many results a query finds, counted up to a bound (`more`: there are more), and when those were captured.

    The histogram has buckets of `width` seconds; empty ones are left out.
    """

    count: int
    more: bool
    width: int
    histogram: Sequence[Bucket]


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """How many jobs have no result yet, by lane and by camera, and since when the oldest one waits."""

    count: int
    oldest: datetime | None
    by_lane: Mapping[Lane, int] = field(default_factory=dict)
    by_camera: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AlertRow:
    """An alert as kept. `cause` is the grouping key; `state`: open, acknowledged, resolved.

    What the engine says of it (up to `body`) and what people decide (the rest, see `core.cases`) do not overwrite each
    other. `version` counts the changes that people made; `tier` the escalations that it went through.
    """

    id: str
    rule: str
    cause: str
    site: str
    severity: str
    state: State
    opened_at: datetime
    last_at: datetime  # captured_at of the newest hit
    count: int
    result_id: str
    body: Mapping[str, Any]
    disposition: Disposition | None = None
    assignee: str | None = None
    snoozed_until: datetime | None = None
    version: int = 0
    changed_at: datetime | None = None
    changed_by: str | None = None
    tier: int = 0


@dataclass(frozen=True, kw_only=True)
class AlertQuery:
    """Filters of GET /v1/alerts; None means any. `sites` is what the caller may see (None: all)."""

    sites: Sequence[str] | None = None
    states: Sequence[State] | None = None
    severity: str | None = None
    site: str | None = None
    camera: str | None = None
    rule: str | None = None
    assignee: str | None = None
    disposition: str | None = None
    result_id: str | None = None  # which raised it
    snoozed: bool | None = None  # until after `now`
    now: datetime | None = None
    since: datetime | None = None  # on opened_at, inclusive
    until: datetime | None = None  # exclusive
    cursor: str | None = None  # the last id of the page before; newest first
    limit: int = 100


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One thing that was done with an alert; rows are only ever added. `version` is the alert's after it.

    `by` is the principal, empty for one at the machine itself; `body` has `note`, and `before` and `after` where the case
    was changed.
    """

    id: str
    alert_id: str
    at: datetime
    by: str
    what: Recorded
    version: int
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What became of a decision on one alert: the alert as it is now (None: unknown, or not to be seen) and, where it is a
    conflict, why.
    """

    id: str
    alert: AlertRow | None
    outcome: Literal["changed", "unchanged", "conflict", "unknown"]
    why: str = ""


def off_state(channel: str, url: str) -> str:
    """The state that says since when and why a channel is switched off (empty: it is on). It is about this address."""
    return f"alerts/off/{channel}/{hashlib.sha256(url.encode()).hexdigest()[:16]}"


#: The state in which the alert engine keeps when it looked last (RFC 3339).
ENGINE_CHECKED = "alerts/checked"

#: pending: to be sent at `next_at` · held: by quiet hours or a snooze, until `next_at` · silenced: recorded, never sent ·
#: summarised: told in a summary instead.
DeliveryState = Literal["pending", "delivered", "failed", "held", "silenced", "summarised"]
DeliveryKind = Literal["alert", "escalation", "reminder", "summary", "report", "output", "test"]


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """One notification to one channel. Its id is the `webhook-id`, the same in every attempt.

    `alert_id` is empty where it is about no alert; `answer` is what the other side said last.
    """

    id: str
    alert_id: str
    channel: str
    payload: bytes
    captured_at: datetime
    next_at: datetime
    attempts: int = 0
    state: DeliveryState = "pending"
    last_error: str | None = None
    delivered_at: datetime | None = None
    kind: DeliveryKind = "alert"
    site: str | None = None
    answer: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeliveryQuery:
    """Filters of GET /v1/deliveries; None means any. `sites` is what the caller may see (None: all)."""

    sites: Sequence[str] | None = None
    channel: str | None = None
    state: str | None = None
    kind: str | None = None
    cursor: str | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True)
class ChannelState:
    """How a channel or an output does. `since`: when the oldest picture was captured of which something waits;
    `error`: what was said last, where the newest that was tried did not arrive.
    """

    waiting: int = 0
    held: int = 0
    since: datetime | None = None
    failed: int = 0
    delivered_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class SilenceRow:
    """Alerts that are recorded and not sent: a maintenance window, or a rule that is muted on a camera.

    It is about alerts of this `site`, `camera` and `rule` (None: any) that were captured from `since` on and before `until`,
    and, where `weekly` is not empty, within one of those times of the week (`Sat 22:00-06:00`, in the time of the site).
    """

    id: str
    reason: str
    by: str
    since: datetime
    site: str | None = None
    camera: str | None = None
    rule: str | None = None
    until: datetime | None = None
    weekly: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """An API key: only its SHA-256 is kept."""

    name: str
    sha256: str
    role: str
    sites: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class UserRow:
    """A person who may sign in. `password` is the encoded argon2id hash. Who was removed stays, so that the door stays shut."""

    name: str
    password: str
    role: str
    sites: tuple[str, ...]
    created_at: datetime
    removed_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class SessionRow:
    """Somebody signed in: only the token's SHA-256 is kept. `seen_at` is behind by up to a minute."""

    sha256: str
    user: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


#: What one bucket of time adds up to, by name: every value is a sum, so that buckets, sites and replicas can be added.
Sums = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SeriesRow:
    """The sums of one site ("" for what belongs to none) over `step` seconds from `start` (Unix seconds) on."""

    step: int
    start: int
    site: str
    sums: Sums


@dataclass(frozen=True, kw_only=True)
class LineRow:
    """How many jobs of a site and lane have no result yet, and since when the oldest one waits."""

    site: str
    lane: str
    count: int
    oldest: datetime


@dataclass(frozen=True, kw_only=True)
class ReplicaRow:
    """A process of this system as it says of itself; `id` is its role, host and pid.

    `drained_at`: since when it is to take no new work, which people say and not the process.
    """

    id: str
    role: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    body: Mapping[str, Any] = field(default_factory=dict)
    drained_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ItemRow:
    """One thing that was seen, however many frames show it. `labels`: what it bears, with scores; its own `label` among them.

    `result_id` is the result with its best score; `frames` how many results show it.
    """

    id: str
    site: str
    camera: str
    pipeline: str
    label: str
    first_at: datetime
    last_at: datetime
    frames: int
    score: float
    result_id: str
    labels: Mapping[str, float] = field(default_factory=dict)
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SightingRow:
    """An item in a result: the index of its box among the result's detections."""

    item_id: str
    result_id: str
    detection: int


@dataclass(frozen=True, kw_only=True)
class ItemQuery:
    """Filters of items; None means any. `sites` is what the caller may see (None: all)."""

    sites: Sequence[str] | None = None
    id: str | None = None
    site: str | None = None
    camera: str | None = None
    label: str | None = None
    code: str | None = None
    since: datetime | None = None  # on first_at, inclusive
    until: datetime | None = None  # exclusive
    cursor: str | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True)
class CountQuery:
    """What to count by, in buckets of so many seconds, whole minutes that divide a day. `sites`: what the caller may see.

    A bucket of a day is a day of the calendar, from midnight to midnight in the site's time zone: `zones` by site, IANA names,
    and `zone` for all others. Not counted by site, the same dates are added up and begin when they do in `zone`.
    """

    by: tuple[Literal["label", "camera", "site"], ...]
    bucket: int
    since: datetime
    until: datetime
    sites: Sequence[str] | None = None
    zones: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many in the bucket that begins at `start` (Unix seconds), for these values of what was counted by."""

    start: float
    by: Mapping[str, str | None]
    count: int


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One record of the audit. `body` is what it commits to; None, with an empty `salt`, where that was erased.

    `block` and `position` are None until it is sealed.
    """

    seq: int
    id: str
    kind: str
    at: str
    salt: bytes
    body_sha256: str
    body: bytes | None
    block: int | None = None
    position: int | None = None


@dataclass(frozen=True, kw_only=True)
class AuditBlock:
    """A sealed block: its header, the header's hash, and the hashes of its records one after the other."""

    number: int
    previous: str
    count: int
    size: int
    sealed_at: str
    root: str
    hash: str
    leaves: bytes


@dataclass(frozen=True, kw_only=True)
class RuleRow:
    """A version of a rule that people made. `body`: its settings; None: it was removed. `version` counts from 1."""

    name: str
    version: int
    at: datetime
    by: str
    body: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class RuleRecord:
    """How many alerts of a rule and a camera turned out to be what (`disposition` None: not resolved), and when the last was."""

    rule: str
    camera: str | None
    disposition: Disposition | None
    count: int
    last_at: datetime


@dataclass(frozen=True, kw_only=True)
class AlertHour:
    """How many alerts of a rule at a camera of a site were opened in the hour that begins at `start`."""

    rule: str
    camera: str | None
    site: str
    start: datetime
    count: int


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a person did: `by` is the principal, empty for one at the machine itself; `body` says the rest."""

    what: str
    by: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Who holds a name, and how often that was confirmed: a beat that does not rise is a holder that may be dead."""

    holder: str
    beat: int


class ResultStore(Reviews, Retaining, Protocol):
    """All methods raise StoreError. Writes are durable (fsynced) when they return."""

    # jobs
    async def keep_jobs(self, jobs: Sequence[NewJob]) -> list[KeptJob]:
        """Insert the jobs in one transaction, enqueued=false. Where (principal, idempotency_key) is known already, that job's row
        comes back with `existing=True` and nothing is inserted; the caller compares `body_digest`.
        """
        ...

    async def mark_enqueued(self, ids: Sequence[str]) -> None:
        """The queue has them; what is finished may be left as it is. Idempotent.

        The one write that a power cut may undo: the relay then enqueues once more.
        """
        ...

    async def forget_enqueued(self) -> int:
        """Mark every unfinished job as not enqueued, so that the relay enqueues it (again): after a restore, and wherever the
        queue was lost. Returns how many there are. Harmless where the queue still has them: their results are kept once.
        """
        ...

    async def unqueued(self, older_than: float, limit: int) -> list[Job]:
        """Jobs without a result, kept more than `older_than` seconds ago and never marked as enqueued: for the relay."""
        ...

    async def long_queued(self, older_than: float, after: str, limit: int) -> list[Job]:
        """Jobs without a result, kept more than `older_than` seconds ago and marked as enqueued: those with an id > `after`, in
        the order of ids. The queue has them, unless it lost them.
        """
        ...

    async def get_job(self, id: str) -> KeptJob | None:  # noqa: A002
        """The job's row, or None."""
        ...

    async def find_jobs(self, ids: Sequence[str]) -> dict[str, KeptJob]:
        """The rows of those ids that there are."""
        ...

    async def charge(self, id: str) -> int:  # noqa: A002
        """Charge one attempt to the image; returns how many it has now."""
        ...

    async def unfinished(self) -> Unfinished:
        """What waits for a result (indexed: cheap enough for every quarter of a second)."""
        ...

    async def named_blobs(self, urls: Sequence[str]) -> set[str]:
        """Which of those blob URLs a job names, finished or not, or a picture was kept as: the sweeper leaves these alone."""
        ...

    # results
    async def save_many(self, results: Sequence[Result], doubts: Mapping[str, Doubt] | None = None) -> set[str]:
        """Results, audit rows and event rows in one transaction; the first final result wins. Returns the ids that were new.

        Those with a doubt wait for a person's verdict from then on.
        """
        ...

    async def get(self, id: str) -> Result | None:  # noqa: A002
        """The result, or None."""
        ...

    async def get_many(self, ids: Sequence[str]) -> dict[str, Result]:
        """The results of those ids that there are."""
        ...

    async def find(self, query: ResultQuery) -> tuple[list[Result], str | None]:
        """A page, newest first (or oldest), and the cursor of the next one (None at the end). Keyset pagination by id."""
        ...

    async def matches(self, query: ResultQuery) -> Matches:
        """How many there are, and when they were captured: the newest 10 000 are looked at."""
        ...

    async def slowest(self, since: datetime, until: datetime, sites: Sequence[str] | None) -> Result | None:
        """What took longest from reception to its result, of the newest two thousand that were completed in that time."""
        ...

    async def words(self, word: Word, beginning: str, limit: int, sites: Sequence[str] | None) -> list[str]:
        """What a search could ask for, in order: those that begin so and that results of these sites bear."""
        ...

    async def latest(self, *, sites: Sequence[str] | None = None) -> dict[str, Result]:
        """The newest completed result of each camera; `sites`: what the caller may see (None: all)."""
        ...

    async def camera_counts(self) -> dict[str, dict[str, int]]:
        """For each camera: completed, failed, duplicates, in_flight, counted in the database."""
        ...

    # event log
    async def add_event(self, kind: Literal["alert", "system"], site: str, body: Mapping[str, Any]) -> None:
        """Append one event that is no result."""
        ...

    async def tail(self, after: int, limit: int, *, wait: float = 0.0) -> list[Event]:
        """Events with seq > `after`, in order, without gaps that could still fill. With `wait`, the store looks again and again
        for up to so many seconds until there are some.
        """
        ...

    async def last_seq(self) -> int:
        """The newest event's number; 0 where there is none."""
        ...

    # what the alert engine keeps
    async def load_state(self, name: str) -> bytes | None:
        """A named blob of state (cursor and windows of the alert engine)."""
        ...

    async def commit_alerts(
        self,
        *,
        state: Mapping[str, bytes],
        alerts: Sequence[AlertRow],
        deliveries: Sequence[DeliveryRow],
    ) -> None:
        """Keep alerts, insert deliveries (ON CONFLICT DO NOTHING), append one `alert` event for each alert written, and keep
        the engine's state, all in one transaction.

        Of an alert that is there already only what the engine says is written: what people decided stands, but that the
        engine may say `resolved`.
        """
        ...

    async def due_deliveries(
        self, now: datetime, limit: int, channel: str | None = None, *, but: Sequence[str] = ()
    ) -> list[DeliveryRow]:
        """Pending deliveries (of one channel, or of all but some) whose time has come, or which were never tried: those are due
        even if the clock was set back. Oldest first.
        """
        ...

    async def update_delivery(self, row: DeliveryRow) -> None:
        """Keep attempts, state, next_at, last_error, answer, delivered_at."""
        ...

    async def find_alerts(self, query: AlertQuery) -> tuple[list[AlertRow], str | None]:
        """A page of alerts, newest first, and the cursor of the next one (None at the end)."""
        ...

    async def get_alert(self, id: str) -> AlertRow | None:  # noqa: A002
        """The alert, or None."""
        ...

    async def list_deliveries(self, alert_id: str) -> list[DeliveryRow]:
        """The delivery record of an alert."""
        ...

    # cases
    async def decide(
        self, decision: Decision, versions: Mapping[str, int | None], *, sites: Sequence[str] | None = None
    ) -> list[Decided]:
        """Do the same with each of these alerts, in one transaction: case, history, audit row and `alert` event.

        `versions`: alert id → the version that was looked at (None: whichever). What is so already is left unchanged;
        a newer state is a conflict, and that alert stays as it is.
        """
        ...

    async def history(self, alert_id: str) -> list[HistoryRow]:
        """All that was done with an alert, oldest first."""
        ...

    async def step_alert(
        self, before: AlertRow, entry: HistoryRow, deliveries: Sequence[DeliveryRow], *, tier: int
    ) -> bool:
        """What the clock does to an alert: a `tier`, and the end of its snooze, with its history, event and deliveries, in one
        transaction. False, and nothing is done, where state, tier or snooze are not as in `before` any more.
        """
        ...

    async def waking(self, now: datetime, limit: int) -> list[AlertRow]:
        """Alerts that are not resolved and whose snooze is over."""
        ...

    async def site_history(self, site: str, since: datetime, until: datetime, limit: int) -> list[HistoryRow]:
        """All that was done with alerts of a site in that time, oldest first."""
        ...

    # notices
    async def get_delivery(self, id: str) -> DeliveryRow | None:  # noqa: A002
        """The delivery, or None."""
        ...

    async def find_deliveries(self, query: DeliveryQuery) -> tuple[list[DeliveryRow], str | None]:
        """A page of deliveries without their payloads, newest first, and the cursor of the next one (None at the end)."""
        ...

    async def channel_states(
        self, names: Sequence[str], *, sites: Sequence[str] | None = None
    ) -> dict[str, ChannelState]:
        """How each of these channels and outputs does, as far as it is about those sites (None: all)."""
        ...

    async def retry_delivery(self, id: str, now: datetime, action: Action) -> bool:  # noqa: A002
        """A failed delivery is due again, from the first attempt on, under its id. False where it is not a failed one."""
        ...

    async def held_deliveries(self, now: datetime, limit: int) -> list[DeliveryRow]:
        """Held deliveries whose time has come, oldest first."""
        ...

    async def summarise(self, held: Sequence[str], summary: DeliveryRow) -> None:
        """The summary instead of those held ones, in one transaction. Idempotent."""
        ...

    async def forget_deliveries(self, kind: str, before: datetime) -> int:
        """Remove delivered ones of that kind that were due before; returns how many there were."""
        ...

    async def add_silence(self, silence: SilenceRow, action: Action) -> None:
        """Keep it, recorded as that action."""
        ...

    async def end_silence(self, id: str, now: datetime, action: Action) -> bool:  # noqa: A002
        """It ends now, recorded as that action. False where it is over, or was never there."""
        ...

    async def silences(self, now: datetime) -> list[SilenceRow]:
        """Those that are not over, oldest first."""
        ...

    async def actions(self, since: datetime, until: datetime, limit: int) -> list[dict[str, Any]]:
        """What people did in that time, oldest first: `what`, `by`, `at` and the rest of each action."""
        ...

    # items
    async def commit_items(
        self, *, state: Mapping[str, bytes], items: Sequence[ItemRow], sightings: Sequence[SightingRow]
    ) -> None:
        """Upsert items with their labels and codes, add sightings (ON CONFLICT DO NOTHING) and keep the tracker's state, all in
        one transaction. Idempotent.
        """
        ...

    async def find_items(self, query: ItemQuery) -> tuple[list[ItemRow], str | None]:
        """A page, newest first, and the cursor of the next one (None at the end)."""
        ...

    async def sightings(self, item_ids: Sequence[str]) -> list[SightingRow]:
        """Which results show those items."""
        ...

    async def count_items(self, query: CountQuery) -> list[Count]:
        """How many items were first seen in each bucket; by label, an item counts once for each label that it bears."""
        ...

    async def count_results(self, query: CountQuery, *, but: Sequence[str] = ()) -> list[Count]:
        """How many completed results were captured in each bucket; by label, a result counts once for each of its labels.

        Left out are those of cameras under the pipelines `but`.
        """
        ...

    # rules
    async def add_rule(self, row: RuleRow) -> bool:
        """Keep a version of a rule; recorded as an action in the same transaction, and appended as a `system` event. False, and
        nothing is changed, where the rule has that version already: somebody else was faster.
        """
        ...

    async def rules(self) -> list[RuleRow]:
        """The newest version of every rule, by name; of removed ones, too."""
        ...

    async def rule_versions(self, name: str) -> list[RuleRow]:
        """All versions of a rule, the newest first."""
        ...

    async def rule_records(self, *, since: datetime, sites: Sequence[str] | None = None) -> list[RuleRecord]:
        """What became of the alerts opened since then, counted by rule, camera and disposition."""
        ...

    async def alert_hours(self, *, since: datetime, sites: Sequence[str] | None = None) -> list[AlertHour]:
        """When the alerts since the beginning of that hour were opened, counted by rule, camera, site and hour."""
        ...

    # audit
    async def record_action(self, action: Action) -> str:
        """Keep what a person did, with its audit row; returns the action's id."""
        ...

    async def last_block(self) -> AuditBlock | None:
        """The newest block, or None before the first one."""
        ...

    async def unsealed(self, limit: int, *, bodies: bool = False) -> list[AuditRecord]:
        """Committed records that are in no block yet, by seq; without their bodies unless asked."""
        ...

    async def seal(self, block: AuditBlock, seqs: Sequence[int], *, holder: str, lease: float) -> bool:
        """Keep the block and give its records, in this order, their places, all in one transaction, and hold the sealer's
        lease for so many seconds more. False where another one holds the lease, or sealed that number first.

        Raises StoreError where one of the records is sealed already; nothing is changed then.
        """
        ...

    async def blocks(self, after: int, limit: int) -> list[AuditBlock]:
        """Blocks with a number > `after`, in order."""
        ...

    async def sealed(self, first: int, last: int) -> list[AuditRecord]:
        """The records that say they are in those blocks (`last` included), by block and position, each with its body."""
        ...

    async def records(self, ids: Sequence[str]) -> list[AuditRecord]:
        """What commits to those results and actions, with their bodies, in the order in which they were recorded."""
        ...

    async def unaudited(self, limit: int) -> list[str]:
        """Ids of results that no audit record commits to: there are none, unless somebody put them there by hand."""
        ...

    async def add_checkpoint(self, block: int, at: str, body: bytes) -> None:
        """Keep a signed checkpoint beside the copy that its maker keeps outside. Idempotent."""
        ...

    async def checkpoints(self) -> list[bytes]:
        """All of them, in the order of their blocks."""
        ...

    async def erase(
        self, ids: Sequence[str], *, by: str = "", reason: str = "", jobs: bool = False, tallies: Tallies | None = None
    ) -> set[str]:
        """Remove those results: bodies, labels, codes, salts, what people said of them, what clients wrote on their jobs (with
        `jobs`: the jobs, too), the alerts they raised with their notifications and events, and the items that no other result
        shows. Pictures that no other job names are marked as gone, for whoever deletes blobs. The commitments stay, so that the
        audit verifies as before. Recorded as an action, and what `tallies` makes of the ids is added up, in the same
        transaction. Returns which there were.

        Queued jobs and what is under legal hold are left alone. Idempotent.
        """
        ...

    # what only one process does at a time
    async def hold(self, name: str, holder: str, seen: Holding | None = None) -> Holding:
        """Take `name` where nobody has it, where `holder` has it already, or where it still stands as `seen`: then its holder
        gave no sign in the meantime. Returns how it stands now.

        Once taken, whatever this object writes is written as its holder: it raises Superseded, in the very transaction, when
        another one has taken over. `close` gives it up.
        """
        ...

    # cameras and keys
    async def report_camera(self, name: str, site: str, body: Mapping[str, Any]) -> None:
        """Keep what a camera agent says of itself (captured, dropped by reason, spooled, state); the newest wins."""
        ...

    async def cameras(self) -> dict[str, dict[str, Any]]:
        """Camera name → its last report, with `site` and `reported_at` (RFC 3339)."""
        ...

    async def put_key(self, row: KeyRow, *, by: str = "") -> None:
        """Insert or replace by name; recorded as an action."""
        ...

    async def keys(self) -> list[KeyRow]:
        """All keys, revoked ones too."""
        ...

    async def touch_keys(self, uses: Mapping[str, datetime]) -> None:
        """Those keys, by their SHA-256, were used then; what is known of a later use stands. May be lost by a power cut."""
        ...

    async def key_uses(self) -> dict[str, datetime]:
        """When each key that was ever used was used last, by its SHA-256."""
        ...

    # people
    async def put_user(self, row: UserRow, *, by: str = "") -> None:
        """Insert or replace by name, end all of that user's sessions, and record it as an action, in one transaction."""
        ...

    async def rehash(self, name: str, old: str, new: str) -> None:
        """Replace the hash of the same password, where it is still `old`. Sessions go on."""
        ...

    async def users(self) -> list[UserRow]:
        """All of them by name, removed ones too."""
        ...

    async def begin_session(self, row: SessionRow, *, most: int, ends: str | None = None, address: str = "") -> None:
        """Keep the session, end the one whose hash is `ends`, and of this user's all but the newest `most`; forget what has
        expired. Recorded as an action, all in one transaction.
        """
        ...

    async def session(self, sha256: str) -> tuple[SessionRow, UserRow] | None:
        """The session and whose it is, or None; whether it is still valid is the caller's to say."""
        ...

    async def touch_session(self, sha256: str, seen_at: datetime) -> None:
        """It was used. May be lost by a power cut."""
        ...

    async def end_session(self, sha256: str) -> bool:
        """Forget it, recorded as an action; False where there was none."""
        ...

    # figures over time
    async def keep_state(self, name: str, value: bytes, action: Action) -> None:
        """Keep a named blob of state, and the action that changed it, in one transaction."""
        ...

    async def replace_state(self, name: str, before: bytes | None, value: bytes, action: Action) -> bool:
        """Likewise, where it is still as it was loaded. False, and nothing is kept, where somebody else changed it meanwhile."""
        ...

    async def line(self) -> list[LineRow]:
        """The line of unfinished jobs by site and lane."""
        ...

    async def series_cursor(self) -> int | None:
        """Up to which event the series has been added up; None before the first time."""
        ...

    async def add_series(self, rows: Sequence[SeriesRow], *, before: int | None, after: int) -> bool:
        """Add those sums to what is there and move the cursor from `before` to `after`, in one transaction. False, and nothing
        is added, where the cursor is elsewhere: somebody else added these.
        """
        ...

    async def add_sums(self, rows: Sequence[SeriesRow]) -> None:
        """Add sums that come from no event: what a process measured of itself."""
        ...

    async def series(self, step: int, since: int, sites: Sequence[str] | None) -> list[SeriesRow]:
        """Buckets of this step from `since` (Unix seconds) on, in the order of time."""
        ...

    async def prune_series(self, step: int, before: int) -> None:
        """Forget buckets of this step that begin before."""
        ...

    async def report_replica(self, row: ReplicaRow) -> None:
        """Keep what a process says of itself; those that were silent for a day are forgotten. That it is to take no new work
        stands until it ends: one of the same id that started later begins anew.
        """
        ...

    async def drain_replica(self, id: str, *, drained: bool, action: Action) -> bool:  # noqa: A002
        """Say that a process is to take no new work, or to work again, and record the action, in one transaction. False, and
        nothing is recorded, where there is none of this id.
        """
        ...

    async def is_drained(self, id: str) -> bool:  # noqa: A002
        """Whether this process is to take no new work."""
        ...

    async def replicas(self) -> list[ReplicaRow]:
        """All that reported within the day, by id."""
        ...

    async def upgrade(self) -> None:
        """Bring the schema to this version (Alembic). Safe to call at every start, from several processes."""
        ...

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        ...
