"""The tables of the results database, in words that SQLite and PostgreSQL both understand.

Times are RFC 3339 text in UTC with microseconds (they sort as text), ids UUIDv7 text, bodies JSON as bytes. A change here
comes with a migration beside it: first expand, release, and only then contract.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite numbers rows only in a column that is declared INTEGER
Sequence64 = BigInteger().with_variant(Integer(), "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("camera", Text),
    Column("lane", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("body_digest", Text),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("enqueued", Boolean, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("kept_at", Float(53), nullable=False),  # Unix seconds, for the relay's age
    Column("blob_hash", BigInteger, nullable=False),  # 63 bits of the digest: an index a fifth of the URL's size
    Column("body", LargeBinary, nullable=False),
)
# written out, not bound: a partial index serves only a query that says the same words
QUEUED = text("status = 'queued'")
UNQUEUED = text("status = 'queued' AND NOT enqueued")
_keyed = text("idempotency_key IS NOT NULL")
# holds all that `unfinished` counts, and nothing finished: its cost is that of the waiting line alone
Index("jobs_queued", jobs.c.lane, jobs.c.camera, jobs.c.received_at, sqlite_where=QUEUED, postgresql_where=QUEUED)
Index("jobsUNQUEUED", jobs.c.kept_at, sqlite_where=UNQUEUED, postgresql_where=UNQUEUED)
Index(
    "jobs_key",
    jobs.c.principal,
    jobs.c.idempotency_key,
    unique=True,
    sqlite_where=_keyed,
    postgresql_where=_keyed,
)
Index("jobs_blob", jobs.c.blob_hash)

results = Table(
    "results",
    metadata,
    Column("id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("camera", Text),
    Column("pipeline", Text, nullable=False),
    Column("ref", Text),
    Column("captured_at", Text, nullable=False),
    Column("top_score", Float(53), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("models", Text),  # the key of who answered, in `model_sets`; NULL where a release before wrote it
)
_with_ref = text("ref IS NOT NULL")
_with_camera = text("camera IS NOT NULL")
_failed = text("status = 'failed'")
_with_models = text("models IS NOT NULL")
Index("results_site", results.c.site, results.c.id)
Index("results_captured", results.c.captured_at)
Index(
    "results_camera",
    results.c.camera,
    results.c.id,
    sqlite_where=_with_camera,
    postgresql_where=_with_camera,
)
Index("results_ref", results.c.ref, results.c.id, sqlite_where=_with_ref, postgresql_where=_with_ref)
# what no other index leads to is looked for here: a tenth of the room that the results themselves take
Index(
    "results_found",
    results.c.id,
    results.c.captured_at,
    results.c.top_score,
    results.c.site,
    results.c.camera,
    results.c.pipeline,
    results.c.status,
)
Index("results_failed", results.c.id, sqlite_where=_failed, postgresql_where=_failed)
Index("results_failed_camera", results.c.camera, results.c.id, sqlite_where=_failed, postgresql_where=_failed)
# for scores that few reach: what many reach is found on the way through the newest
Index("results_score", results.c.top_score)
#: Indexes over functions that PostgreSQL alone has (migration 0009).
POSTGRESQL_ONLY = {"results_odd"}
#: How the names of its partitions of this table begin (migration 0011).
PARTITION = "results_"

Index("results_models", results.c.models, results.c.id, sqlite_where=_with_models, postgresql_where=_with_models)

# which models answer together: a few rows for as many results as there are
model_sets = Table(
    "model_sets",
    metadata,
    Column("key", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# one row for each label of a result, with its best score
result_labels = Table(
    "result_labels",
    metadata,
    Column("label", Text, primary_key=True),
    Column("result_id", Text, primary_key=True),
    Column("score", Float(53), nullable=False),
    sqlite_with_rowid=False,
)
Index("result_labels_score", result_labels.c.label, result_labels.c.score)
result_codes = Table(
    "result_codes",
    metadata,
    Column("code", Text, primary_key=True),
    Column("result_id", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# a result's event has no body of its own: it is the result
events = Table(
    "events",
    metadata,
    Column("seq", Sequence64, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("result_id", Text),
    Column("body", LargeBinary),
    sqlite_autoincrement=True,
)

_alert = text("kind = 'alert'")
Index("events_alert", events.c.seq, sqlite_where=_alert, postgresql_where=_alert)

# PostgreSQL: committed, not yet numbered (see migration 0002). SQLite's one writer numbers in the order of commits anyway
new_events = Table(
    "new_events",
    metadata,
    Column("number", Sequence64, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("result_id", Text),
    Column("body", LargeBinary),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Sequence64, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("body_sha256", Text, nullable=False),  # of salt and body together
    Column("block", BigInteger),  # where it is sealed; both are NULL until then
    Column("position", Integer),
    sqlite_autoincrement=True,
)
# what waits to be sealed lies together at the end of NULL; what is sealed, in the order of its blocks
Index("audit_block", audit.c.block, audit.c.position, audit.c.seq)
Index("audit_id", audit.c.id)

# `leaves`: 32 bytes a record. Proven by `root`, they tell which record of a block is not the one that was sealed
audit_blocks = Table(
    "audit_blocks",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),  # records up to its end
    Column("sealed_at", Text, nullable=False),
    Column("root", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("leaves", LargeBinary, nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# what people did: the bodies behind the audit rows of kind `action`
actions = Table(
    "actions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# what people said of results, in the order of time; the bodies are the actions of the same ids
verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("result_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("undoes", Text),
    Column("undone_by", Text),
    Column("request_key", Text),
    Column("digest", Text, nullable=False),
)
_requested = text("request_key IS NOT NULL")
Index("verdicts_result", verdicts.c.result_id, verdicts.c.id)
Index(
    "verdicts_key",
    verdicts.c.reviewer,
    verdicts.c.request_key,
    unique=True,
    sqlite_where=_requested,
    postgresql_where=_requested,
)

# one row for each result that waits for a decision or has one: what a look at a million others must not cost
reviews = Table(
    "reviews",
    metadata,
    Column("result_id", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("value", Float(53)),  # what a look is worth; NULL where nobody asked for one
    Column("reason", Text),
    Column("verdict", Text),
    Column("reviewer", Text),
    Column("body", LargeBinary),  # the current verdict, as results carry it
    Column("held_by", Text),
    Column("held_until", Float(53)),  # Unix seconds
)
UNDECIDED = text("value IS NOT NULL AND (verdict IS NULL OR verdict = 'unsure')")
_judged = text("verdict IS NOT NULL")
# all that the look for the next ones reads
Index(
    "reviews_waiting",
    reviews.c.value,
    reviews.c.result_id,
    reviews.c.site,
    sqlite_where=UNDECIDED,
    postgresql_where=UNDECIDED,
)
Index("reviews_verdict", reviews.c.verdict, reviews.c.result_id, sqlite_where=_judged, postgresql_where=_judged)
Index("reviews_reviewer", reviews.c.reviewer, reviews.c.result_id, sqlite_where=_judged, postgresql_where=_judged)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Float(53), nullable=False),  # Unix seconds
)

# who does what only one process may do at a time; a holder that lives raises its beat, and nobody's clock is asked
holders = Table(
    "holders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

# counted in the transaction that saves: adding up a million results takes too long
camera_counts = Table(
    "camera_counts",
    metadata,
    Column("camera", Text, primary_key=True),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
)

states = Table(
    "states",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

_zero = text("0")

# from `disposition` on: what people decided; the engine writes none of it
alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("result_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("camera", Text),  # the body's, to be looked for
    Column("disposition", Text),
    Column("assignee", Text),
    Column("snoozed_until", Text),
    Column("version", Integer, nullable=False, server_default=_zero),
    Column("changed_at", Text),
    Column("changed_by", Text),
    Column("tier", Integer, nullable=False, server_default=_zero),
)
UNRESOLVED = text("state <> 'resolved'")
Index("alerts_unresolved", alerts.c.opened_at, sqlite_where=UNRESOLVED, postgresql_where=UNRESOLVED)

_asleep = text("snoozed_until IS NOT NULL")
Index("alerts_snoozed", alerts.c.snoozed_until, sqlite_where=_asleep, postgresql_where=_asleep)

# what was done with an alert, by whom and when; rows are only ever added
alert_history = Table(
    "alert_history",
    metadata,
    Column("id", Text, primary_key=True),
    Column("alert_id", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("alert_history_alert", alert_history.c.alert_id, alert_history.c.id)

Index("alerts_result", alerts.c.result_id)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("alert_id", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("captured_at", Text, nullable=False),
    Column("next_at", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("last_error", Text),
    Column("delivered_at", Text),
    Column("kind", Text, nullable=False, server_default=text("'alert'")),
    Column("site", Text),
    Column("answer", Text),
)
PENDING = text("state = 'pending'")
HELD = text("state = 'held'")
FAILED = text("state = 'failed'")
Index("deliveries_due", deliveries.c.next_at, sqlite_where=PENDING, postgresql_where=PENDING)
# each channel has a line of its own, or a long one would hide the others
Index("deliveries_line", deliveries.c.channel, deliveries.c.next_at, sqlite_where=PENDING, postgresql_where=PENDING)
Index("deliveries_held", deliveries.c.next_at, sqlite_where=HELD, postgresql_where=HELD)
Index("deliveries_alert", deliveries.c.alert_id)
# how a channel does is told by its newest ones, however many others have
Index("deliveries_channel", deliveries.c.channel, deliveries.c.id)
Index("deliveries_failed", deliveries.c.id, sqlite_where=FAILED, postgresql_where=FAILED)

# every version of every rule that people made; without a body it was removed
rules = Table(
    "rules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("body", LargeBinary),
)

silences = Table(
    "silences",
    metadata,
    Column("id", Text, primary_key=True),
    Column("site", Text),
    Column("camera", Text),
    Column("rule", Text),
    Column("since", Text, nullable=False),
    Column("until", Text),
    Column("weekly", Text, nullable=False),  # a JSON list
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
)

cameras = Table(
    "cameras",
    metadata,
    Column("name", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("reported_at", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("sites", Text, nullable=False),  # a JSON list
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
)

# when a key was shown last; of those in the settings, too
key_uses = Table(
    "key_uses",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("used_at", Text, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("password", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("sites", Text, nullable=False),  # a JSON list
    Column("created_at", Text, nullable=False),
    Column("removed_at", Text),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("user", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
)
Index("sessions_user", sessions.c.user, sessions.c.created_at)

# figures over time: one row for each step of time and site, its sums as JSON
series = Table(
    "series",
    metadata,
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("site", Text, primary_key=True),
    Column("sums", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("drained_at", Text),  # since when it is to take no new work
)

# one row for each thing that tracking made of many results
items = Table(
    "items",
    metadata,
    Column("id", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("camera", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("score", Float(53), nullable=False),
    Column("result_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("items_first", items.c.first_at)

item_labels = Table(
    "item_labels",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("score", Float(53), nullable=False),
    sqlite_with_rowid=False,
)
item_codes = Table(
    "item_codes",
    metadata,
    Column("code", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    sqlite_with_rowid=False,
)
item_sightings = Table(
    "item_sightings",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("result_id", Text, primary_key=True),
    Column("detection", Integer, nullable=False),
    sqlite_with_rowid=False,
)
Index("sightings_result", item_sightings.c.result_id)  # what shows an item may be removed

# what is kept of a picture whose original is not; `pending`: blobs that are not wanted any more wait to be deleted
pictures = Table(
    "pictures",
    metadata,
    Column("url", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("pending", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
TO_DROP = text("pending")
Index("pictures_pending", pictures.c.at, sqlite_where=TO_DROP, postgresql_where=TO_DROP)
# the blobs that were made of it
picture_blobs = Table(
    "picture_blobs",
    metadata,
    Column("url", Text, primary_key=True),
    Column("picture", Text, primary_key=True),
    sqlite_with_rowid=False,
)
Index("picture_blobs_picture", picture_blobs.c.picture)

holds = Table(
    "holds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("placed_at", Text, nullable=False),
    Column("lifted_at", Text),
    Column("body", LargeBinary, nullable=False),
)

# what came and went, added up by day in the transactions that do it
tallies = Table(
    "tallies",
    metadata,
    Column("day", Text, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("saved", BigInteger, nullable=False),
    Column("seconds", Float(53), nullable=False),
)
