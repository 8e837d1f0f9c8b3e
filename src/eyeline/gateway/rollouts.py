"""Which version of a model serves, and which is tried out where: changed one at a time, recorded, for the API and the page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import ConfigError, Conflict, EyelineError, InputError, NotFound
from eyeline.core.settings import Settings
from eyeline.core.telemetry import printable
from eyeline.inference import rollout
from eyeline.inference.bundles import load_named, locate, made_with, versions
from eyeline.inference.proving import prove_apart
from eyeline.inference.rollout import Rolled
from eyeline.inference.servers import Servers
from eyeline.stores.results.base import Action, ResultStore

#: The name under which the history of what served lies in the store, and how much of it is kept.
HISTORY, REMEMBERED = "models/history", 200
#: The same of what golden checks found that were asked for: the newest of each server and model.
GOLDEN = "models/golden"
What = Literal["model.promoted", "model.rolled_back", "model.tried_out", "model.taken_back"]


class Rollouts:
    """Changes which versions serve: one change at a time, recorded with who did it and why, told to whoever listens."""

    def __init__(self, settings: Settings, results: ResultStore, servers: Servers | None) -> None:
        self.settings = settings
        self._models = settings.inference.models
        self._results = results
        self._servers = servers
        self._changing = asyncio.Lock()

    async def promote(self, who: Principal, name: str, version: str, reason: str) -> dict[str, Any]:
        """Let a version serve everywhere. Raises NotFound, Conflict, as all of these do."""
        work = rollout.promote(self._models, name, version, self._servers)
        return await self._rolled(who, "model.promoted", reason, work)

    async def rollback(self, who: Principal, name: str, reason: str) -> dict[str, Any]:
        """Let the version serve that served before."""
        return await self._rolled(who, "model.rolled_back", reason, rollout.rollback(self._models, name, self._servers))

    async def try_out(
        self, who: Principal, name: str, version: str, sites: Sequence[str], reason: str
    ) -> dict[str, Any]:
        """Let a version answer for these sites. Raises InputError for a site that there is not."""
        known = [site.name for site in self.settings.sites]
        strange = next((site for site in sites if site not in known), None)
        if strange is not None:
            raise InputError(f"no site is called {printable(strange, 64)!r}; there are: {', '.join(known)}")
        work = rollout.try_out(self._models, name, version, sites, self._servers)
        return await self._rolled(who, "model.tried_out", reason, work)

    async def take_back(self, who: Principal, name: str, reason: str) -> dict[str, Any]:
        """Let the version that serves answer for all sites again."""
        return await self._rolled(who, "model.taken_back", reason, rollout.take_back(self._models, name, self._servers))

    async def verify(self, name: str, version: str | None) -> dict[str, Any]:
        """Check a version apart from what serves."""
        where = await asyncio.to_thread(locate, self._models)
        if name not in where:
            raise NotFound(f"no model is called {printable(name, 80)!r}; installed: {', '.join(sorted(where))}")
        path = versions(self._models / name).get(version) if version else where[name]
        if path is None:
            raise NotFound(f"{name} has no version {printable(version or '', 40)!r}")
        async with _alone(self._changing):
            try:
                proof = await prove_apart(name, path, self.settings.inference, self.settings.data_dir / "engines")
            except ConfigError as error:
                return {"model": name, "version": path.name, "passed": False, "detail": str(error)}
        return {"model": name, "version": path.name, "passed": True, "digest": proof.digest}

    async def check_golden(self, who: Principal, name: str) -> dict[str, Any]:
        """Send the golden pictures of a model through each server that serves it, now. Raises NotFound, Conflict."""
        if name not in await asyncio.to_thread(locate, self._models):
            raise NotFound(f"no model is called {printable(name, 80)!r}; see GET /v1/models")
        async with _alone(self._changing):
            found = await self._servers.checked(self._models, name) if self._servers else []
            if not found:
                raise Conflict(f"no server serves {name}: there is nothing to check")
            rows = [row | {"by": who.name} for row in found]
            short = [{key: row.get(key, "") for key in ("server", "model", "version", "passed")} for row in rows]
            action = Action(what="model.checked", by=who.name, body={"model": name, "servers": short})
            await _keep(self._results, GOLDEN, lambda kept: [*_of_others(kept, name), *rows], action)
        return {"model": name, "servers": rows}

    async def catalogue(self) -> dict[str, Any]:
        """What is installed, what each server serves, and what was promoted by whom; for the API and the page."""
        return {
            "models": await asyncio.to_thread(_with_versions, self.settings),
            "servers": await self._servers.compared() if self._servers else [],
            "golden": await _kept(self._results, GOLDEN),
            "history": await _kept(self._results, HISTORY),
        }

    async def _rolled(
        self, who: Principal, what: What, reason: str, work: Coroutine[Any, Any, Rolled]
    ) -> dict[str, Any]:
        try:
            async with _alone(self._changing):
                done = await work
                told: dict[str, Any] = {"what": what, "model": done.model, "version": done.version, "from": done.before}
                told |= {"reason": reason} if done.sites is None else {"reason": reason, "sites": done.sites}
                line = told | {"by": who.name, "at": isoformat(utcnow())}
                body = {name: value for name, value in told.items() if name != "what"}
                action = Action(what=what, by=who.name, body=body)
                await _keep(self._results, HISTORY, lambda kept: [line, *kept][:REMEMBERED], action)
        finally:
            work.close()  # where another change is under way it was never begun
        await self._results.add_event("system", "default", {"type": what} | body)
        return told | {"servers": done.servers, "waits": done.waits}


def installed(settings: Settings) -> list[dict[str, Any]]:
    """What each bundle says of itself; a broken one says why. Blocks: bundles are verified when they are new."""
    used = {model: pipeline.name for pipeline in settings.pipelines for model in pipeline.models}
    return [
        {"name": name, "pipeline": used.get(name)} | _said(name, path, _changed(path))
        for name, path in sorted(locate(settings.inference.models).items())
    ]


def _changed(path: Path) -> int:
    """When the bundle was last written, for the memory of `_said`."""
    try:
        return (path if path.is_file() else path / "model.toml").stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _said(name: str, path: Path, _changed: int) -> dict[str, Any]:
    try:
        bundle = load_named(name, path)
    except EyelineError as error:
        return {"error": str(error)}
    contract = bundle.contract
    fields = ("task", "labels", "licence", "description", "input")
    made = {"made_with": made_with(bundle)}
    return {"version": bundle.version} | {field: getattr(contract, field) for field in fields} | made


def _with_versions(settings: Settings) -> list[dict[str, Any]]:
    models = settings.inference.models
    return [model | {"versions": rollout.versions(models / model["name"])} for model in installed(settings)]


@asynccontextmanager
async def _alone(lock: asyncio.Lock) -> AsyncIterator[None]:
    """Raises Conflict where another one is at it: a second change meanwhile would be one that its author cannot see."""
    if lock.locked():
        raise Conflict("another version is being checked or loaded now; try again when that is done")
    async with lock:
        yield


Lines = list[dict[str, Any]]


async def _kept(results: ResultStore, name: str) -> Lines:
    return _lines(await results.load_state(name))


async def _keep(results: ResultStore, name: str, changed: Callable[[Lines], Lines], action: Action) -> None:
    """What another gateway keeps at the same moment stays: the row is moved only from what was read."""
    kept = False
    while not kept:
        before = await results.load_state(name)
        kept = await results.replace_state(name, before, msgspec.json.encode(changed(_lines(before))), action)


def _lines(kept: bytes | None) -> Lines:
    found: Lines = msgspec.json.decode(kept) if kept else []
    return found


def _of_others(kept: Lines, name: str) -> Lines:
    return [row for row in kept if row["model"].partition("@")[0] != name]
