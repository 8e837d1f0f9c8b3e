"""One result as evidence: the picture with what was said of it, where it came from, and its place in the audit."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import BackendError
from eyeline.core.ids import is_uuid
from eyeline.core.pages import Page, principal_of
from eyeline.core.types import Detection, ModelRef, Result
from eyeline.dashboard.cases import alerts_of
from eyeline.dashboard.format import PALETTE
from eyeline.dashboard.pictures import DOUBTFUL, colour_of, known_labels
from eyeline.dashboard.shell import Room, Shell, unknown
from eyeline.inference.bundles import pinned
from eyeline.inference.rollout import askable
from eyeline.stores.pictures import original_of
from eyeline.stores.results.base import ResultQuery
from eyeline.stores.results.review import VerdictRecord, shown

#: Replays of one record that its page shows.
REPLAYS = 50
SHOWN = ("original", "corrected", "difference")
#: Stages in the order of the way, as far as they were measured.
STAGES = ("fetch", "queue", "decode", "preprocess", "infer_queue", "infer", "postprocess", "store", "cache")


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A box on the picture and in the table: its number is the same in both, so that it works without colours."""

    number: int
    label: str
    score: float
    box: tuple[float, float, float, float]
    step: str
    colour: str
    doubtful: bool
    change: str = ""  # kept, added, removed


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage in the waterfall, in a picture of 100 units across."""

    name: str
    seconds: float
    x: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """A model that answered; `files` are the digests that its version stands for, where that version is here still."""

    model: ModelRef
    files: Mapping[str, str] | None


def _pages(shell: Shell) -> tuple[Page, ...]:
    return (shell.page("/audit/{id}", RecordPage(shell).show, room="audit"),)


ROOM = Room(name="record", pages=_pages)


class RecordPage:
    """GET /audit/{id}."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """The record, made to be printed on one page."""
        who = principal_of(request)
        result = await self._result(request.path_params["id"], who)
        verdicts = await self._sources.results.verdicts(result.id)
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        corrected = result.verdict is not None and result.verdict.detections is not None
        wanted = request.query_params.get("show", "corrected" if corrected else "original")
        way = wanted if wanted in SHOWN and (corrected or wanted == "original") else "original"
        site = next((site for site in self._sources.settings.sites if site.name == result.site), None)
        return await self._shell.render(
            request,
            "record.html",
            room="audit",
            title=self._shell.words.say("record.title"),
            script="js/pages/record.js",
            data={"id": result.id},
            result=result,
            boxes=_boxes(result, way, labels),
            named=shown(result, result.verdict if way != "original" else None).classifications,
            way=way,
            ways=SHOWN if corrected else (),
            stages=_stages(result),
            verdicts=[_told(record) for record in reversed(verdicts)],
            proof=await self._proof(result),
            models=await asyncio.to_thread(self._answerers, result),
            clock=await self._clock(result),
            alerts=await alerts_of(self._sources, who, result.id),
            zone=site.timezone if site else "UTC",
            printed_at=utcnow(),
            may=who.may("operate"),
            replays=await self._replays(result, who),
            choices=await self._choices(result, who),
            asked=request.query_params.get("asked", "")[:64],
            unit=max(result.image.width, result.image.height) / 60 if result.image else 1,
        )

    async def _result(self, id: str, who: Principal) -> Result:  # noqa: A002
        result = await self._sources.results.get(id) if is_uuid(id) else None
        if result is None or not who.sees(result.site):
            raise unknown("result", id)
        return result

    def _answerers(self, result: Result) -> list[Answerer]:
        folder = self._sources.settings.inference.models
        return [Answerer(model=model, files=pinned(folder, model.name, model.version)) for model in result.models]

    async def _clock(self, result: Result) -> dict[str, Any] | None:
        """What the camera said last of a clock that is off, and when: a record does not keep it."""
        report = (await self._sources.results.cameras()).get(result.camera or "") or {}
        conditions = (report.get("health") or {}).get("conditions") or {}
        if report.get("site") != result.site or "clock" not in conditions:
            return None
        return {"said": conditions["clock"], "at": parse_time(report["reported_at"])}

    async def _replays(self, result: Result, who: Principal) -> list[Result]:
        """The record, and what other models answered when they were asked about its picture; the first first."""
        found, _ = await self._sources.results.find(ResultQuery(sites=who.sites, ref=result.id, limit=REPLAYS))
        return [result, *(one for one in reversed(found) if one.aside and one.replay_of == result.id)]

    async def _choices(self, result: Result, who: Principal) -> list[tuple[str, str]] | None:
        """Whom else to ask about its picture; None where it is not kept as it was received."""
        if not who.may("operate") or result.image is None or result.aside:
            return []
        if await self._sources.results.picture(original_of(result.site, result.image).url) is not None:
            return None
        return await asyncio.to_thread(askable, self._sources.settings)

    async def _proof(self, result: Result) -> dict[str, Any] | None:
        """What is away is said to be away; the page is shown."""
        try:
            return await self._sources.prove(self._sources.results, result.id)
        except BackendError:
            return None


def _boxes(result: Result, way: str, labels: Sequence[str]) -> list[Numbered]:
    corrected = shown(result, result.verdict).detections
    if way == "original":
        listed = [(found, "") for found in result.detections]
    elif way == "corrected":
        listed = [(found, "") for found in corrected]
    else:
        listed = [(found, "kept" if found in corrected else "removed") for found in result.detections]
        listed += [(found, "added") for found in corrected if found not in result.detections]
    return [_numbered(number, found, change, labels) for number, (found, change) in enumerate(listed, 1)]


def _numbered(number: int, found: Detection, change: str, labels: Sequence[str]) -> Numbered:
    inner = (found.attributes.get("classifications") or [None])[0]
    label, score = (inner["label"], inner["score"]) if inner else (found.label, found.score)
    return Numbered(
        number=number,
        label=label,
        score=score,
        box=found.box,
        step=found.step,
        colour=PALETTE[colour_of(label, labels)],
        doubtful=score < DOUBTFUL,
        change=change,
    )


def _stages(result: Result) -> list[Stage]:
    """One after the other; what is not a stage of the way stands at the end."""
    names = [name for name in STAGES if name in result.timings]
    names += sorted(name for name in result.timings if name not in STAGES)
    total = sum(result.timings.values()) or 1.0
    stages, at = [], 0.0
    for name in names:
        share = 100 * result.timings[name] / total
        stages.append(Stage(name=name, seconds=result.timings[name], x=round(at, 2), width=round(max(0.4, share), 2)))
        at += share
    return stages


def _told(record: VerdictRecord) -> dict[str, Any]:
    return {"record": record, "boxes": len(record.after.detections) if record.after else None}
