"""The query of POST /v1/images, checked before anything else is done: a wrong name is answered with the known ones."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import get_args
from urllib.parse import parse_qsl

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import InputError, TooLarge
from eyeline.core.settings import CameraSettings, Settings
from eyeline.core.telemetry import printable
from eyeline.core.types import Lane

NAMES = ("camera", "site", "pipeline", "captured_at", "ref", "lane", "wait", "deadline")
MAX_FIELDS = 40
MAX_META = 16
MAX_META_KEY = 64
MAX_META_VALUE = 256
MAX_META_TOTAL = 2000  # all of it rides in the job, which stays under 4 kB
MAX_REF = 200
MAX_WAIT = 30.0
MAX_DEADLINE = 3600.0
AHEAD = timedelta(days=1)  # a camera's clock may be wrong, but not by more


@dataclass(frozen=True, kw_only=True)
class ImageParams:
    """What a request says of its images. Durations in seconds; `captured_at` None: the time of reception."""

    site: str
    pipeline: str
    lane: Lane = "live"
    camera: str | None = None
    captured_at: datetime | None = None
    ref: str | None = None
    meta: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    deadline: float | None = None


class Known:
    """The names that requests may use, from the settings."""

    def __init__(self, settings: Settings) -> None:
        self.sites = {site.name for site in settings.sites} | {"default"}
        self.first_site = settings.sites[0].name if settings.sites else "default"
        self.cameras = {camera.name: camera for camera in settings.cameras}
        self.pipelines = {pipeline.name for pipeline in settings.pipelines} or {settings.default_pipeline}
        self.default_pipeline = settings.default_pipeline

    def parse(self, query: bytes, who: Principal) -> ImageParams:
        """The parameters of this query string. Raises InputError naming the parameter, its value and what would do."""
        given, meta = _split(query)
        camera = self._camera(given.get("camera"), who)
        site = self._site(given.get("site"), camera, who)
        return ImageParams(
            site=site,
            camera=camera,
            pipeline=self._pipeline(given.get("pipeline"), camera),
            lane=_lane(given.get("lane", "live")),
            captured_at=_captured_at(given.get("captured_at")),
            ref=_ref(given.get("ref")),
            meta=meta,
            wait=_seconds("wait", given.get("wait", "0"), MAX_WAIT),
            deadline=_seconds("deadline", given["deadline"], MAX_DEADLINE) if "deadline" in given else None,
        )

    def pipeline_of(self, camera: CameraSettings) -> str:
        """The pipeline of a camera's frames."""
        return camera.pipeline or self.default_pipeline

    def _camera(self, camera: str | None, who: Principal) -> str | None:
        seen = [each.name for each in self.cameras.values() if who.sees(each.site)] if camera is not None else []
        if camera is not None and camera not in seen:
            raise _unknown("camera", camera, seen)
        return camera

    def _site(self, site: str | None, camera: str | None, who: Principal) -> str:
        stands = None if camera is None else self.cameras[camera].site
        if site is None:
            site = stands or (who.sites[0] if who.sites else self.first_site)
        if site not in self.sites or not who.sees(site):
            raise _unknown("site", site, [name for name in self.sites if who.sees(name)])
        if stands not in {None, site}:
            raise InputError(
                f"camera {camera!r} stands at the site {stands!r}, not at {site!r}; leave site out, or correct it",
                code="wrong_site",
            )
        return site

    def _pipeline(self, pipeline: str | None, camera: str | None) -> str:
        if pipeline is None and camera is not None:
            pipeline = self.cameras[camera].pipeline
        pipeline = pipeline or self.default_pipeline
        if pipeline not in self.pipelines:
            raise _unknown("pipeline", pipeline, self.pipelines)
        return pipeline


def _split(query: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """The named parameters and the meta fields; each may stand once."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise InputError(f"the query cannot be read: {error}; percent-encode it as UTF-8") from error
    given: dict[str, str] = {}
    meta: dict[str, str] = {}
    for name, value in pairs:
        into, key = (meta, name[5:]) if name.startswith("meta.") else (given, name)
        if into is given and name not in NAMES:
            raise _unknown_parameter(name)
        if value != printable(value, len(value)):
            raise InputError(f"{_shown(name)} holds control characters ({_shown(value)} without them); leave them out")
        if key in into:
            raise InputError(f"the parameter {_shown(name)} stands twice; give it once")
        into[key] = value
    return given, _meta(meta)


def _meta(meta: dict[str, str]) -> dict[str, str]:
    if len(meta) > MAX_META:
        raise TooLarge(f"{len(meta)} meta fields; at most {MAX_META} are kept", code="too_many_fields")
    for key, value in meta.items():
        if not key or len(key) > MAX_META_KEY or not key.isprintable():
            raise InputError(f"meta key {_shown(key)}: use 1 to {MAX_META_KEY} printable characters")
        if len(value) > MAX_META_VALUE:
            raise TooLarge(f"meta.{key} has {len(value)} characters; at most {MAX_META_VALUE} are kept")
    if sum(_written(key) + _written(value) for key, value in meta.items()) > MAX_META_TOTAL:
        raise TooLarge(f"the meta fields are over {MAX_META_TOTAL} bytes together; keep them short")
    return meta


def _written(text: str) -> int:
    """Bytes of it in the job's JSON, where a quotation mark takes two."""
    return len(msgspec.json.encode(text)) - 2


def _lane(text: str) -> Lane:
    for lane in get_args(Lane):
        if text == lane:
            known: Lane = lane
            return known
    raise _unknown("lane", text, get_args(Lane))


def _ref(text: str | None) -> str | None:
    if text is not None and len(text) > MAX_REF:
        raise TooLarge(f"ref has {len(text)} characters; at most {MAX_REF} are kept")
    return text or None


def _captured_at(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parse_time(text)
    except (ValueError, OverflowError) as error:
        hint = " ('+' must be written %2B in a query)" if " " in text else ""
        raise InputError(
            f"captured_at {_shown(text)} is no time with a UTC offset, such as 2026-01-31T12:00:00Z{hint}"
        ) from error
    if moment > utcnow() + AHEAD:
        raise InputError(f"captured_at {_shown(text)} is more than a day ahead; set the sender's clock")
    return moment


def _seconds(name: str, text: str, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= most:
        raise InputError(f"{name}={_shown(text)}: give seconds from 0 to {most:g}")
    return seconds


def _shown(text: str) -> str:
    return repr(printable(text, 80))


def _unknown(kind: str, name: str, known: Collection[str]) -> InputError:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(sorted(known)[:50]) or "none"
    return InputError(f"no {kind} is called {_shown(name)}; known: {listed}{hint}", code=f"unknown_{kind}")


def _unknown_parameter(name: str) -> InputError:
    near = get_close_matches(name, NAMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"no parameter is called {_shown(name)}; known: {', '.join(NAMES)} and meta.*{hint}")
