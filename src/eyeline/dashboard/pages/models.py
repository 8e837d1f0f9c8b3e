"""Models: versions, what each server serves, and which version is to serve."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import InputError
from eyeline.core.pages import Page, principal_of
from eyeline.core.types import VerdictKind
from eyeline.dashboard.pages.parity import ParityPart
from eyeline.dashboard.shell import Room, Shell, form_of
from eyeline.inference.rollout import askable
from eyeline.stores.results.base import Matches, ResultQuery

#: Live is a word of the wall already; here it means that it serves.
STATES = {"live": "serving"}
#: Over how many days the results of a version are counted.
DAYS = 7
#: What a version costs and how often it is doubted is read from so many of its newest results of a day.
NEWEST, DAY = 200, timedelta(days=1)


def _pages(shell: Shell) -> Sequence[Page]:
    parity = ParityPart(shell)
    page = ModelsPage(shell, parity)
    post = {"room": "models", "methods": ("POST",), "right": "manage"}
    return (
        shell.page("/models", page.show, room="models"),
        shell.page("/models/parity.txt", parity.text, room="models"),
        shell.page("/models/{name}/golden", parity.check, **post),  # type: ignore[arg-type]
        shell.page("/models/{name}/canary", page.try_out, **post),  # type: ignore[arg-type]
        shell.page("/models/{name}/canary/end", page.take_back, **post),  # type: ignore[arg-type]
    )


ROOM = Room(name="models", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a version answered in the last days, and what people said of it."""

    results: Matches
    judged: int
    wrong: int


@dataclass(frozen=True, kw_only=True)
class Lately:
    """What the newest results of a version say of the last day: the mean time of inference, and the share sent to review."""

    results: int
    milliseconds: float | None
    reviewed: float


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """The newest comparison of a version with another one of its model."""

    comparison: str
    other: str
    share: float
    compared: int


@dataclass(frozen=True, kw_only=True)
class VersionView:
    """One version of a model. `sites`: where it answers; None: nowhere."""

    version: str
    state: str
    digest: str
    megabytes: float | None
    made_at: datetime | None
    error: str
    temperature: float | None = None
    sites: Sequence[str] | None = None
    figures: Figures | None = None
    lately: Lately | None = None
    disagreement: Disagreement | None = None


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A model. `served`: what each server answers with; `versions`: only of those that have several to choose from."""

    name: str
    task: str
    pipeline: str | None
    version: str
    labels: int
    licence: str
    error: str
    versions: Sequence[VersionView]
    served: Sequence[tuple[str, str, str]]

    @property
    def can_go_back(self) -> bool:
        """Whether another version served before."""
        return any(version.state == "retired" for version in self.versions)

    @property
    def canary(self) -> VersionView | None:
        """The version that is tried out, where there is one."""
        return next((version for version in self.versions if version.state == "canary"), None)

    @property
    def others(self) -> Sequence[str]:
        """The versions that could be tried out."""
        return [version.version for version in self.versions if version.state != "serving" and not version.error]


class ModelsPage:
    """GET /models, and the forms on it."""

    def __init__(self, shell: Shell, parity: ParityPart) -> None:
        self._shell = shell
        self._parity = parity
        self._sites = [site.name for site in shell.sources.settings.sites]

    async def show(self, request: Request) -> Response:
        """All models; those with versions first."""
        who = principal_of(request)
        told = await self._shell.sources.models()
        figures = await self._figures(told.get("models", []), who)
        lately = await self._lately(told.get("models", []), who)
        comparisons = await self._shell.sources.comparisons(who)
        models = [
            _model(model, told.get("servers", []), figures, lately, comparisons) for model in told.get("models", [])
        ]
        models.sort(key=lambda model: (not model.versions, model.name))
        asked = request.query_params.get("rollback", "")[:200]  # by an alert, whose cause it may be
        history = [dict(line) | {"at": parse_time(line["at"])} for line in told.get("history", [])[:50]]
        return await self._shell.render(
            request,
            "models.html",
            room="models",
            title=self._shell.words.say("models.title"),
            script="js/pages/models.js",
            models=models,
            asked=asked,
            can_go_back=who.may("manage") and any(model.name == asked and model.can_go_back for model in models),
            history=history,
            sites=self._sites,
            days=DAYS,
            comparisons=comparisons,
            choices=await asyncio.to_thread(askable, self._shell.sources.settings) if who.may("operate") else [],
            seen=[site for site in self._sites if who.sees(site)],
            **await self._parity.view(told),
            may_check=who.may("operate"),
            may_change=who.may("manage"),
        )

    async def try_out(self, request: Request) -> Response:
        """The form that lets a version answer for the ticked sites."""
        name, form = request.path_params["name"], await form_of(request)
        sites = [field.removeprefix("site.") for field in form if field.startswith("site.")]
        await self._shell.sources.try_out(
            principal_of(request), name, form.get("version", ""), sites, _confirmed(name, form)
        )
        return self._shell.see("/models")

    async def take_back(self, request: Request) -> Response:
        """The form that lets the version that serves answer everywhere again."""
        name = request.path_params["name"]
        await self._shell.sources.take_back(principal_of(request), name, _confirmed(name, await form_of(request)))
        return self._shell.see("/models")

    async def _figures(self, models: Sequence[Mapping[str, Any]], who: Principal) -> dict[tuple[str, str], Figures]:
        """Of the two versions of each model that answer while one is tried out: only then is there something to compare."""
        answering = [
            (model["name"], version["version"])
            for model in models
            if any(version["state"] == "canary" for version in model["versions"])
            for version in model["versions"]
            if version["state"] in {"live", "canary"}
        ]
        return dict(
            zip(answering, await asyncio.gather(*(self._counted(*each, who) for each in answering)), strict=True)
        )

    async def _counted(self, name: str, version: str, who: Principal) -> Figures:
        since, store = utcnow() - timedelta(days=DAYS), self._shell.sources.results

        async def count(verdict: VerdictKind | None) -> Matches:
            return await store.matches(replace(_answers(name, version, who), since=since, verdict=verdict))

        kinds: tuple[VerdictKind | None, ...] = (None, "confirmed", "corrected", "rejected")
        results, *judged = await asyncio.gather(*(count(kind) for kind in kinds))
        right, *wrong = (each.count for each in judged)
        return Figures(results=results, judged=right + sum(wrong), wrong=sum(wrong))

    async def _lately(self, models: Sequence[Mapping[str, Any]], who: Principal) -> dict[tuple[str, str], Lately]:
        named = [(model["name"], version["version"]) for model in models for version in model["versions"]]
        return dict(zip(named, await asyncio.gather(*(self._day(*each, who) for each in named)), strict=True))

    async def _day(self, name: str, version: str, who: Principal) -> Lately:
        store = self._shell.sources.results
        found, _ = await store.find(replace(_answers(name, version, who), since=utcnow() - DAY, limit=NEWEST))
        doubted = await store.doubted([result.id for result in found])
        took = [result.timings["infer"] for result in found if "infer" in result.timings]
        return Lately(
            results=len(found),
            milliseconds=1000 * sum(took) / len(took) if took else None,
            reviewed=len(doubted) / max(1, len(found)),
        )


def _confirmed(name: str, form: Mapping[str, str]) -> str:
    """The reason, once the model's name was typed. Raises InputError."""
    if form.get("typed", "").strip() != name:
        raise InputError(f"type the model's name, {name}, to confirm; nothing was changed")
    reason = " ".join(form.get("reason", "").split())[:500]
    if len(reason) < 3:
        raise InputError("say why, in a few words; it is kept in the audit. Nothing was changed")
    return reason


def _answers(name: str, version: str, who: Principal) -> ResultQuery:
    """What a version answered; what it was asked aside is not among the completed ones."""
    return ResultQuery(sites=who.sites, model=f"{name}@{version}", status="completed")


def _disagreement(name: str, version: str, comparisons: Sequence[Mapping[str, Any]]) -> Disagreement | None:
    """Where this version is on one side of a comparison, and another of its model on the other; the newest first."""
    for one in comparisons:
        sides = [_version_of(name, side["models"]) for side in (one["a"], one["b"])]
        if one["compared"] and version in sides and None not in sides and sides[0] != sides[1]:
            other = next(side for side in sides if side != version)
            share = 1 - one["alike"] / one["compared"]
            return Disagreement(comparison=one["id"], other=other or "", share=share, compared=one["compared"])
    return None


def _version_of(name: str, models: Sequence[str]) -> str | None:
    """The version of the model among name@version+digest."""
    return next((one.partition("@")[2].partition("+")[0] for one in models if one.partition("@")[0] == name), None)


def _model(
    model: Mapping[str, Any],
    servers: Sequence[Any],
    figures: Mapping[tuple[str, str], Figures],
    lately: Mapping[tuple[str, str], Lately],
    comparisons: Sequence[Mapping[str, Any]],
) -> ModelView:
    return ModelView(
        name=model["name"],
        task=model.get("task", ""),
        pipeline=model.get("pipeline"),
        version=model.get("version", ""),
        labels=len(model.get("labels", ())),
        licence=model.get("licence", ""),
        error=model.get("error", ""),
        versions=[
            _version(
                version,
                figures=figures.get((model["name"], version["version"])),
                lately=lately.get((model["name"], version["version"])),
                disagreement=_disagreement(model["name"], version["version"], comparisons),
            )
            for version in reversed(model["versions"])
        ],
        served=[row for server in servers for row in _served(server, model["name"])],
    )


def _served(server: Any, name: str) -> list[tuple[str, str, str]]:
    """(server, version, what is wrong)."""
    if server.error:
        return [(server.url, "", server.error)]
    return [(server.url, row["version"], "") for row in server.models if row["name"].partition("@")[0] == name]


def _version(version: Mapping[str, Any], **measured: Any) -> VersionView:
    made = version.get("made_at")
    size = version.get("bytes")
    return VersionView(
        version=version["version"],
        state=STATES.get(version["state"], version["state"]),
        digest=version.get("digest", ""),
        megabytes=None if size is None else size / 1e6,
        made_at=None if made is None else datetime.fromtimestamp(made, UTC),
        error=version.get("error", ""),
        sites=version.get("sites"),
        temperature=version.get("temperature"),
        **measured,
    )
