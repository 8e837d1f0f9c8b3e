"""The one door for settings: defaults, then `eyeline.toml`, then the environment (`EYELINE_QUEUE__URL=…`).

Read once, in app.py; rooms get their own section. Everything outside is a URL, everything inside a typed section.
"""

import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from eyeline.core.errors import BadRule, ConfigError
from eyeline.core.weekly import span

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
TIME_OF_DAY = r"^([01]\d|2[0-3]):[0-5]\d$"
SHA256 = r"^[0-9a-f]{64}$"
#: What a pattern wants, in words.
_WANTED = {
    NAME: "a name begins with a letter or digit and has letters, digits, '_', '.' and '-', 64 at most",
    TIME_OF_DAY: "a time of day is written with four digits, such as '06:00'",
    SHA256: "not the SHA-256 of a key, which has 64 lower-case hex digits; `eyeline keys hash` makes it",
}
Name = Annotated[str, Field(pattern=NAME)]
Role = Literal["ingest", "viewer", "operator", "admin"]
ENV_PREFIX = "EYELINE_"
#: The faintest defect that a comparison of frames can promise to see.
FAINTEST = 24.0


class Section(BaseModel):
    """A typed section; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewaySettings(Section):
    """The HTTP door."""

    host: str = Field("127.0.0.1", description="address to listen on; others than loopback need a key")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    max_bytes: int = Field(25_000_000, gt=0, description="the largest image accepted, in bytes")
    max_pixels: int = Field(50_000_000, gt=0, description="the largest image accepted, in pixels")
    max_unfinished: int = Field(1000, gt=0, description="unfinished jobs above which requests are refused (429)")
    max_wait: float = Field(0.8, gt=0, description="expected queue wait in seconds above which requests are refused")
    rate: float = Field(0.0, ge=0, description="requests a second for each key; 0 is no limit")
    fetch_allow: list[str] = Field([], description="CIDR ranges that {'url': …} may reach although private")
    allowed_hosts: list[str] = Field([], description="Host headers that are answered; none listed: all")
    session_idle: float = Field(43_200.0, gt=0, description="seconds without a request after which one signs in again")
    session_length: float = Field(604_800.0, gt=0, description="seconds after which one signs in again in any case")


class QueueSettings(Section):
    """Where jobs wait."""

    url: str = Field(
        "", description="sqlite, redis, rediss, postgresql, sqs or kafka (docs/backends); empty: in data_dir"
    )
    lease: float = Field(30.0, gt=0, description="seconds until a silent worker's jobs are given to another")


class BlobSettings(Section):
    """Where pictures lie."""

    url: str = Field("", description="where pictures lie, as file:///folder; empty: `blobs` under `data_dir`")
    links: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="seconds for which a whole picture may be had from the store itself by a signed link, as it was received; "
        "0: the gateway sends it, encoded anew (docs/backends/blobs-s3.md)",
    )


class ResultSettings(Section):
    """Where jobs, results, events and alerts are kept."""

    url: str = Field("", description="where results are kept; empty: `results.db` under `data_dir`")


class CacheSettings(Section):
    """What duplicates are answered from."""

    url: str = Field("", description="where answers are looked up; empty: `cache.db` under `data_dir`")
    ttl: float = Field(86_400.0, gt=0, description="seconds for which an answer is reused")


class InferenceSettings(Section):
    """The inference service; `eyeline up` starts it, elsewhere it is only called."""

    url: str = Field(
        "http://127.0.0.1:8090",
        description="where it answers, replicas separated by commas; where `eyeline up` starts it",
    )
    models: Path = Field(Path("models"), description="folder of model bundles; the bundled ones are found beside them")
    runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="what runs the models; auto: what `models tune` chose"
    )
    providers: list[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu"], description="ONNX Runtime's execution providers, the first that is there"
    )
    instances: int = Field(
        0, ge=0, description="model instances side by side; 0 is one for each core, on an accelerator two"
    )
    max_queue: int = Field(256, gt=0, description="requests that may wait for each model")
    max_delay: float = Field(0.0, ge=0, description="seconds a batch may wait to fill; 0 adds none")
    token: SecretStr | None = Field(
        None, description="who shows it may have models loaded from another machine; none: only this machine may"
    )


class WorkerSettings(Section):
    """Workers and their decoder children."""

    decoders: int = Field(0, ge=0, description="decoder children; 0 is one for each core")
    replicas: int = Field(1, ge=1, description="worker processes that `eyeline up` starts")
    concurrency: int = Field(16, ge=1, description="images in hand at once")
    drain_seconds: float = Field(20.0, gt=0, description="time to finish what is in hand when stopped")
    max_attempts: int = Field(5, ge=1, description="charged attempts after which an image is failed")


class SiteSettings(Section):
    """A place with its own clock."""

    name: Name = Field(description="what requests and cameras call it")
    timezone: str = Field("UTC", description="IANA name of its time zone, such as Europe/Berlin")
    shifts: list[Annotated[str, Field(pattern=TIME_OF_DAY)]] = Field(
        [], description="when its shifts begin, in its own time: 06:00, 14:00, 22:00"
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no time zone; use an IANA name such as 'Europe/Berlin'") from error
        return value


Share = Annotated[float, Field(ge=0, le=1)]
Polygon = Annotated[list[tuple[Share, Share]], Field(min_length=3)]
#: What a step of each kind may say beside its name and kind; a word that stands elsewhere would be silently without effect.
STEP_WORDS: dict[str, tuple[str, ...]] = {
    "model": ("model", "on", "min_score", "margin", "roi", "unsure_of", "unsure"),
    "barcodes": ("on", "formats"),
    "quality": ("dark", "over_exposed", "blurred", "reject"),
    "region": ("on", "inside", "outside", "zones"),
    "track": ("on", "sure", "min_frames", "lost_after"),
}


class StepSettings(Section):
    """One step of a pipeline: a model on the whole image or on the crops of an earlier step, or what its `kind` says."""

    name: Name = Field(description="what its findings call it")
    kind: Literal["model", "barcodes", "quality", "region", "track"] = Field("model", description="what it does")
    model: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$", description="name of an installed model")
    on: Name | None = Field(None, description="an earlier step, on whose boxes it works; none: the whole image")
    min_score: float = Field(0.0, ge=0, le=1, description="detections below are not reported by this step")
    margin: float = Field(0.05, ge=0, le=1, description="how much a crop is grown on each side, as a share of its size")
    roi: tuple[Share, Share, Share, Share] | None = Field(
        None, description="the part of the picture that a model is shown: left, top, right, bottom as shares of it"
    )
    unsure_of: Name | None = Field(None, description="ask this model only where that earlier one is unsure")
    unsure: tuple[Share, Share] = Field((0.3, 0.7), description="scores between which the earlier model is unsure")
    formats: list[str] = Field([], description="kinds of barcode that are read (QRCode, EAN13 …); none: all")
    dark: Share | None = Field(None, description="a mean brightness below is dark")
    over_exposed: Share | None = Field(None, description="a share of blown pixels above is over-exposed")
    blurred: float | None = Field(None, ge=0, description="a sharpness below is blurred")
    reject: bool = Field(default=False, description="what is dark, over-exposed or blurred gets a failed result")
    inside: list[Polygon] = Field([], description="polygons (shares of the picture) in which a box's middle must lie")
    outside: list[Polygon] = Field([], description="polygons in which it must not lie")
    zones: dict[Name, Polygon] = Field(
        {}, description="named polygons: a box has the `zone` of the first in which its middle lies (`zone` in rules)"
    )
    sure: Share = Field(
        0.5, description="the score from which a box may begin an item; weaker ones only go on with one"
    )
    min_frames: int = Field(3, ge=1, description="frames in which a thing must be seen to be an item")
    lost_after: float = Field(1.5, gt=0, le=60, description="seconds unseen after which an item has left")

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        fields = type(self).model_fields
        other = self.model_fields_set - {"name", "kind", *STEP_WORDS[self.kind]}
        stray = sorted(word for word in other if getattr(self, word) != fields[word].default)
        if stray:
            raise ValueError(
                f"step {self.name!r}: {stray[0]!r} says nothing in a step of kind {self.kind!r}; "
                f"it knows {', '.join(STEP_WORDS[self.kind])}"
            )
        if (self.kind == "model") != bool(self.model):
            raise ValueError(f'step {self.name!r} names no model; write model = "NAME", or its kind')
        if self.kind == "region" and not (self.inside or self.outside or self.zones):
            raise ValueError(
                f"step {self.name!r} keeps everything; give it `inside` or `outside` polygons, or `zones` to name"
            )
        if self.kind == "track" and self.on is None:
            raise ValueError(f'step {self.name!r} follows nothing; write on = "the step that finds the things"')
        if self.roi is not None and (self.on is not None or self.roi[0] >= self.roi[2] or self.roi[1] >= self.roi[3]):
            raise ValueError(
                f"step {self.name!r}: roi is left, top, right, bottom (0..1) of a step on the whole image; got {self.roi}"
            )
        if self.unsure[0] >= self.unsure[1]:
            raise ValueError(f"step {self.name!r}: unsure is two scores, the lower one first; got {self.unsure}")
        return self


class PipelineSettings(Section):
    """An ordered list of steps."""

    name: Name = Field(description="what requests and cameras call it; the first pipeline is the default")
    steps: list[StepSettings] = Field(min_length=1, description="in the order of their work")

    @property
    def models(self) -> list[str]:
        """The models that it needs, in order of first use."""
        return list(dict.fromkeys(step.model for step in self.steps if step.kind == "model"))

    @property
    def digest(self) -> str:
        """Hex digest of the definition. What stands at its default is left out: a release that knows one setting more gives the
        same.
        """
        told = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def track(self) -> StepSettings | None:
        """The step that makes items of what is seen frame after frame, where there is one."""
        return next((step for step in self.steps if step.kind == "track"), None)

    @model_validator(mode="after")
    def _order(self) -> Self:
        seen: dict[str, StepSettings] = {}
        for step in self.steps:
            if step.name in seen:
                raise ValueError(f"step {step.name!r} stands twice in pipeline {self.name!r}")
            if step.on is not None and step.on not in seen:
                raise ValueError(
                    f"step {step.name!r} works on {step.on!r}, which is no earlier step; earlier: {list(seen)}"
                )
            self._cascade(step, seen)
            if step.kind not in {"model", "region"} and step.kind in {other.kind for other in seen.values()}:
                raise ValueError(f"pipeline {self.name!r} has two steps of kind {step.kind!r}; one does it")
            seen[step.name] = step
        if not self.models and not any(step.kind in {"barcodes", "quality"} for step in self.steps):
            raise ValueError(f"pipeline {self.name!r} looks at nothing; give it a model, barcodes or quality step")
        return self

    def _cascade(self, step: StepSettings, seen: Mapping[str, StepSettings]) -> None:
        """A second opinion is asked for the very thing that the first one was given for."""
        if step.unsure_of is None:
            return
        first = seen.get(step.unsure_of)
        if first is None or first.kind != "model" or first.on != step.on:
            raise ValueError(
                f"step {step.name!r} is asked where {step.unsure_of!r} is unsure; name an earlier model step "
                "that works on the same (`on`)"
            )


class CameraSettings(Section):
    """A camera and what becomes of its frames."""

    name: Name = Field(description="what its frames and results call it")
    url: str = Field(description="a video file or a folder that is watched")
    site: Name = Field("default", description="where it stands")
    pipeline: Name | None = Field(None, description="what its frames go through; none: the default one")
    fps: float = Field(0.0, ge=0, description="frames a second to take; 0 is all there are")
    drop: Literal["auto", "newest", "never"] = Field(
        "auto", description="what to do when full: give up the newest frame, or wait (auto: wait for folders)"
    )
    spool_bytes: int = Field(500_000_000, ge=0, description="disk kept for frames while the gateway is away")
    loop: bool = Field(default=False, description="start a video file again at its end")
    quality: int = Field(90, ge=50, le=100, description="JPEG quality of frames taken from a video")
    transport: Literal["tcp", "udp"] = Field("tcp", description="how RTSP brings its packets; over udp some get lost")
    allow: list[str] = Field(
        [], description="CIDR ranges that redirects of an HTTP camera may lead to although private"
    )
    stall_seconds: float = Field(10.0, gt=0, description="seconds without a frame until a live camera is opened again")
    frozen_seconds: float = Field(
        10.0, ge=0, description="seconds of identical frames until it counts as frozen; 0 never"
    )
    gate: float = Field(
        0.0, ge=0, description="levels (of 255) by which the worst block must change; 0 sends all frames"
    )
    gate_seconds: float = Field(60.0, gt=0, description="seconds after which a frame is sent although nothing changed")
    near_duplicates: float = Field(
        0.0,
        ge=0,
        le=255,
        description="reuse the answer for a repeated frame, unless ten pixels differ by so many levels; 24 or more; 0: never",
    )
    only_triggered: bool = Field(default=False, description="take frames only when asked to (capture, MQTT)")
    trigger_topic: str | None = Field(
        None, description="MQTT topic whose messages take the next frame; payload: its ref"
    )

    @field_validator("near_duplicates")
    @classmethod
    def _can_be_told(cls, value: float) -> float:
        if 0 < value < FAINTEST:
            raise ValueError(
                f"a contrast of {value:g} levels cannot be told from noise; give {FAINTEST:g} or more, or 0"
            )
        return value


class MqttSettings(Section):
    """The broker that brings triggers to cameras with a `trigger_topic`."""

    url: str = Field("", description="mqtt://user:password@host:1883, or mqtts://; read by the camera agents")


Counted = Literal["site", "camera", "pipeline", "zone", "label", "ref"]


class RuleSettings(Section):
    """When to raise an alert (docs/alerts.md). Which words stand there says what kind of rule it is."""

    name: str = Field(min_length=1, max_length=120, description="what its alerts are called")
    when: str = Field(description="the condition, such as label == 'damaged' and score >= 0.8 (docs/alerts.md)")
    count: int = Field(1, ge=1, le=1000, description="images that must match")
    of: int | None = Field(None, ge=2, le=10_000, description="… among so many that follow one another (2 of 5)")
    within: str = Field("60s", description="… or time within which they were captured")
    share: float | None = Field(None, gt=0, lt=1, description="the share of images that must match is more than this")
    among: str = Field("", description="with `share`: images that count are those with something like this; none: all")
    absent: str = Field("", description="raise when nothing matched for so long, such as 10m")
    holds: str = Field(
        "", description="what keeps a case standing, a weaker condition than `when`; none: `when` itself"
    )
    clear_after: str = Field("", description="a case is cleared when images show nothing that holds it for so long")
    clear_share: float | None = Field(None, ge=0, lt=1, description="… or when the share falls below this")
    by: list[Counted] | None = Field(
        None,
        description="what is counted apart; none: site, camera, zone and label, as far as the kind of rule knows them",
    )
    severity: Literal["info", "warning", "critical"] = Field("warning", description="how bad it is")
    notify: list[str] = Field([], description="channels that are told; `log` is always there")
    cooldown: str = Field("5m", description="quiet time after which the same cause is a new case that is told again")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        """A word that says nothing in this kind of rule was meant otherwise."""
        if self.absent:
            self._refuse("absent", "count", "of", "within", "share", "among", "holds", "clear_after", "clear_share")
        elif self.share is not None:
            self._refuse("share", "holds", "clear_after")
            if self.of is not None:
                self._refuse("of", "within")
            if self.clear_share is not None and self.clear_share > self.share:
                raise ValueError(
                    f"clear_share {self.clear_share:g} is above share {self.share:g}: it would clear at once"
                )
        else:
            for word in ("among", "clear_share"):
                if self._says(word):
                    raise ValueError(f"{word!r} says nothing without 'share'; write share = 0.02 for 2 %")
            if self.of is not None:
                self._refuse("of", "within")
                if self.count > self.of:
                    raise ValueError(f"{self.count} of {self.of} images can never match; count is {self.of} at most")
        if self.holds and not self.clear_after:
            raise ValueError("'holds' says nothing without 'clear_after'; write clear_after = \"30s\"")
        here = {"site", "camera", "pipeline"}
        if self.absent and (strange := sorted(set(self.by or ()) - here)):
            raise ValueError(f"what is absent has no {strange[0]}; count it by site, camera or pipeline")
        return self

    def _says(self, word: str) -> bool:
        return bool(getattr(self, word) != type(self).model_fields[word].default)

    def _refuse(self, kind: str, *words: str) -> None:
        for word in words:
            if self._says(word):
                raise ValueError(f"{word!r} says nothing beside {kind!r}; take one of them away")


#: Times of the week, as `core.weekly` reads them.
Weekly = Annotated[str, AfterValidator(lambda text: span(text) and text)]
Severity = Literal["info", "warning", "critical"]


class ChannelSettings(Section):
    """Where an alert goes (docs/channels.md)."""

    name: Name = Field(description="what rules call it in `notify`")
    url: str = Field(description="https:// or http:// (webhook), smtp:// or smtps://, mqtt:// or mqtts://, apprise:…")
    secret: SecretStr | None = Field(
        None,
        description="webhooks: whsec_ and base64 of 24 to 64 random bytes, two with a space between while one is replaced; "
        "e-mail and MQTT: the password",
    )
    allow: list[str] = Field([], description="CIDR ranges this channel may reach although private")
    to: list[str] = Field([], description="e-mail: who gets it")
    sender: str = Field("", description="e-mail: whom it is from")
    quiet: list[Weekly] = Field(
        [], description="site times in which only critical alerts are sent: 22:00-06:00, Sat 00:00-24:00"
    )


class EscalationSettings(Section):
    """Who else is told of an alert that nobody acknowledges. Several that fit an alert are its tiers, in order of `after`."""

    after: float = Field(gt=0, le=7 * 86_400, description="seconds after the alert was opened")
    notify: list[str] = Field(min_length=1, description="channels that are told then")
    severity: list[Severity] = Field([], description="alerts of these; none listed: all")
    rules: list[str] = Field([], description="alerts of these rules; none listed: all")
    sites: list[Name] = Field([], description="alerts of these sites; none listed: all")


class SilenceSettings(Section):
    """Alerts that are recorded and not sent, such as those of a maintenance window."""

    reason: str = Field(min_length=1, max_length=500, description="why; it stands in the delivery record")
    site: Name | None = Field(None, description="alerts of this site; none: of all")
    camera: Name | None = Field(None, description="alerts of this camera")
    rule: str | None = Field(None, description="alerts of this rule")
    since: AwareDatetime | None = Field(None, description="from this time on")
    until: AwareDatetime | None = Field(None, description="before this time")
    weekly: list[Weekly] = Field([], description="in these times of the week, by the site's clock: Sat 06:00-14:00")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not self.weekly and (self.since is None or self.until is None):
            raise ValueError(f"silence {self.reason!r} never ends; write `since` and `until`, or `weekly` times")
        return self


class AlertSettings(Section):
    """Rules, channels, and when alerts are sent to them."""

    rules: list[RuleSettings] = []
    channels: list[ChannelSettings] = []
    escalations: list[EscalationSettings] = []
    silences: list[SilenceSettings] = []


class OutputSettings(Section):
    """Where results go that fit a condition (docs/outputs.md): to a webhook, to MQTT, or into CSV files."""

    name: Name = Field(description="what its deliveries are listed under")
    url: str = Field(description="https://, http://, mqtt://, mqtts://, or file:///folder for CSV files")
    when: str = Field("", description="the condition, as in rules; none: every result")
    secret: SecretStr | None = Field(None, description="as a channel's")
    allow: list[str] = Field([], description="CIDR ranges that it may reach although private")
    rows: int = Field(1000, ge=1, le=100_000, description="CSV: rows after which a file is complete")
    seconds: float = Field(60.0, gt=0, le=86_400, description="CSV: seconds after which a file is complete")


class ReportSettings(Section):
    """The shift report (docs/cases.md)."""

    notify: list[str] = Field([], description="e-mail channels that get it when a shift of a site ends")


class ItemSettings(Section):
    """Items (docs/pipelines.md): what tracking makes of many frames, and what counts as damage when one is traced."""

    reorder: float = Field(2.0, ge=0, le=60, description="seconds to wait for frames that others overtook")
    damage_labels: list[str] = Field(["damaged"], description="labels that mark the first picture that shows damage")
    damage_score: float = Field(0.5, ge=0, le=1, description="the score from which such a label counts")


class ReviewSettings(Section):
    """Which results are shown to a person (docs/review.md): new labels, steps that disagree, low scores, and a sample."""

    below: float = Field(0.5, ge=0, le=1, description="a result with an answer of a lower score waits for review")
    sample: float = Field(
        0.01, ge=0, le=1, description="share of all others that wait for review, to see what nobody doubts"
    )


class CostSettings(Section):
    """What the machines cost, for the price of a million images on the page of operations."""

    machines_per_hour: float = Field(0.0, ge=0, description="all machines together, an hour; 0 shows no cost")
    currency: str = Field("EUR", min_length=1, max_length=8, description="what that is counted in")


def kept_seconds(text: str) -> float:
    """Seconds in "12h", "30d", "8w" or "2y"; infinity for "ever". Raises ValueError."""
    if text == "ever":
        return math.inf
    match = re.fullmatch(r"(\d{1,4})([hdwy])", text)
    if match is None:
        raise ValueError(f"{text!r} is no time to keep something; write it as 12h, 30d, 8w or 2y, or ever")
    return int(match[1]) * {"h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_557_600.0}[match[2]]


def _kept(text: str) -> str:
    kept_seconds(text)
    return text


def _encoding(text: str) -> str:
    name, _, quality = text.partition(":")
    if text and (name not in {"jpeg", "webp", "avif"} or not quality.isdecimal() or not 1 <= int(quality) <= 100):
        raise ValueError(f"{text!r} is no encoding; write it as webp:80, avif:60 or jpeg:80 (quality 1 to 100)")
    return text


Keep = Annotated[str, AfterValidator(_kept)]


class RetentionRuleSettings(Section):
    """Results that are kept for other times than the rest; the first rule that fits one decides."""

    label: str | None = Field(None, description="results that bear this label")
    min_score: float = Field(0.0, ge=0, le=1, description="the score from which it counts")
    site: Name | None = Field(None, description="results of this site")
    camera: Name | None = Field(None, description="results of this camera")
    originals: Keep | None = Field(None, description="as in [retention]; none: as there")
    evidence: Keep | None = Field(None, description="as in [retention]; none: as there")
    results: Keep | None = Field(None, description="as in [retention]; none: as there")

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.label is None and self.site is None and self.camera is None:
            raise ValueError(
                "a retention rule for everything is what [retention] says; give it a label, site or camera"
            )
        return self


class RetentionSettings(Section):
    """How long things are kept, counted from their reception (docs/storage.md): 12h, 30d, 8w, 2y, or ever."""

    originals: Keep = Field("ever", description="pictures as they were received")
    evidence: Keep = Field("ever", description="then a thumbnail and the crops of what was found in them")
    results: Keep = Field("ever", description="results, and with them everything that tells of them")
    reencode: Annotated[str, AfterValidator(_encoding)] = Field(
        "", description="encode pictures anew, such as webp:80, avif:60 or jpeg:80; empty: never"
    )
    reencode_after: Keep = Field("7d", description="how long they stay as received before that")
    max_bytes: int = Field(
        0, ge=0, description="bytes of pictures above which the oldest originals go early; 0: no limit"
    )
    rules: list[RetentionRuleSettings] = []


class KeySettings(Section):
    """An API key defined in the file: only its SHA-256 stands here (`eyeline keys hash`)."""

    name: Name = Field(description="who holds it")
    sha256: str = Field(pattern=SHA256, description="its SHA-256 in hex, as `eyeline keys hash` prints it")
    role: Role = Field("ingest", description="what it may do (docs/security.md)")
    sites: list[Name] = Field([], description="none listed: all sites")


class Settings(Section):
    """All settings. Every default works with no file at all."""

    data_dir: Path = Field(Path("eyeline-data"), description="folder of everything embedded; on a local disk")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    gateway: GatewaySettings = GatewaySettings()
    queue: QueueSettings = QueueSettings()
    blobs: BlobSettings = BlobSettings()
    results: ResultSettings = ResultSettings()
    cache: CacheSettings = CacheSettings()
    inference: InferenceSettings = InferenceSettings()
    worker: WorkerSettings = WorkerSettings()
    sites: list[SiteSettings] = [SiteSettings(name="default")]
    pipelines: list[PipelineSettings] = []
    cameras: list[CameraSettings] = []
    mqtt: MqttSettings = MqttSettings()
    alerts: AlertSettings = AlertSettings()
    outputs: list[OutputSettings] = []
    reports: ReportSettings = ReportSettings()
    items: ItemSettings = ItemSettings()
    review: ReviewSettings = ReviewSettings()
    cost: CostSettings = CostSettings()
    retention: RetentionSettings = RetentionSettings()
    keys: list[KeySettings] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind in ("sites", "pipelines", "cameras", "keys"):
            _unique(kind, [entry.name for entry in getattr(self, kind)])
        _unique("alerts.channels", [channel.name for channel in self.alerts.channels])
        _unique("alerts.rules", [rule.name for rule in self.alerts.rules])
        sites = {site.name for site in self.sites} | {"default"}
        for camera in self.cameras:
            _known("site", camera.site, sites, f"camera {camera.name!r}")
            if camera.pipeline is not None:
                _known("pipeline", camera.pipeline, self._pipeline_names(), f"camera {camera.name!r}")
        self._channels_known()
        return self

    def _channels_known(self) -> None:
        """Names of outputs and channels stand side by side in the delivery record."""
        channels = {channel.name for channel in self.alerts.channels} | {"log"}
        _unique("outputs", [*sorted(channels), *(output.name for output in self.outputs)])
        asked = [(f"rule {rule.name!r}", rule.notify) for rule in self.alerts.rules]
        asked += [(f"the escalation after {each.after:g} s", each.notify) for each in self.alerts.escalations]
        for where, names in [*asked, ("reports.notify", self.reports.notify)]:
            for name in names:
                _known("channel", name, channels, where)

    def _pipeline_names(self) -> set[str]:
        return {pipeline.name for pipeline in self.pipelines}

    @property
    def default_pipeline(self) -> str:
        """The pipeline of requests and cameras that name none: the first one."""
        return self.pipelines[0].name if self.pipelines else "default"

    def rooted(self) -> "Settings":
        """The same settings with empty backend URLs filled in under `data_dir`, which is made absolute."""
        root = self.data_dir.expanduser().resolve()
        return self.model_copy(
            update={
                "data_dir": root,
                "queue": self.queue.model_copy(update={"url": self.queue.url or f"sqlite:///{root}/queue.db"}),
                "blobs": self.blobs.model_copy(update={"url": self.blobs.url or f"file://{root}/blobs"}),
                "results": self.results.model_copy(update={"url": self.results.url or f"sqlite:///{root}/results.db"}),
                "cache": self.cache.model_copy(update={"url": self.cache.url or f"sqlite:///{root}/cache.db"}),
            }
        )


def _unique(kind: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{kind}: the name {twice[0]!r} stands twice; give each its own")


def _known(kind: str, name: str, known: set[str], where: str) -> None:
    if name not in known:
        raise ValueError(f"{where} names the {kind} {name!r}, which is not defined; defined: {sorted(known)}")


def load_settings(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings from `config` (or ./eyeline.toml where it exists), then the environment, then `overrides`.

    `overrides` is a nested mapping as in the file. Raises ConfigError naming key, value and the way out.
    """
    path = config or Path("eyeline.toml")
    tree = _read(path) if config is not None or path.exists() else {}
    sources = [str(path)] if tree else []
    set_outside = _from_environment(os.environ if environ is None else environ)
    sources += ["the environment"] if set_outside else []
    _merge(tree, set_outside)
    _merge(tree, dict(overrides or {}))
    try:
        return Settings.model_validate(tree).rooted()
    except ValidationError as error:
        raise ConfigError(_explain(error, " and ".join(sources) or "the command line")) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no settings file at {path}; make one, or leave --config out to use the defaults") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """`EYELINE_QUEUE__URL=x` → {"queue": {"url": "x"}}. A name of one part that is no setting (EYELINE_API_KEY) is left
    alone; one of several parts can only have been meant as a setting. Raises ConfigError.
    """
    tree: dict[str, Any] = {}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX):
            continue
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        if parts[0] not in Settings.model_fields:
            if len(parts) == 1:
                continue
            raise ConfigError(f"settings in the environment: {name}: no such setting{_nearest((parts[0],))}")
        here = tree
        for part in parts[:-1]:
            here = here.setdefault(part, {})
        here[parts[-1]] = _value(value)
    return tree


def _value(text: str) -> Any:
    """A list or table is written as in TOML; everything else is text, which pydantic turns into what it must be."""
    if text[:1] in "[{":
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _merge(into: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _explain(error: ValidationError, source: str) -> str:
    """One line a problem: where, what value, what to do."""
    return f"settings in {source}: " + "; ".join(_sentence(problem) for problem in error.errors())


def rule_of(tree: Mapping[str, Any]) -> RuleSettings:
    """The settings of one rule that came from outside. Raises BadRule naming the word."""
    try:
        return RuleSettings.model_validate(tree)
    except ValidationError as error:
        problems = error.errors()
        words = [str(part) for part in problems[0]["loc"][:1]]
        said = "; ".join(_sentence(problem, RuleSettings) for problem in problems)
        raise BadRule(said, told={"field": words[0] if words else None}) from error


def _sentence(problem: Any, root: type[BaseModel] = Settings) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    where = f"{place}: " if place else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}no such setting{_nearest(problem['loc'], root)}"
    if problem["type"] == "value_error":
        return f"{where}{problem['msg'].removeprefix('Value error, ')}"
    said = _WANTED.get(problem.get("ctx", {}).get("pattern"), problem["msg"])
    return f"{where}{said} (got {_shown(place, problem.get('input'))})"


def _shown(where: str, value: Any) -> str:
    secret = any(word in where for word in ("secret", "password", "token"))
    return "***" if secret else mask(repr(value))[:120]


def _nearest(location: tuple[int | str, ...], root: type[BaseModel] = Settings) -> str:
    names = [part for part in location if isinstance(part, str)]
    known = _fields_at(location[:-1], root)
    near = get_close_matches(names[-1], known, n=1) if names else []
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(sorted(known))}"


def _fields_at(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    model: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        model = arguments[0] if arguments else annotation
    return list(model.model_fields)


def mask(text: str) -> str:
    """`text` with the password and query of a URL hidden; what is printed or logged goes through here."""
    if text.startswith("apprise:"):  # tokens stand anywhere in it
        return f"{text.partition('://')[0]}://***"
    if "," in text and text.count("://") > 1:  # a list of URLs
        return ",".join(map(mask, text.split(",")))
    parts = urlsplit(text) if "://" in text else None
    if parts is None or (not parts.password and not parts.query):
        return text
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    user = f"{parts.username}:***@" if parts.password else ""
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "***" if parts.query else "", ""))


def place(url: str) -> str:
    """Where a channel's URL leads, without all that may be a secret in it: user, password, path, query."""
    parts = urlsplit(url)
    if not parts.hostname or url.startswith("apprise:"):
        return mask(url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as plain data with every secret masked, for `eyeline check` and /v1/system."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        return mask(value) if isinstance(value, str) else value

    cleaned: dict[str, Any] = clean(settings.model_dump(mode="json"))
    defined: list[ChannelSettings | OutputSettings] = [*settings.alerts.channels, *settings.outputs]
    for told, channel in zip([*cleaned["alerts"]["channels"], *cleaned["outputs"]], defined, strict=True):
        told["url"] = place(channel.url)  # of many webhooks the path is the secret
    return cleaned
