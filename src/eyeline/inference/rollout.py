"""Which version of a model serves: changed on the disk, loaded by the servers that answer, taken back where they refuse.

A server checks a version apart (digests, golden images, batches) while the old one serves, then swaps and lets the old one
answer what it has in hand. So a version that fails its check has never served, and the one before goes on.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyeline.core.errors import ConfigError, Conflict, NotFound
from eyeline.core.telemetry import printable
from eyeline.inference import bundles
from eyeline.inference.servers import Loaded, Servers


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What serves now in place of what, and what each server said."""

    model: str
    version: str
    before: str | None
    servers: list[Loaded] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether no server answered: then it serves from the next load on."""
        return not any(one.version for one in self.servers)


async def promote(models: Path, name: str, version: str, servers: Servers | None) -> Rolled:
    """Let `version` serve. Raises NotFound, Conflict with the reason of the servers, the one before still serving."""
    entry = await asyncio.to_thread(_entry, models, name)
    known = bundles.versions(entry)
    if version not in known:
        raise NotFound(f"{name} has no version {printable(version, 40)!r}; known: {', '.join(known) or 'none'}")
    return await _change(entry, servers, lambda: _promoted(entry, version))


async def rollback(models: Path, name: str, servers: Servers | None) -> Rolled:
    """Let the version serve that served before. Raises NotFound, Conflict."""
    entry = await asyncio.to_thread(_entry, models, name)
    return await _change(entry, servers, lambda: bundles.rollback(entry))


def versions(entry: Path) -> list[dict[str, Any]]:
    """Every version under a model's folder, oldest first: its digest, when it came, its size, whether it serves. Blocks."""
    serving = bundles.serving_version(entry)
    earlier = bundles.history(entry)
    return [_told(path, serving, earlier) for path in bundles.versions(entry).values()]


def _told(path: Path, serving: Path | None, earlier: list[str]) -> dict[str, Any]:
    state = "live" if path == serving else "retired" if path.name in earlier else "staged"
    try:
        manifest = (path / bundles.MANIFEST).read_bytes()
        size = (path / bundles.WEIGHTS).stat().st_size
        made = (path / bundles.MANIFEST).stat().st_mtime
    except OSError as error:
        return {"version": path.name, "state": "broken", "error": str(error.strerror)}
    digest = hashlib.sha256(manifest).hexdigest()
    return {"version": path.name, "state": state, "digest": digest, "bytes": size, "made_at": made}


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


async def _change(entry: Path, servers: Servers | None, change: Callable[[], str]) -> Rolled:
    history, serving = bundles.history(entry), bundles.serving_version(entry)
    try:
        version = await asyncio.to_thread(change)
    except ConfigError as error:
        raise Conflict(str(error)) from error
    except OSError as error:
        raise Conflict(f"{entry} cannot be written: {error.strerror}") from error
    try:
        loaded = await servers.load(entry.name) if servers else []
    except BaseException:
        bundles.remember(entry, history)
        raise
    refused = [one for one in loaded if one.error and one.answered]
    if refused and not any(one.version for one in loaded):
        await asyncio.to_thread(bundles.remember, entry, history)
        raise Conflict(f"{entry.name} {version} is not taken: {refused[0].error}; the version before goes on serving")
    return Rolled(model=entry.name, version=version, before=serving.name if serving else None, servers=loaded)
