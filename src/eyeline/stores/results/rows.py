"""Between the words of Eyeline and the rows of the results database, both ways."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec

from eyeline.core.clock import isoformat, parse_time
from eyeline.core.types import ASIDE, ChainRef, Event, Job, ModelRef, Result, Verdict
from eyeline.stores.results.base import (
    AlertRow,
    DeliveryRow,
    HistoryRow,
    KeptJob,
    KeyRow,
    NewJob,
    ReplicaRow,
    SeriesRow,
    SessionRow,
    SilenceRow,
    UserRow,
)

Row = Mapping[Any, Any]

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode
_job = msgspec.json.Decoder(Job).decode
_result = msgspec.json.Decoder(Result).decode
_verdict = msgspec.json.Decoder(Verdict).decode

_SALT_BYTES = 16


def blob_hash(sha256: str) -> int:
    """63 bits of a digest as a number: what the index on blobs holds. Anything that is no digest counts as 0."""
    try:
        return int(sha256[:16], 16) >> 1
    except ValueError:
        return 0


def job_row(new: NewJob, kept_at: float) -> dict[str, Any]:
    """The `jobs` row of a new job."""
    job = new.job
    return {
        "id": job.id,
        "site": job.site,
        "camera": job.camera if job.aside is None else None,  # none of the frames that a camera is answerable for
        "lane": job.lane,
        "principal": new.principal,
        "idempotency_key": new.idempotency_key,
        "body_digest": new.body_digest,
        "status": "queued",
        "attempts": 0,
        "enqueued": new.enqueued,
        "received_at": isoformat(job.received_at),
        "kept_at": kept_at,
        "blob_hash": blob_hash(job.blob.sha256),
        "body": encode(job),
    }


def kept_job(row: Row, *, existing: bool = False) -> KeptJob:
    """A `jobs` row as it is told."""
    return KeptJob(
        job=_job(row["body"]),
        status=row["status"],
        attempts=row["attempts"],
        enqueued=bool(row["enqueued"]),
        body_digest=row["body_digest"],
        existing=existing,
        principal=row["principal"],
    )


def job_of(body: bytes) -> Job:
    """The job in a row's body."""
    return _job(body)


def result_of(body: bytes) -> Result:
    """The result in a row's body."""
    return _result(body)


def sealed_result(row: Row) -> Result:
    """The result in a row with the place at which it is sealed and its current verdict, where it has them yet."""
    result = _result(row["body"])
    if row["block"] is None and row["verdict"] is None:
        return result
    chain = None if row["block"] is None else ChainRef(block=row["block"], position=row["position"])
    verdict = None if row["verdict"] is None else _verdict(row["verdict"])
    return msgspec.structs.replace(result, chain=chain, verdict=verdict)


def result_row(result: Result, labels: Sequence[Row]) -> dict[str, Any]:
    """The `results` row; `labels` are its rows in `result_labels`.

    What was answered aside is in no count and no list of a status: it has one of its own there.
    """
    return {
        "id": result.id,
        "status": ASIDE if result.aside else result.status,
        "site": result.site,
        "camera": result.camera,
        "pipeline": result.pipeline,
        "ref": result.ref,
        "captured_at": isoformat(result.captured_at),
        "top_score": max((row["score"] for row in labels), default=0.0),
        "body": encode(result),
        "models": models_key(result.models) if result.models else None,
    }


def models_key(models: Sequence[ModelRef]) -> str:
    """The same for the same models in the same order."""
    return hashlib.sha256(encode([(model.name, model.version) for model in models])).hexdigest()[:12]


def model_rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Who answered, once for each set of models."""
    sets = {models_key(result.models): result.models for result in results if result.models}
    return [{"key": key, "name": model.name, "version": model.version} for key in sorted(sets) for model in sets[key]]


def label_rows(result: Result) -> list[dict[str, Any]]:
    """One row for each label, with its best score; labels of crops (in `attributes`) among them."""
    best: dict[str, float] = {}
    for label, score in _labels(result):
        best[label] = max(score, best.get(label, 0.0))
    return [{"label": label, "result_id": result.id, "score": score} for label, score in best.items()]


def _labels(result: Result) -> Iterable[tuple[str, float]]:
    for classification in result.classifications:
        yield classification.label, classification.score
    for detection in result.detections:
        yield detection.label, detection.score
        if detection.attributes:
            yield from _crop_labels(detection.attributes)


def _crop_labels(attributes: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Labels that later steps gave a crop: `{step: {"label", "score"}}` or a list of such."""
    for value in attributes.values():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, Mapping) and "label" in entry:
                yield str(entry["label"]), float(entry.get("score", 0.0))


def code_rows(result: Result) -> list[dict[str, Any]]:
    """One row for each different barcode text."""
    texts = {code.text for code in result.codes}
    return [{"code": text, "result_id": result.id} for text in texts]


def event_row(result: Result, at: str) -> dict[str, Any]:
    """The event of a result; its body is the result itself. What was answered aside is no news for rules, items and cameras."""
    if result.aside:
        told = {"type": ASIDE, "id": result.id, "replay_of": result.replay_of, "status": result.status}
        return {"kind": "system", "site": result.site, "at": at, "result_id": None, "body": encode(told)}
    return {"kind": "result", "site": result.site, "at": at, "result_id": result.id, "body": None}


def audit_rows(entries: Sequence[tuple[str, bytes]], kind: str, at: str) -> list[dict[str, Any]]:
    """A salted commitment to each body: the record can be erased and the chain of commitments still verifies."""
    salts = os.urandom(_SALT_BYTES * len(entries))
    rows = []
    for index, (ident, body) in enumerate(entries):
        salt = salts[index * _SALT_BYTES : (index + 1) * _SALT_BYTES]
        digest = hashlib.sha256(salt + body).hexdigest()
        rows.append({"id": ident, "kind": kind, "at": at, "salt": salt, "body_sha256": digest})
    return rows


def count_rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """What these results add to their cameras' counts."""
    counts: dict[str, dict[str, Any]] = {}
    for result in results:
        if result.camera is None or result.aside:
            continue
        row = counts.setdefault(result.camera, {"camera": result.camera, "completed": 0, "failed": 0, "duplicates": 0})
        row[result.status] += 1
        row["duplicates"] += result.duplicate_of is not None
    return [counts[camera] for camera in sorted(counts)]  # rows are locked in one order by everybody


def event_of(row: Row) -> Event:
    """An event with its body: its own, or the result it stands for (only the id, where that was erased since)."""
    body = row["body"] if row["result_id"] is None else row["result_body"]
    told = decode(body) if body is not None else {"id": row["result_id"], "erased": True}
    return Event(seq=row["seq"], kind=row["kind"], site=row["site"], at=parse_time(row["at"]), body=told)


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else isoformat(moment)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)


def alert_row(alert: AlertRow) -> dict[str, Any]:
    """The `alerts` row."""
    return asdict(alert) | {
        "opened_at": isoformat(alert.opened_at),
        "last_at": isoformat(alert.last_at),
        "snoozed_until": _when(alert.snoozed_until),
        "changed_at": _when(alert.changed_at),
        "body": encode(alert.body),
        "camera": alert.body.get("camera"),
    }


def alert_of(row: Row) -> AlertRow:
    """An alert as kept."""
    values = {name: value for name, value in row.items() if name != "camera"}
    values.update(
        opened_at=parse_time(row["opened_at"]),
        last_at=parse_time(row["last_at"]),
        snoozed_until=_moment(row["snoozed_until"]),
        changed_at=_moment(row["changed_at"]),
        body=decode(row["body"]),
    )
    return AlertRow(**values)


def alert_event(alert: AlertRow, at: str) -> dict[str, Any]:
    """The event of an alert: the whole of it."""
    body = alert_row(alert) | {"body": alert.body, "cause": alert.body.get("group", {})}
    return {"kind": "alert", "site": alert.site, "at": at, "result_id": None, "body": encode(body)}


def history_row(entry: HistoryRow) -> dict[str, Any]:
    """The `alert_history` row."""
    return asdict(entry) | {"at": isoformat(entry.at), "body": encode(entry.body)}


def history_of(row: Row) -> HistoryRow:
    """An entry as kept."""
    return HistoryRow(**dict(row) | {"at": parse_time(row["at"]), "body": decode(row["body"])})


def delivery_row(delivery: DeliveryRow) -> dict[str, Any]:
    """The `deliveries` row."""
    return asdict(delivery) | {
        "captured_at": isoformat(delivery.captured_at),
        "next_at": isoformat(delivery.next_at),
        "delivered_at": _when(delivery.delivered_at),
    }


def delivery_of(row: Row) -> DeliveryRow:
    """A delivery as kept."""
    values = dict(row)
    values.update(
        captured_at=parse_time(row["captured_at"]),
        next_at=parse_time(row["next_at"]),
        delivered_at=_moment(row["delivered_at"]),
    )
    return DeliveryRow(**values)


def silence_row(silence: SilenceRow) -> dict[str, Any]:
    """The `silences` row."""
    return asdict(silence) | {
        "since": isoformat(silence.since),
        "until": _when(silence.until),
        "weekly": encode(silence.weekly).decode(),
    }


def silence_of(row: Row) -> SilenceRow:
    """A silence as kept."""
    values = dict(row)
    values.update(since=parse_time(row["since"]), until=_moment(row["until"]), weekly=tuple(decode(row["weekly"])))
    return SilenceRow(**values)


def key_row(key: KeyRow) -> dict[str, Any]:
    """The `keys` row."""
    return asdict(key) | {
        "sites": encode(key.sites).decode(),
        "created_at": isoformat(key.created_at),
        "expires_at": _when(key.expires_at),
        "revoked_at": _when(key.revoked_at),
    }


def key_of(row: Row) -> KeyRow:
    """A key as kept."""
    values = dict(row)
    values.update(
        sites=tuple(decode(row["sites"])),
        created_at=parse_time(row["created_at"]),
        expires_at=_moment(row["expires_at"]),
        revoked_at=_moment(row["revoked_at"]),
    )
    return KeyRow(**values)


def user_row(user: UserRow) -> dict[str, Any]:
    """The `users` row."""
    return asdict(user) | {
        "sites": encode(user.sites).decode(),
        "created_at": isoformat(user.created_at),
        "removed_at": _when(user.removed_at),
    }


def user_of(row: Row) -> UserRow:
    """A user as kept."""
    values = {name: row[name] for name in ("name", "password", "role")}
    return UserRow(
        **values,
        sites=tuple(decode(row["sites"])),
        created_at=parse_time(row["created_at"]),
        removed_at=_moment(row["removed_at"]),
    )


def session_row(session: SessionRow) -> dict[str, Any]:
    """The `sessions` row."""
    moments = {name: isoformat(getattr(session, name)) for name in ("created_at", "seen_at", "expires_at")}
    return asdict(session) | moments


def session_of(row: Row) -> SessionRow:
    """A session as kept."""
    moments = {name: parse_time(row[name]) for name in ("created_at", "seen_at", "expires_at")}
    return SessionRow(sha256=row["sha256"], user=row["user"], **moments)


def series_of(row: Row) -> SeriesRow:
    """A bucket of figures as kept."""
    return SeriesRow(step=row["step"], start=row["start"], site=row["site"], sums=decode(row["sums"]))


def replica_row(replica: ReplicaRow) -> dict[str, Any]:
    """The `replicas` row."""
    moments = {name: isoformat(getattr(replica, name)) for name in ("started_at", "seen_at")}
    drained = None if replica.drained_at is None else isoformat(replica.drained_at)
    return asdict(replica) | moments | {"body": encode(replica.body), "drained_at": drained}


def replica_of(row: Row) -> ReplicaRow:
    """A process as it reported."""
    moments = {name: parse_time(row[name]) for name in ("started_at", "seen_at", "drained_at") if row[name] is not None}
    return ReplicaRow(**{**row, **moments, "body": decode(row["body"])})
