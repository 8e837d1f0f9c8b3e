"""Models: versions, what each server serves, and which version is to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.clock import parse_time, utcnow
from eyeline.core.pages import Page, principal_of
from eyeline.dashboard.parity import parity, releases
from eyeline.dashboard.shell import Room, Shell

#: Live is a word of the wall already; here it means that it serves.
STATES = {"live": "serving"}
#: A process that did not report for so long (seconds) is not compared.
SILENT = 60.0


def _pages(shell: Shell) -> Sequence[Page]:
    return (shell.page("/models", ModelsPage(shell).show, room="models"),)


ROOM = Room(name="models", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class VersionView:
    """One version of a model."""

    version: str
    state: str
    digest: str
    megabytes: float | None
    made_at: datetime | None
    error: str


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


class ModelsPage:
    """GET /models."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def show(self, request: Request) -> Response:
        """All models; those with versions first."""
        who = principal_of(request)
        told = await self._shell.sources.models()
        models = [_model(model, told.get("servers", [])) for model in told.get("models", [])]
        models.sort(key=lambda model: (not model.versions, model.name))
        history = [dict(line) | {"at": parse_time(line["at"])} for line in told.get("history", [])[:50]]
        return await self._shell.render(
            request,
            "models.html",
            room="models",
            title=self._shell.words.say("models.title"),
            script="js/pages/models.js",
            models=models,
            history=history,
            parity=parity(told.get("servers", [])),
            releases=await self._releases(),
            may_check=who.may("operate"),
            may_change=who.may("manage"),
        )

    async def _releases(self) -> dict[str, list[str]]:
        now, rows = utcnow(), await self._shell.sources.results.replicas()
        return releases((row.id, row.version) for row in rows if (now - row.seen_at).total_seconds() < SILENT)


def _model(model: Mapping[str, Any], servers: Sequence[Any]) -> ModelView:
    return ModelView(
        name=model["name"],
        task=model.get("task", ""),
        pipeline=model.get("pipeline"),
        version=model.get("version", ""),
        labels=len(model.get("labels", ())),
        licence=model.get("licence", ""),
        error=model.get("error", ""),
        versions=[_version(version) for version in reversed(model["versions"])],
        served=[row for server in servers for row in _served(server, model["name"])],
    )


def _served(server: Any, name: str) -> list[tuple[str, str, str]]:
    """(server, version, what is wrong)."""
    if server.error:
        return [(server.url, "", server.error)]
    return [(server.url, row["version"], "") for row in server.models if row["name"] == name]


def _version(version: Mapping[str, Any]) -> VersionView:
    made = version.get("made_at")
    size = version.get("bytes")
    return VersionView(
        version=version["version"],
        state=STATES.get(version["state"], version["state"]),
        digest=version.get("digest", ""),
        megabytes=None if size is None else size / 1e6,
        made_at=None if made is None else datetime.fromtimestamp(made, UTC),
        error=version.get("error", ""),
    )
