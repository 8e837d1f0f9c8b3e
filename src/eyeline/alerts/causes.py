"""What a rule remembers: the hits of each cause, the frames they are among, what is missed, and the running cases. Pure.

Windows and cool-downs are measured on captured_at, so the answer is the same whenever, and however often, an event is read.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from math import ceil
from typing import Any, Literal

import msgspec

from eyeline.alerts.rules import Rule
from eyeline.core.clock import isoformat
from eyeline.stores.results.base import AlertRow

#: A frame that arrives later than this after its capture (seconds) is recorded, but nobody is called for it.
LATEST = 60.0
#: Causes remembered for a rule; above it those that were quiet longest are forgotten.
MOST_CAUSES = 10_000
#: Moments that all causes of a rule remember together.
MOST_MOMENTS = 2_000_000
#: Parts that a window of time is counted in, where a share of all is asked for.
PARTS = 60
#: Frames of a place that was quiet this long (seconds) are forgotten.
QUIET = 7 * 86_400.0

Outcome = Literal["opened", "updated", "cleared"]


class Cause(msgspec.Struct):
    """One cause of one rule.

    `hits`: captured_at (Unix seconds) of those that may still share a window, sorted; `alert`: its last case; `seen`: when the
    last hit was recorded; `group`: where its frames are from; `held`: when it was last seen to stand; `ended`: since when its
    case has ended, by itself or because a person said so (`resolved`).
    """

    hits: list[float] = []
    alert: AlertRow | None = None
    seen: float = 0.0
    group: str = ""
    held: float = 0.0
    ended: float | None = None
    resolved: bool = False

    def covers(self, rule: Rule, captured: float) -> bool:
        """Whether a hit of that time is still one of the last case: then nobody is told again."""
        if self.alert is None:
            return False
        if self.ended is not None:
            return captured < self.ended + (min(rule.cooldown, LATEST) if self.resolved else rule.cooldown)
        quiet = max(rule.cooldown, LATEST) if rule.clears else rule.cooldown
        return captured < max(self.alert.last_at.timestamp(), self.held if rule.clears else 0.0) + quiet


class Frames(msgspec.Struct):
    """The last frames of one place: when each was captured, and which causes it matched. Where a window of time is asked for,
    only how many there were in each of its parts.
    """

    frames: list[tuple[float, tuple[str, ...]]] = []
    parts: dict[int, tuple[int, dict[str, int]]] = {}
    counts: dict[str, int] = {}
    total: int = 0
    seen: float = 0.0

    def add(self, rule: Rule, captured: float, matched: tuple[str, ...], seen: float) -> None:
        """Count a frame, and forget what is beyond the window."""
        self.seen = max(self.seen, seen)
        if rule.of is None:
            self._add_part(captured, matched, rule.within / PARTS)
            return
        insort(self.frames, (captured, matched))
        self._count(matched, 1)
        while len(self.frames) > (rule.of if rule.share is not None else 2 * rule.of):
            self._count(self.frames.pop(0)[1], -1)

    def _add_part(self, captured: float, matched: tuple[str, ...], width: float) -> None:
        number = int(captured // max(width, 0.001))
        newest = max(self.parts, default=number)
        if number <= newest - PARTS:
            return
        total, counts = self.parts.setdefault(number, (0, {}))
        for key in matched:
            counts[key] = counts.get(key, 0) + 1
        self.parts[number] = (total + 1, counts)
        self._count(matched, 1)
        for old in [part for part in self.parts if part <= number - PARTS]:
            gone, gone_counts = self.parts.pop(old)
            self._take(gone, gone_counts)

    def _count(self, matched: tuple[str, ...], by: int) -> None:
        self._take(-by, dict.fromkeys(matched, -by))

    def _take(self, total: int, counts: dict[str, int]) -> None:
        self.total -= total
        for key, number in counts.items():
            left = self.counts.get(key, 0) - number
            if left:
                self.counts[key] = left
            else:
                self.counts.pop(key, None)

    def share(self, rule: Rule, key: str) -> float:
        """The share of frames that match. Where the last so many are asked for, those still to come count as if they did not."""
        return self.counts.get(key, 0) / (rule.of or max(1, self.total))

    def above(self, rule: Rule, key: str) -> bool:
        """Whether the share is above the rule's; of a window of time only where so many frames came that one can be below."""
        wanted = rule.share or 0.0
        enough = rule.of is not None or self.total >= ceil(1 / wanted)
        return enough and self.counts.get(key, 0) >= rule.count and self.share(rule, key) > wanted

    def below(self, rule: Rule, key: str) -> bool:
        """Whether the share is one at which a case is cleared."""
        share = self.share(rule, key)
        return share <= (rule.share or 0.0) if rule.clear_share is None else share < rule.clear_share

    def reached(self, rule: Rule, key: str, captured: float) -> bool:
        """Whether some `of` frames in a row, this one among them, hold `count` that match."""
        size = rule.of or 1
        at = bisect_left(self.frames, (captured, ()))
        if at == len(self.frames) or self.frames[at][0] != captured:  # older than all that are remembered
            return False
        first = max(0, at - size + 1)
        flags = [key in matched for _, matched in self.frames[first : at + size]]
        return any(sum(flags[start : start + size]) >= rule.count for start in range(max(1, len(flags) - size + 1)))


class Silence(msgspec.Struct):
    """What is missed at one place: when something last matched (or the first frame came), when the last frame came, and
    what the last one that matched was; `said`: a case was opened.
    """

    matched: float
    seen: float
    last: dict[str, Any]
    said: bool = False


class Memory(msgspec.Struct):
    """All that one rule remembers; `since`: the event number after which the rule counts."""

    since: int = 0
    causes: dict[str, Cause] = {}
    standing: dict[str, list[str]] = {}  # of rules whose cases end by themselves: place → causes
    frames: dict[str, Frames] = {}
    silences: dict[str, Silence] = {}

    def look(
        self,
        rule: Rule,
        group: str,
        matched: Collection[str],
        held: Collection[str],
        captured_at: datetime,
        seen: float,
    ) -> Iterator[tuple[str, Cause, Outcome]]:
        """Count one image that matches these causes. Says which cases are to be opened, were updated, were cleared."""
        if rule.kind in {"frames", "share"}:
            self.frames.setdefault(group, Frames()).add(rule, captured_at.timestamp(), tuple(sorted(matched)), seen)
        for key in matched:
            cause, outcome = self.observe(rule, key, captured_at, seen, group)
            if outcome is not None:
                yield key, cause, outcome
        if group in self.standing:
            yield from self._clear(rule, group, {*held, *matched}, captured_at)

    def observe(
        self, rule: Rule, key: str, captured_at: datetime, seen: float, group: str = ""
    ) -> tuple[Cause, Outcome | None]:
        """Count one image for a cause. Says whether a case is to be opened, or the last one was updated."""
        cause = self.causes.setdefault(key, Cause(group=group))
        captured = captured_at.timestamp()
        cause.seen, cause.held = max(cause.seen, seen), max(cause.held, captured)
        reached = self._reached(rule, cause, key, captured)
        if not cause.covers(rule, captured):
            return cause, "opened" if reached else None
        if cause.alert is None or (cause.ended is not None and not reached):
            return cause, None
        if cause.ended is not None and not cause.resolved:  # it came again before the cool-down was over
            self._stand_again(rule, key, cause)
        alert = cause.alert
        cause.alert = replace(alert, count=alert.count + 1, last_at=max(alert.last_at, captured_at))
        return cause, "updated"

    def _reached(self, rule: Rule, cause: Cause, key: str, captured: float) -> bool:
        if rule.kind == "share":
            return self.frames[cause.group].above(rule, key)
        if rule.kind == "frames":
            return self.frames[cause.group].reached(rule, key, captured)
        insort(cause.hits, captured)
        _forget(cause, rule)
        return _reached(cause.hits, captured, rule)

    def opened(self, rule: Rule, key: str, cause: Cause, alert: AlertRow) -> None:
        """This is its case from now on."""
        cause.alert, cause.ended, cause.resolved = alert, None, False
        self._note_standing(rule, key, cause)

    def _stand_again(self, rule: Rule, key: str, cause: Cause) -> None:
        assert cause.alert is not None  # noqa: S101 - it has ended, so there was one
        body = {name: value for name, value in cause.alert.body.items() if name not in {"cleared", "cleared_at"}}
        self.opened(rule, key, cause, replace(cause.alert, body=body))

    def _note_standing(self, rule: Rule, key: str, cause: Cause) -> None:
        if rule.clears and key not in (keys := self.standing.setdefault(cause.group, [])):
            keys.append(key)

    def _clear(
        self, rule: Rule, group: str, held: Collection[str], captured_at: datetime
    ) -> Iterator[tuple[str, Cause, Outcome]]:
        captured = captured_at.timestamp()
        for key in tuple(self.standing[group]):
            cause = self.causes[key]
            if rule.share is not None:
                gone = self.frames[group].below(rule, key)
                why = f"the share is {self.frames[group].share(rule, key):.2%}"
            else:
                gone = rule.clear_after is not None and key not in held and captured - cause.held >= rule.clear_after
                why = f"nothing that holds it for {captured - cause.held:.0f} s"
            if not gone and (rule.share is not None or key in held):
                cause.held = max(cause.held, captured)
            elif gone and self.end(key, captured_at, why):
                yield key, cause, "cleared"

    def end(self, key: str, at: datetime, why: str) -> bool:
        """A condition ended by itself: its case says so. False where none stands."""
        cause = self.causes.get(key)
        if cause is None or cause.alert is None or cause.ended is not None:
            return False
        cause.ended = at.timestamp()
        told = {"cleared_at": isoformat(at), "cleared": why}
        cause.alert = replace(cause.alert, body={**cause.alert.body, **told})
        self._sit(key, cause)
        return True

    def decide(self, rule: Rule, key: str, alert_id: str, at: float, *, resolved: bool) -> bool:
        """People said that a case is done, or that it is not. True if that is news, and of this cause's case."""
        cause = self.causes.get(key)
        if cause is None or cause.alert is None or cause.alert.id != alert_id or cause.resolved is resolved:
            return False
        cause.resolved, cause.ended = resolved, at if resolved else None
        if resolved:
            self._sit(key, cause)
        else:
            self._note_standing(rule, key, cause)
        return True

    def _sit(self, key: str, cause: Cause) -> None:
        keys = self.standing.get(cause.group, [])
        if key in keys:
            keys.remove(key)
        if not keys:
            self.standing.pop(cause.group, None)

    def present(self, group: str, captured: float, last: dict[str, Any] | None) -> bool:
        """A frame came; `last` says what matched in it, if anything did. True if what was missed is there again."""
        silence = self.silences.get(group)
        if silence is None:
            self.silences[group] = Silence(captured, captured, last or {})
            return False
        silence.seen = max(silence.seen, captured)
        if last is None or captured <= silence.matched:
            return False
        was, silence.said, silence.matched, silence.last = silence.said, False, captured, last
        return was

    def missed(self, rule: Rule, now: float) -> list[tuple[str, Silence]]:
        """The places where nothing matched for so long, and nobody was told."""
        return [
            (group, silence)
            for group, silence in self.silences.items()
            if not silence.said and now - silence.matched >= rule.absent
        ]

    def tidy(self, rule: Rule, now: float) -> bool:
        """Forget what can no longer matter (`now`: Unix seconds of the newest event). True if anything was."""
        quiet = rule.within + rule.cooldown + 2 * LATEST
        standing = {key for keys in self.standing.values() for key in keys}
        old = [key for key, cause in self.causes.items() if cause.seen < now - quiet and key not in standing]
        each = rule.of or PARTS if rule.kind in {"frames", "share"} else 4 * rule.count + 64
        excess = len(self.causes) - len(old) - min(MOST_CAUSES, MOST_MOMENTS // each)
        if excess > 0:
            old = sorted(self.causes, key=lambda key: self.causes[key].seen)[: len(old) + excess]
        for key in old:
            self._sit(key, self.causes.pop(key))
        gone = _oldest(self.frames, now - QUIET, MOST_MOMENTS // each) + _oldest(
            self.silences, now - QUIET, MOST_CAUSES
        )
        for group in gone:
            self.frames.pop(group, None)
            self.silences.pop(group, None)
        return bool(old or gone)


def _oldest(places: dict[str, Any], before: float, most: int) -> list[str]:
    """The places that were quiet since `before`, and of too many those that were quiet longest."""
    gone = [group for group, place in places.items() if place.seen < before]
    if len(places) - len(gone) > most:
        gone = sorted(places, key=lambda group: places[group].seen)[: len(places) - most]
    return gone


def _forget(cause: Cause, rule: Rule) -> None:
    """Hits that no later frame can share a window with; and of more than enough, the oldest."""
    oldest = cause.hits[-1] - rule.within - LATEST
    keep = [hit for hit in cause.hits if hit >= oldest]
    cause.hits = keep[-(4 * rule.count + 64) :]


def _reached(hits: list[float], captured: float, rule: Rule) -> bool:
    """Whether some window of `within` seconds that holds `captured` holds `count` hits."""
    near = [hit for hit in hits if abs(hit - captured) <= rule.within]
    spans = zip(near, near[rule.count - 1 :], strict=False)
    return any(last - first <= rule.within and first <= captured <= last for first, last in spans)
