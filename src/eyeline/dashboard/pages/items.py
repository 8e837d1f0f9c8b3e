"""One thing through all cameras and sites, in the order of time; where damage is seen first is marked."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.pages import Page, principal_of
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.shell import Room, Shell


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One picture of the thing."""

    id: str
    at: datetime
    camera: str | None
    site: str
    zone: str
    via: str
    damage: str | None
    first_damage: bool
    picture: Picture | None


def _pages(shell: Shell) -> tuple[Page, ...]:
    return (shell.page("/items/{key:path}", ItemPage(shell).show, room="audit"),)


ROOM = Room(name="items", pages=_pages)


class ItemPage:
    """GET /items/{ref, barcode or id}."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """Everything that is known of the thing, as far as the caller may see it."""
        key = request.path_params["key"]
        settings = self._sources.settings
        told = await self._sources.trace(self._sources.results, settings, key, principal_of(request))
        labels = await asyncio.to_thread(known_labels, settings)
        zones = {site.name: site.timezone for site in settings.sites}
        first = told["first_damage"] and told["first_damage"]["id"]
        seen = [_seen(entry, first, zones, labels) for entry in told["entries"]]
        return await self._shell.render(
            request,
            "item.html",
            room="audit",
            title=self._shell.words.say("items.title", key=key),
            key=key,
            seen=seen,
            told=told,
            first=next((one for one in seen if one.first_damage), None),
            evidence=f"/v1/items/{quote(key, safe='')}/evidence",
        )


def _seen(entry: dict[str, Any], first: str | None, zones: dict[str, str], labels: tuple[str, ...]) -> Seen:
    damage = entry["damage"]
    return Seen(
        id=entry["id"],
        at=entry["captured_at"],
        camera=entry["camera"],
        site=entry["site"],
        zone=zones.get(entry["site"], "UTC"),
        via=", ".join(entry["via"]),
        damage=f"{damage['label']} {damage['score']:.0%}" if damage else None,
        first_damage=entry["id"] == first,
        picture=picture_of(entry["result"], labels),
    )
