"""System: cameras, storage, the queue's failed jobs, keys and people, version and settings."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from eyeline import __version__
from eyeline.core.access import RIGHTS, Principal
from eyeline.core.clock import parse_time, utcnow
from eyeline.core.pages import Page, principal_of
from eyeline.core.settings import CameraSettings, mask, shown
from eyeline.dashboard.shell import Room, Shell
from eyeline.stores.results.base import KeyRow, ResultQuery

#: Failed jobs on the page; the API gives the rest.
DEAD = 50
#: An agent that did not report for so long (seconds) is away.
SILENT = 10.0
#: What is wrong with the machine: less free than this share of the disk.
LOW = 0.1
STORES = ("blobs", "results", "queue", "cache")
PEOPLE = tuple(role for role, rights in RIGHTS.items() if "read" in rights)


def _pages(shell: Shell) -> Sequence[Page]:
    return (shell.page("/system", SystemPage(shell).show, room="system"),)


ROOM = Room(name="system", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """A camera of eyeline.toml, with what its agent said last."""

    name: str
    site: str
    url: str
    state: str
    words: str
    captured: int
    dropped: int
    reported_at: datetime | None
    health: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DeadView:
    """A failed job."""

    id: str
    site: str
    camera: str
    pipeline: str
    reason: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class KeyView:
    """A key; `filed`: it stands in eyeline.toml and is changed there."""

    name: str
    role: str
    sites: Sequence[str]
    state: str
    filed: bool
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Disk:
    """The disk of the data folder, in gigabytes."""

    free: float
    total: float

    @property
    def low(self) -> bool:
        """Whether little is left."""
        return self.free < self.total * LOW


class SystemPage:
    """GET /system."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """Everything this one may see; what may be done is there for those who may."""
        who, settings = principal_of(request), self._sources.settings
        results = self._sources.results
        found, more = await results.find(ResultQuery(sites=who.sites, status="failed", limit=DEAD))
        manages = who.may("manage")
        return await self._shell.render(
            request,
            "system.html",
            room="system",
            title=self._shell.words.say("system.title"),
            script="js/pages/system.js",
            cameras=await self._cameras(who),
            waiting=[row for row in await results.line() if who.sees(row.site)],
            dead=[_dead(result) for result in found],
            more_dead=more is not None,
            disk=await asyncio.to_thread(_disk, settings.data_dir),
            keys=await self._keys() if manages else [],
            users=[user for user in await results.users() if user.removed_at is None] if manages else [],
            settings=await asyncio.to_thread(_written, shown(settings)) if who.may("operate") else "",
            stores=[(name, mask(getattr(settings, name).url)) for name in STORES] if who.may("operate") else [],
            sites=sorted({site.name for site in settings.sites} | {"default"}),
            roles=tuple(RIGHTS),
            people=PEOPLE,
            version=__version__,
            may_operate=who.may("operate"),
            may_manage=manages,
        )

    async def _cameras(self, who: Principal) -> list[CameraView]:
        reports = await self._sources.results.cameras()
        mine = (camera for camera in self._sources.settings.cameras if who.sees(camera.site))
        return [_camera(camera, reports.get(camera.name)) for camera in sorted(mine, key=lambda camera: camera.name)]

    async def _keys(self) -> list[KeyView]:
        filed = [
            KeyView(name=key.name, role=key.role, sites=key.sites, state="valid", filed=True)
            for key in self._sources.settings.keys
        ]
        return filed + [_key(key) for key in await self._sources.results.keys()]


def _camera(camera: CameraSettings, report: Mapping[str, Any] | None) -> CameraView:
    said = report or {}
    at = parse_time(str(said["reported_at"])) if "reported_at" in said else None
    silent = at is None or (utcnow() - at).total_seconds() > SILENT
    health = (said.get("health") or {}).get("conditions", {})
    return CameraView(
        name=camera.name,
        site=camera.site,
        url=mask(camera.url),
        state="offline" if silent else "warning" if health or said.get("state") != "live" else "ok",
        words=str(said.get("state", "")),
        captured=int(said.get("captured", 0)),
        dropped=sum(said.get("dropped", {}).values()),
        reported_at=at,
        health=health,
    )


def _dead(result: Any) -> DeadView:
    return DeadView(
        id=result.id,
        site=result.site,
        camera=result.camera or "",
        pipeline=result.pipeline,
        reason=result.reason or "",
        at=result.completed_at,
    )


def _key(key: KeyRow) -> KeyView:
    expired = key.expires_at is not None and key.expires_at <= utcnow()
    state = "revoked" if key.revoked_at else "expired" if expired else "valid"
    return KeyView(name=key.name, role=key.role, sites=key.sites, state=state, filed=False, expires_at=key.expires_at)


def _disk(folder: Path) -> Disk | None:
    """None where the folder is not on this machine."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(usage.free / 1e9, usage.total / 1e9)


def _written(settings: Mapping[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(settings), indent=2).decode()
