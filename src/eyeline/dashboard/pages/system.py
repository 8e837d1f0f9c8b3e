"""System: cameras, channels and outputs, the queue's failed jobs, people and keys, storage and backups, settings."""

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
from eyeline.core.types import Result
from eyeline.dashboard.outlets import failed, outlets, settled
from eyeline.dashboard.shell import Room, Shell
from eyeline.dashboard.storage import StorageView, storage
from eyeline.stores.results.base import KeyRow, ResultQuery

#: Failed jobs on the page; the API gives the rest.
DEAD = 50
#: Seconds that a form waits for what comes of a test.
TEST = 10.0
#: An agent that did not report for so long (seconds) is away.
SILENT = 10.0
#: What is wrong with the machine: less free than this share of the disk.
LOW = 0.1
STORES = ("blobs", "results", "queue", "cache")
PEOPLE = tuple(role for role, rights in RIGHTS.items() if "read" in rights)


def _pages(shell: Shell) -> Sequence[Page]:
    page = SystemPage(shell)
    post = {"room": "system", "methods": ("POST",), "right": "operate"}
    return (
        shell.page("/system", page.show, room="system"),
        shell.page("/system/channels/{name}/test", page.test, **post),  # type: ignore[arg-type]
        shell.page("/system/deliveries/{id}/again", page.again, **post),  # type: ignore[arg-type]
    )


ROOM = Room(name="system", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """A camera of eyeline.toml, with what its agent said last. `seen_at`: when its newest picture that was analysed was
    captured; `skew`: seconds by which its clock is ahead of its agent's, where it tells the time.
    """

    name: str
    site: str
    url: str
    state: str
    words: str
    captured: int
    dropped: int
    fps: float | None
    skew: float | None
    seen_at: datetime | None
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
    used_at: datetime | None = None


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
            outlets=await outlets(self._sources.outlets, who),
            undelivered=await failed(results, who),
            settled=await settled(self._sources.outlets, who, request.query_params.get("delivery")),
            dead=[_dead(result) for result in found],
            more_dead=more is not None,
            storage=await self._storage(who),
            disk=await asyncio.to_thread(_disk, settings.data_dir),
            keys=await self._keys() if manages else [],
            users=[user for user in await results.users() if user.removed_at is None] if manages else [],
            settings=await asyncio.to_thread(_written, shown(settings)) if who.may("operate") else "",
            stores=[(name, mask(getattr(settings, name).url)) for name in STORES] if who.may("operate") else [],
            sites=sorted({site.name for site in settings.sites} | {"default"}),
            own_sites=[site.name for site in settings.sites if who.sees(site.name)],
            you=who,
            told=_told(request.query_params.get("password")),
            roles=tuple(RIGHTS),
            people=PEOPLE,
            version=__version__,
            may_operate=who.may("operate"),
            may_manage=manages,
        )

    async def test(self, request: Request) -> Response:
        """A test to a channel; the page then says what came of it."""
        row = await self._sources.outlets.test(principal_of(request), request.path_params["name"], TEST)
        return self._shell.see(f"/system?delivery={row.id}#outlets")

    async def again(self, request: Request) -> Response:
        """What has failed is sent once more."""
        row = await self._sources.outlets.again(principal_of(request), request.path_params["id"])
        return self._shell.see(f"/system?delivery={row.id}#outlets")

    async def _storage(self, who: Principal) -> StorageView | None:
        if not who.may("operate"):
            return None
        report = await self._sources.storage()
        return await storage(self._sources.settings, self._sources.results, report, who)

    async def _cameras(self, who: Principal) -> list[CameraView]:
        reports = await self._sources.results.cameras()
        newest = await self._sources.results.latest(sites=who.sites)
        mine = (camera for camera in self._sources.settings.cameras if who.sees(camera.site))
        return [
            _camera(camera, reports.get(camera.name), newest.get(camera.name))
            for camera in sorted(mine, key=lambda camera: camera.name)
        ]

    async def _keys(self) -> list[KeyView]:
        uses = await self._sources.results.key_uses()
        filed = [
            KeyView(
                name=key.name,
                role=key.role,
                sites=key.sites,
                state="valid",
                filed=True,
                used_at=uses.get(key.sha256),
            )
            for key in self._sources.settings.keys
        ]
        return filed + [_key(key, uses.get(key.sha256)) for key in await self._sources.results.keys()]


def _camera(camera: CameraSettings, report: Mapping[str, Any] | None, newest: Result | None) -> CameraView:
    said = report or {}
    at = parse_time(str(said["reported_at"])) if "reported_at" in said else None
    silent = at is None or (utcnow() - at).total_seconds() > SILENT
    health = said.get("health") or {}
    conditions = health.get("conditions", {})
    return CameraView(
        name=camera.name,
        site=camera.site,
        url=mask(camera.url),
        state="offline" if silent else "warning" if conditions or said.get("state") != "live" else "ok",
        words=str(said.get("state", "")),
        captured=int(said.get("captured", 0)),
        dropped=sum(said.get("dropped", {}).values()),
        fps=None if silent else said.get("fps"),
        skew=health.get("clocks", {}).get("camera"),
        seen_at=newest.captured_at if newest is not None else None,
        health=conditions,
    )


def _told(word: str | None) -> str | None:
    """What came of the form for one's own password; the address bar may say anything."""
    return word if word in {"changed", "wrong", "weak", "slow"} else None


def _dead(result: Any) -> DeadView:
    return DeadView(
        id=result.id,
        site=result.site,
        camera=result.camera or "",
        pipeline=result.pipeline,
        reason=result.reason or "",
        at=result.completed_at,
    )


def _key(key: KeyRow, used_at: datetime | None) -> KeyView:
    expired = key.expires_at is not None and key.expires_at <= utcnow()
    state = "revoked" if key.revoked_at else "expired" if expired else "valid"
    return KeyView(
        name=key.name,
        role=key.role,
        sites=key.sites,
        state=state,
        filed=False,
        expires_at=key.expires_at,
        used_at=used_at,
    )


def _disk(folder: Path) -> Disk | None:
    """None where the folder is not on this machine."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(usage.free / 1e9, usage.total / 1e9)


def _written(settings: Mapping[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(settings), indent=2).decode()
