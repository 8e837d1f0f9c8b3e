"""All rules over a stream of events: what is opened, updated, cleared. Pure; the engine, and the dry run, keep what comes of it.

Ids are derived from rule, cause and the result that opened a case: whoever reads the same events again gives the same ids.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from eyeline.alerts.causes import LATEST, Cause, Memory, Outcome, Silence
from eyeline.alerts.expression import Hit
from eyeline.alerts.rules import Rule, hits_in
from eyeline.core.clock import isoformat
from eyeline.core.ids import derived_id
from eyeline.core.telemetry import logger
from eyeline.core.types import Event, Result
from eyeline.stores.results.base import AlertRow

log = logger("alerts")

#: Seconds without a frame after which what is missed is said to be missed for want of frames.
NO_FRAMES = 30.0


class Change(NamedTuple):
    """What became of a case; `result`: what opened it, as it is told."""

    outcome: Outcome
    rule: Rule
    alert: AlertRow
    result: Mapping[str, Any]


def never_offline(_camera: str) -> str | None:
    """Nothing is known of cameras."""
    return None


class Evaluator:
    """Rules and their memories, by digest. `dirty`: those whose memory changed since somebody kept it."""

    def __init__(self) -> None:
        self.rules: tuple[Rule, ...] = ()
        self.memories: dict[str, Memory] = {}
        self.dirty: set[str] = set()

    def take(self, rules: Iterable[Rule], memories: Mapping[str, Memory]) -> None:
        """These are the rules from now on."""
        self.rules = tuple(rules)
        self.memories = {rule.digest: memories[rule.digest] for rule in self.rules}
        self.dirty &= self.memories.keys()

    def observe(self, event: Event) -> Iterator[Change]:
        """What an event changes."""
        if event.kind == "alert":
            self._decided(event)
            return
        try:
            hits = hits_in(event)
        except (msgspec.ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("an event cannot be read and raises no alert", seq=event.seq, error=str(error))
            return
        if not hits:
            return
        result = hits[0].result
        late = (result.received_at - result.captured_at).total_seconds() > LATEST
        about = "health" if hits[0].health is not None else "slo" if hits[0].slo is not None else "results"
        for rule in self.rules:
            if rule.about == about and self._counts(rule, event) and (not late or rule.kind == "absence"):
                yield from self._apply(rule, event, hits)

    def _counts(self, rule: Rule, event: Event) -> bool:
        """Whether the event came after the rule."""
        new = rule.since is None or event.at.timestamp() >= rule.since
        return new and event.seq > self.memories[rule.digest].since

    def _decided(self, event: Event) -> None:
        """What people decided on a case. Events of our own writing say the same, which is no news."""
        ident, resolved = str(event.body.get("id")), event.body.get("state") == "resolved"
        for rule in self.rules:
            if rule.name == event.body.get("rule"):
                memory = self.memories[rule.digest]
                key = msgspec.json.encode(event.body.get("cause")).decode()
                if memory.decide(rule, key, ident, event.at.timestamp(), resolved=resolved):
                    self.dirty.add(rule.digest)

    def _apply(self, rule: Rule, event: Event, hits: tuple[Hit, ...]) -> Iterator[Change]:
        result = hits[0].result
        captured_at = min(result.captured_at, result.received_at)  # a clock that is ahead must not end others' windows
        if hits[0].health is not None and event.body.get("state") != "began":
            yield from self._ended(rule, event, hits[0])
        elif rule.kind == "absence":
            yield from self._present(rule, hits, captured_at)
        elif rule.about == "slo":
            for hit in hits:  # each level is its own frame
                yield from self._look(rule, event, (hit,), captured_at)
        elif rule.kind == "hits" or rule.counts(hits):
            yield from self._look(rule, event, hits, captured_at)

    def _look(self, rule: Rule, event: Event, hits: tuple[Hit, ...], captured_at: datetime) -> Iterator[Change]:
        memory = self.memories[rule.digest]
        matched = rule.causes(hits)
        if not matched and rule.kind == "hits" and not memory.standing:
            return
        group = rule.cause_of(hits[0]) if rule.about == "slo" else rule.group_of(hits[0])
        if not matched and rule.kind == "hits" and group not in memory.standing:
            return
        self.dirty.add(rule.digest)
        held = rule.held(hits) if group in memory.standing else ()
        for key, cause, outcome in memory.look(rule, group, matched, held, captured_at, event.at.timestamp()):
            if outcome == "opened":
                opened = _case(
                    rule, key, matched[key], event, captured_at, _counted(rule, key, cause, memory, captured_at)
                )
                memory.opened(rule, key, cause, opened)
            if cause.alert is not None:
                yield Change(outcome, rule, cause.alert, event.body)

    def _ended(self, rule: Rule, event: Event, hit: Hit) -> Iterator[Change]:
        memory, key = self.memories[rule.digest], rule.cause_of(hit)
        if memory.end(key, event.at, f"{hit.health} ended"):
            yield from self._cleared(rule, memory, key)

    def _cleared(self, rule: Rule, memory: Memory, key: str) -> Iterator[Change]:
        self.dirty.add(rule.digest)
        alert = memory.causes[key].alert
        if alert is not None:
            yield Change("cleared", rule, alert, {})

    def _present(self, rule: Rule, hits: tuple[Hit, ...], captured_at: datetime) -> Iterator[Change]:
        if not rule.counts(hits):
            return
        memory, key = self.memories[rule.digest], rule.group_of(hits[0])
        matched = any(rule.when.test(hit) for hit in hits)
        known = key in memory.silences
        last = _brief(hits[0].result, captured_at) if matched or not known else None
        if memory.present(key, captured_at.timestamp(), last) and memory.end(key, captured_at, "it is there again"):
            yield from self._cleared(rule, memory, key)
        self.dirty.add(rule.digest)

    def tick(self, now: datetime, offline: Callable[[str], str | None] = never_offline) -> Iterator[Change]:
        """What is missed by now; `offline` says why a camera gives no frames, where that is known."""
        for rule in self.rules:
            if rule.kind == "absence":
                memory = self.memories[rule.digest]
                for key, silence in memory.missed(rule, now.timestamp()):
                    yield self._missing(rule, memory, key, silence, now.timestamp(), offline)

    def _missing(
        self, rule: Rule, memory: Memory, key: str, silence: Silence, now: float, offline: Callable[[str], str | None]
    ) -> Change:
        opened_at = datetime.fromtimestamp(silence.matched + rule.absent, UTC)
        result = msgspec.convert(silence.last, Result)
        away, reason = _why_missing(silence, now, offline(result.camera) if result.camera is not None else None)
        result = msgspec.structs.replace(result, reason=f"nothing matched for {_spoken(now - silence.matched)}{reason}")
        alert = AlertRow(
            id=derived_id(opened_at, rule.name, key, str(silence.matched)),
            rule=rule.name,
            cause=key,
            site=result.site,
            severity=rule.severity,
            state="open",
            opened_at=opened_at,
            last_at=opened_at,
            count=1,
            result_id=result.id,
            body=_body(key, Hit(result), {"absent": True, "offline": away, "detail": result.reason}),
        )
        silence.said = True
        cause = memory.causes.setdefault(key, Cause(group=key))
        cause.seen = cause.held = now
        memory.opened(rule, key, cause, alert)
        self.dirty.add(rule.digest)
        return Change("opened", rule, alert, msgspec.to_builtins(result))

    def tidy(self, now: float) -> None:
        """Forget what can no longer matter (`now`: Unix seconds)."""
        for rule in self.rules:
            if self.memories[rule.digest].tidy(rule, now):
                self.dirty.add(rule.digest)


def _brief(result: Result, captured_at: datetime) -> dict[str, Any]:
    """As much of a result as says later where something was seen last."""
    kept = Result(
        id=result.id,
        status=result.status,
        site=result.site,
        camera=result.camera,
        pipeline=result.pipeline,
        ref=result.ref,
        captured_at=captured_at,
        received_at=result.received_at,
        completed_at=result.completed_at,
        image=result.image,
    )
    told: dict[str, Any] = msgspec.to_builtins(kept)
    return told


def _why_missing(silence: Silence, now: float, why: str | None) -> tuple[bool, str]:
    """Whether the camera is offline, and the end of the sentence."""
    if why is not None:
        return True, f"; the camera is offline: {why}"
    if now - silence.seen > NO_FRAMES:
        return True, f"; no frame came for {_spoken(now - silence.seen)}"
    return False, ""


def _spoken(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _counted(rule: Rule, key: str, cause: Cause, memory: Memory, captured_at: datetime) -> tuple[int, dict[str, Any]]:
    """How many images a new case stands on; and what its share was, where one is asked for."""
    if rule.kind == "hits":
        since = captured_at.timestamp() - rule.within
        return max(rule.count, sum(since <= hit for hit in cause.hits) if rule.count > 1 else 1), {}
    frames = memory.frames[cause.group]
    if rule.kind == "frames":
        return rule.count, {"of": rule.of}
    return frames.counts.get(key, 0), {"share": round(frames.share(rule, key), 6), "of": rule.of or frames.total}


def _case(
    rule: Rule, key: str, hit: Hit, event: Event, captured_at: datetime, counted: tuple[int, dict[str, Any]]
) -> AlertRow:
    count, more = counted
    if hit.health is not None or hit.slo is not None:
        more = more | {"health": hit.health, "slo": hit.slo, "value": hit.value, "detail": hit.result.reason}
    return AlertRow(
        id=derived_id(event.at, rule.name, key, hit.result.id),
        rule=rule.name,
        cause=key,
        site=hit.result.site,
        severity=rule.severity,
        state="open",
        opened_at=captured_at,
        last_at=captured_at,
        count=count,
        result_id=hit.result.id,
        body=_body(key, hit, {name: value for name, value in more.items() if value is not None}),
    )


def _body(key: str, hit: Hit, more: Mapping[str, Any]) -> dict[str, object]:
    """What an alert keeps of its first hit."""
    result = hit.result
    said = {"label": hit.label, "score": hit.score, "area": hit.area, "step": hit.step, **more}
    return {
        "group": msgspec.json.decode(key),
        "hit": said if hit.zone is None else {**said, "zone": hit.zone},
        "camera": result.camera,
        "pipeline": result.pipeline,
        "ref": result.ref,
        "captured_at": isoformat(result.captured_at),
        "sha256": result.image.sha256 if result.image is not None else None,
    }
