"""Rules, compiled from the settings, and what they look at: the hits of a result, a camera's health, service levels. Pure."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import msgspec

from eyeline.alerts.expression import About, Condition, Expression, Hit, Mistake, compile_condition
from eyeline.core.errors import ConfigError
from eyeline.core.settings import RuleSettings
from eyeline.core.types import Detection, Event, Result

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_LONGEST = 31 * 86_400.0

Kind = Literal["hits", "frames", "share", "absence"]


class RuleMistake(ConfigError):
    """A rule that cannot work. `field` says which word of it; `mistake` where in its condition, if it is one."""

    def __init__(self, name: str, field: str, error: ConfigError) -> None:
        self.field = field
        self.mistake = error if isinstance(error, Mistake) else None
        super().__init__(f"rule {name!r}: {'' if field == 'when' else f'{field}: '}{error}")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule ready for work. Times are seconds; `digest` changes with what the rule remembers, and with nothing else.

    `clear_after` None: a case of it ends when people say so. `since`: when it was made or changed (Unix seconds), where that
    is known; what was recorded before does not count.
    """

    name: str
    when: Expression
    among: Condition
    holds: Condition
    count: int
    of: int | None
    within: float
    share: float | None
    clear_share: float | None
    absent: float
    clear_after: float | None
    by: tuple[str, ...]
    severity: str
    notify: tuple[str, ...]
    cooldown: float
    digest: str
    settings: RuleSettings
    since: float | None = None

    @cached_property
    def kind(self) -> Kind:
        """What is counted."""
        if self.absent:
            return "absence"
        if self.share is not None:
            return "share"
        return "hits" if self.of is None else "frames"

    @cached_property
    def about(self) -> About:
        """What it is asked of: `label != 'intact'` must not fire because a lens is dirty."""
        return self.when.about

    @cached_property
    def places(self) -> tuple[str, ...]:
        """What it groups by that says where a frame is from."""
        return tuple(name for name in self.by if name in PLACES)

    @cached_property
    def clears(self) -> bool:
        """Whether its cases end by themselves."""
        return self.kind in {"absence", "share"} or self.about != "results" or self.clear_after is not None

    def causes(self, hits: Iterable[Hit]) -> dict[str, Hit]:
        """Cause → its best one among the hits of a result: one image counts once for each cause."""
        found: dict[str, Hit] = {}
        for hit in hits:
            if self.when.test(hit):
                cause = self.cause_of(hit)
                if cause not in found or (hit.score or 0.0) > (found[cause].score or 0.0):
                    found[cause] = hit
        return found

    def held(self, hits: Iterable[Hit]) -> set[str]:
        """The causes that these hits keep standing."""
        return {self.cause_of(hit) for hit in hits if self.holds(hit)}

    def cause_of(self, hit: Hit) -> str:
        """The values that the rule groups by, as JSON, without those that there are not: `{"camera":"belt-1"}`."""
        return _key(self.by, hit)

    def group_of(self, hit: Hit) -> str:
        """As much of the cause as a frame has that shows nothing: where it is from."""
        return _key(self.places, hit)

    def counts(self, hits: Iterable[Hit]) -> bool:
        """Whether a frame is one of those that are counted: it comes from where the rule looks, and shows what it asks for."""
        return any(self.when.place(hit) and self.among(hit) for hit in hits)


def _key(names: tuple[str, ...], hit: Hit) -> str:
    return _encoded(names, tuple([_GROUPS[name](hit) for name in names]))


@lru_cache(4096)  # the same few, for each frame of each rule
def _encoded(names: tuple[str, ...], values: tuple[str | None, ...]) -> str:
    known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return msgspec.json.encode(known).decode()


PLACES = frozenset({"site", "camera", "pipeline", "ref"})
_GROUPS = {
    "site": lambda hit: hit.result.site,
    "camera": lambda hit: hit.result.camera,
    "pipeline": lambda hit: hit.result.pipeline,
    "zone": lambda hit: hit.zone,
    "label": lambda hit: hit.label,
    "ref": lambda hit: hit.result.ref,
}


def _everything(_: Hit) -> bool:
    return True


def compile_rule(settings: RuleSettings, *, since: float | None = None) -> Rule:
    """The rule behind its settings. Raises RuleMistake naming the rule, the place and the way out."""
    when = _read(settings, "when", compile_condition)
    holds = _read(settings, "holds", compile_condition) if settings.holds else when
    among: Condition = _read(settings, "among", compile_condition) if settings.among else _everything
    within, cooldown = _read(settings, "within", duration), _read(settings, "cooldown", duration)
    absent = _read(settings, "absent", duration) if settings.absent else 0.0
    _check(settings, when, absent)
    clear_after = _read(settings, "clear_after", duration) if settings.clear_after else None
    by = tuple(dict.fromkeys(_usual(settings, when.about) if settings.by is None else settings.by))
    meaning = [
        settings.name,
        settings.when,
        settings.count,
        settings.of,
        within,
        settings.share,
        settings.among,
        absent,
    ]
    return Rule(
        name=settings.name,
        when=when,
        among=among,
        holds=holds,
        count=settings.count,
        of=settings.of,
        within=within,
        share=settings.share,
        clear_share=settings.clear_share,
        absent=absent,
        clear_after=0.0 if clear_after is None and when.about == "slo" else clear_after,
        by=by,
        severity=settings.severity,
        notify=tuple(dict.fromkeys(settings.notify)),
        cooldown=cooldown,
        digest=hashlib.sha256(msgspec.json.encode([*meaning, sorted(by)])).hexdigest()[:16],
        settings=settings,
        since=since,
    )


def _read(settings: RuleSettings, field: str, reader: Any) -> Any:
    try:
        return reader(getattr(settings, field))
    except ConfigError as error:
        raise RuleMistake(settings.name, field, error) from error


def _check(settings: RuleSettings, when: Expression, absent: float) -> None:
    if settings.absent and absent < 1.0:
        error = ConfigError(f"{settings.absent!r} is too short; what is absent is looked for once a second")
        raise RuleMistake(settings.name, "absent", error)
    if when.about != "results" and (settings.absent or settings.share is not None):
        error = ConfigError(f"what is counted are results, and {settings.when[:60]!r} is about {when.about}")
        raise RuleMistake(settings.name, "absent" if settings.absent else "share", error)


def _usual(settings: RuleSettings, about: About) -> tuple[str, ...]:
    """One case for each cause: where, and what."""
    if about == "slo":
        return ("label",)
    if settings.absent or settings.share is not None:
        return ("site", "camera")
    return ("site", "camera", "zone", "label")


def duration(text: str) -> float:
    """Seconds in "500ms", "60s", "5m", "2h" or "1d". Raises ConfigError."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else -1.0
    if not 0 <= seconds <= _LONGEST:
        raise ConfigError(f"{text!r} is no duration up to 31 days; write it as 60s, 5m or 2h")
    return seconds


HEALTH, SLO = "camera.health", "slo"


def hits_in(event: Event) -> tuple[Hit, ...]:
    """What rules look at in an event: a result has at least one hit, a camera's health one, a measurement one for each
    service level; of other events nothing. Raises KeyError or ValidationError where it is not what its kind says.
    """
    if event.kind == "result":
        return tuple(hits_of(msgspec.convert(event.body, Result)))
    if event.kind != "system":
        return ()
    if event.body.get("type") == HEALTH:
        return (_health(event),)
    if event.body.get("type") == SLO:
        return tuple(_levels(event))
    return ()


def _health(event: Event) -> Hit:
    body = event.body
    detail = f"{body['health']}: {body.get('detail', '')}"
    result = _stand_in(event, camera=str(body["camera"]), pipeline=str(body.get("pipeline", "")), reason=detail)
    return Hit(result, label=str(body["health"]), health=str(body["health"]))


def _levels(event: Event) -> Iterator[Hit]:
    """One hit for each level that was measured."""
    for name, level in event.body["levels"].items():
        value, hour = float(level["value"]), level.get("hour")
        detail = f"{name}: {value:g} over the last {event.body.get('seconds', 0):g} s"
        yield Hit(
            _stand_in(event, reason=detail),
            label=name,
            slo=name,
            value=value,
            hour=None if hour is None else float(hour),
        )


def _stand_in(event: Event, *, reason: str, camera: str | None = None, pipeline: str = "") -> Result:
    """A result that only says where, when and why; there is no picture behind it."""
    return Result(
        id=str(event.body["id"]),
        status="completed",
        site=event.site,
        pipeline=pipeline,
        camera=camera,
        reason=reason,
        captured_at=event.at,
        received_at=event.at,
        completed_at=event.at,
    )


def hits_of(result: Result) -> Iterator[Hit]:
    """One hit for each detection, classification and crop's classification; a bare one where there is none."""
    bare = True
    for detection in result.detections:
        bare = False
        yield from _hits_of_detection(result, detection)
    for found in result.classifications:
        bare = False
        yield Hit(result, found.label, found.score, None, found.step)
    if bare:
        yield Hit(result)


def _hits_of_detection(result: Result, detection: Detection) -> Iterator[Hit]:
    x1, y1, x2, y2 = detection.box
    area = max(0.0, x2 - x1) * max(0.0, y2 - y1)
    zone = detection.attributes.get("zone")
    zone = zone if isinstance(zone, str) else None
    yield Hit(result, detection.label, detection.score, area, detection.step, zone)
    for entry in detection.attributes.get("classifications", ()):
        if isinstance(entry, Mapping):
            yield Hit(result, entry.get("label"), entry.get("score"), area, entry.get("step"), zone)
