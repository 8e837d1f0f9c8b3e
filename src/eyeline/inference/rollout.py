"""Which version of a model serves, and which is tried out at some sites: changed on the disk, loaded by the servers that answer,
taken back where they refuse.

A server checks a version apart (digests, golden images, batches) while the old one serves, then swaps and lets the old one
answer what it has in hand. So a version that fails its check has never served, and the one before goes on.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eyeline.core.errors import ConfigError, Conflict, NotFound
from eyeline.core.settings import Settings
from eyeline.core.telemetry import printable
from eyeline.inference import bundles
from eyeline.inference.base import Canary
from eyeline.inference.servers import Loaded, Servers

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What serves now in place of what, and what each server said."""

    model: str
    version: str
    before: str | None
    sites: tuple[str, ...] | None = None  # at which it is tried out; None: it serves everywhere
    servers: list[Loaded] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether no server answered: then it serves from the next load on."""
        return not any(one.version for one in self.servers)


async def promote(models: Path, name: str, version: str, servers: Servers | None) -> Rolled:
    """Let `version` serve. Raises NotFound, Conflict with the reason of the servers, the one before still serving."""
    entry = await asyncio.to_thread(_entry, models, name)
    _known(entry, version)
    return await _change(entry, servers, lambda: _promoted(entry, version))


async def rollback(models: Path, name: str, servers: Servers | None) -> Rolled:
    """Let the version serve that served before. Raises NotFound, Conflict."""
    entry = await asyncio.to_thread(_entry, models, name)
    return await _change(entry, servers, lambda: bundles.rollback(entry))


async def try_out(models: Path, name: str, version: str, sites: Sequence[str], servers: Servers | None) -> Rolled:
    """Let `version` answer for these sites (for none: for replays alone), beside the one that serves all others.

    Raises NotFound, Conflict with the reason of the servers, nothing changed.
    """
    entry = await asyncio.to_thread(_entry, models, name)
    _known(entry, version)
    serving, before = bundles.serving_version(entry), bundles.canary(entry)
    if serving is not None and serving.name == version:
        raise Conflict(f"{name} {version} serves everywhere already; try out another version")
    chosen = Canary(version, tuple(sorted(set(sites))))
    await _write(entry, lambda: bundles.remember_canary(entry, chosen))
    loaded = await _loaded(chosen.address(name), version, servers, lambda: bundles.remember_canary(entry, before))
    if before is not None and before.version != version and servers:
        await servers.unload(before.address(name))
    return Rolled(model=name, version=version, before=_name(serving), sites=chosen.sites, servers=loaded)


async def take_back(models: Path, name: str, servers: Servers | None) -> Rolled:
    """Let the version that serves answer for all sites again. Raises NotFound, Conflict where none is tried out."""
    entry = await asyncio.to_thread(_entry, models, name)
    before, serving = bundles.canary(entry), bundles.serving_version(entry)
    if before is None or serving is None:
        raise Conflict(f"no version of {name} is tried out now")
    await _write(entry, lambda: bundles.remember_canary(entry, None))
    if servers:
        await servers.unload(before.address(name))
    return Rolled(model=name, version=serving.name, before=before.version)


def askable(settings: Settings) -> list[tuple[str, str]]:
    """Whom a picture can be shown: each pipeline as it serves (""), and with each version that is tried out. Blocks."""
    found: list[tuple[str, str]] = []
    for pipeline in settings.pipelines:
        tried = ((name, bundles.canary(settings.inference.models / name)) for name in pipeline.models)
        found += [(pipeline.name, ""), *((pipeline.name, one.address(name)) for name, one in tried if one is not None)]
    return found


def versions(entry: Path) -> list[dict[str, Any]]:
    """Every version under a model's folder, oldest first: its digest, when it came, its size, whether it serves, and the sites
    at which it is tried out. Blocks.
    """
    serving, tried = bundles.serving_version(entry), bundles.canary(entry)
    earlier = bundles.history(entry)
    told = [_told(path, serving, earlier) for path in bundles.versions(entry).values()]
    return [
        one | {"state": "canary", "sites": tried.sites} if tried and one["version"] == tried.version else one
        for one in told
    ]


def _told(path: Path, serving: Path | None, earlier: list[str]) -> dict[str, Any]:
    state = "live" if path == serving else "retired" if path.name in earlier else "staged"
    try:
        manifest = (path / bundles.MANIFEST).read_bytes()
        size = (path / bundles.WEIGHTS).stat().st_size
        made = (path / bundles.MANIFEST).stat().st_mtime
        temperature = _temperature(path)
    except OSError as error:
        return {"version": path.name, "state": "broken", "error": str(error.strerror)}
    digest = hashlib.sha256(manifest).hexdigest()
    told = {"version": path.name, "state": state, "digest": digest, "bytes": size, "made_at": made}
    return told | {"temperature": temperature}


def _temperature(path: Path) -> float | None:
    """How the scores of a classifier are calibrated, 1 where they are not; None for other models, and where nobody can tell."""
    try:
        contract = bundles.read_contract(path / "model.toml")
    except ConfigError:
        return None  # the check of the version says what is wrong with it
    return contract.output.temperature if contract.task == "classification" else None


def _entry(models: Path, name: str) -> Path:
    """The folder of a model's versions. Raises NotFound, Conflict."""
    if not re.fullmatch(bundles.NAME, name) or name not in bundles.locate(models):
        raise NotFound(f"no model is called {printable(name, 80)!r}")
    entry = models / name
    if not bundles.versions(entry):
        raise Conflict(
            f"{name} lies there in one version alone; put versions into {entry}/VERSION to choose between them"
        )
    return entry


def _promoted(entry: Path, version: str) -> str:
    bundles.promote(entry, version)
    return version


def _known(entry: Path, version: str) -> None:
    known = bundles.versions(entry)
    if version not in known:
        raise NotFound(f"{entry.name} has no version {printable(version, 40)!r}; known: {', '.join(known) or 'none'}")


def _name(path: Path | None) -> str | None:
    return path.name if path else None


async def _change(entry: Path, servers: Servers | None, change: Callable[[], str]) -> Rolled:
    """Let another version serve everywhere. Where that is the one that is tried out, it is not tried out any more."""
    history, serving, tried = bundles.history(entry), bundles.serving_version(entry), bundles.canary(entry)
    version = await _write(entry, change)
    loaded = await _loaded(entry.name, version, servers, lambda: bundles.remember(entry, history))
    if tried is not None and tried.version == version:
        await _write(entry, lambda: bundles.remember_canary(entry, None))
        if servers:
            await servers.unload(tried.address(entry.name))
    return Rolled(model=entry.name, version=version, before=_name(serving), servers=loaded)


async def _write(entry: Path, change: Callable[[], T]) -> T:
    """Change what is on the disk. Raises Conflict."""
    try:
        return await asyncio.to_thread(change)
    except ConfigError as error:
        raise Conflict(str(error)) from error
    except OSError as error:
        raise Conflict(f"{entry} cannot be written: {error.strerror}") from error


async def _loaded(address: str, version: str, servers: Servers | None, undo: Callable[[], None]) -> list[Loaded]:
    """Have the servers load what is on the disk. Where all that answer refuse it, it is taken back: raises Conflict."""
    try:
        loaded = await servers.load(address) if servers else []
    except BaseException:
        undo()
        raise
    refused = [one for one in loaded if one.error and one.answered]
    if refused and not any(one.version for one in loaded):
        await asyncio.to_thread(undo)
        name = address.partition("@")[0]
        raise Conflict(f"{name} {version} is not taken: {refused[0].error}; the version before goes on serving")
    return loaded
