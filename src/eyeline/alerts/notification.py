"""What is told: the body of a notification, under 20 kB, as Standard Webhooks wants it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from eyeline.core.clock import isoformat
from eyeline.core.telemetry import printable
from eyeline.stores.results.base import AlertRow

LARGEST = 20_000

encode = msgspec.json.Encoder().encode


def opened(alert: AlertRow, result: Mapping[str, Any]) -> bytes:
    """The `alert.opened` notification with the result that opened it, as JSON of at most 20 kB.

    `text` is the whole in one line: chat systems that take a webhook show it. A result with very many boxes is
    told with the best of them, and `detections_omitted` says how many were left out.
    """
    told = dict(result)
    while len(payload := encode(_notification(alert, told))) > LARGEST:
        told = _smaller(told)
    return payload


def _notification(alert: AlertRow, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "alert.opened",
        "timestamp": isoformat(alert.opened_at),
        "text": summary(alert),
        "data": {"alert": _said(alert), "result": result},
    }


def _said(alert: AlertRow) -> dict[str, Any]:
    return {
        "id": alert.id,
        "rule": alert.rule,
        "cause": alert.body.get("group", {}),
        "site": alert.site,
        "severity": alert.severity,
        "state": alert.state,
        "opened_at": isoformat(alert.opened_at),
        "last_at": isoformat(alert.last_at),
        "count": alert.count,
        "hit": alert.body.get("hit"),
    }


def repeated(alert: AlertRow, kind: str, now: datetime) -> bytes:
    """The `alert.escalation` or `alert.reminder` of an alert that was told before."""
    since = f"since {isoformat(alert.opened_at)[:16]}Z, {alert.count} times"
    lead = "nobody acknowledged" if kind == "escalation" else "still open"
    return encode(
        {
            "type": f"alert.{kind}",
            "timestamp": isoformat(now),
            "text": f"{lead} {since}: {summary(alert)}",
            "data": {"alert": _said(alert), "result": {"id": alert.result_id}},
        }
    )


def summarised(alerts: Sequence[AlertRow], ended: datetime) -> bytes:
    """The `alert.summary` of what quiet hours held back, as JSON of at most 20 kB."""
    unresolved = sum(alert.state != "resolved" for alert in alerts)
    lines = [f"{len(alerts)} alerts in quiet hours, {unresolved} of them not resolved", *map(summary, alerts)]
    told = [_said(alert) for alert in alerts]
    while True:
        text = "\n".join(lines[: len(told) + 1])
        body = {"alerts": told, "alerts_omitted": len(alerts) - len(told)}
        payload = encode({"type": "alert.summary", "timestamp": isoformat(ended), "text": text, "data": body})
        if len(payload) <= LARGEST or not told:
            return payload
        told = told[: len(told) * 3 // 4]


def recorded(at: datetime, text: str, result: Mapping[str, Any]) -> bytes:
    """The `result.recorded` of an output, as JSON of at most 20 kB."""
    told = dict(result)
    while True:
        payload = encode(
            {"type": "result.recorded", "timestamp": isoformat(at), "text": text, "data": {"result": told}}
        )
        if len(payload) <= LARGEST:
            return payload
        told = _smaller(told)


def summary(alert: AlertRow) -> str:
    """One line for people: `critical: damaged parcel (camera belt-1, damaged 0.93), site north`."""
    cause = alert.body.get("group", {})
    group = [f"{name} {value}" for name, value in cause.items() if value is not None and name not in {"site", "label"}]
    hit = alert.body.get("hit") or {}
    if (label := hit.get("label") or cause.get("label")) is not None:
        group.append(f"{label} {hit['score']:.2f}" if hit.get("score") is not None else label)
    if hit.get("share") is not None:
        group.append(f"{hit['share']:.1%} of {hit['of']}")
    if hit.get("absent") or hit.get("slo"):
        group.append(str(hit["detail"]))
    details = f" ({', '.join(group)})" if group else ""
    return printable(f"{alert.severity}: {alert.rule}{details}, site {alert.site}")


def _smaller(result: dict[str, Any]) -> dict[str, Any]:
    """The same result with half of its boxes; without boxes, only what identifies it."""
    boxes = result.get("detections") or []
    if not boxes:
        return {key: result[key] for key in ("id", "status", "site", "camera", "captured_at") if key in result}
    best = sorted(boxes, key=lambda box: box.get("score", 0.0), reverse=True)[: len(boxes) // 2]
    omitted = result.get("detections_omitted", 0) + len(boxes) - len(best)
    return result | {"detections": best, "detections_omitted": omitted}
