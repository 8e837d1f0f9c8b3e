"""The live wall: one fixed tile for each camera, and the newest open alerts beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.pages import Page, principal_of
from eyeline.core.settings import CameraSettings
from eyeline.core.types import Result
from eyeline.dashboard.cases import AlertView, alerting, open_alerts
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.samples import file_rule, sample_for, serve
from eyeline.dashboard.shell import Room, Shell
from eyeline.stores.results.base import ResultQuery

#: Alerts in the rail; results looked through for pictures that no camera took.
RAIL = 20
RECENT = 50
#: So few cameras get large tiles.
FEW = 6
#: A camera is never offline sooner (seconds), however fast it is: pictures are on their way.
PATIENCE = 10.0
STATES = ("alert", "review", "offline", "ok")
FILTERS = ("site", "camera", "label", "status")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One camera. `silent_after`: seconds without a picture after which it counts as offline; None where none are due."""

    camera: str
    site: str
    zone: str
    state: str
    silent_after: float | None
    at: datetime | None = None
    result_id: str | None = None
    picture: Picture | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A line of the checklist of a first run, and the page where more is known of it."""

    name: str
    done: bool
    href: str | None = None


#: What scripts make new tiles and cards of.
BLANK = Tile(camera="", site="", zone="UTC", state="ok", silent_after=None)
BLANK_ALERT = AlertView(
    id="",
    rule="",
    severity="info",
    state="open",
    site="",
    camera=None,
    label=None,
    score=None,
    opened_at=datetime.min.replace(tzinfo=UTC),
    last_at=datetime.min.replace(tzinfo=UTC),
    count=0,
    result_id="",
)


def _pages(shell: Shell) -> Sequence[Page]:
    page = LivePage(shell)
    return (
        shell.page("/", page.show, room="live"),
        shell.page("/samples/{clip}/{number:int}", serve, room="live", right="submit"),
        shell.page("/samples/{clip}/rule", page.file_rule, room="live", methods=("POST",), right="operate"),
    )


ROOM = Room(name="live", pages=_pages)


class LivePage:
    """GET /."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """The wall as the address asks for it."""
        who = principal_of(request)
        wanted = {name: request.query_params.get(name, "")[:200] for name in FILTERS}
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        alerts = await open_alerts(self._sources, who)
        tiles = await self._tiles(who, labels, alerts)
        chosen = [tile for tile in tiles if _here(tile, wanted)]
        rail = [alert for alert in alerts if _about(alert, wanted)]
        rail.sort(key=lambda alert: alert.severity != "critical")  # what is critical stays on top
        wall = [tile for tile in chosen if matches(tile, wanted)]
        wall.sort(key=lambda tile: (STATES.index(tile.state), tile.camera))
        return await self._shell.render(
            request,
            "live.html",
            room="live",
            title=self._shell.words.say("live.title"),
            script="js/pages/live.js",
            data={
                "labels": labels,
                "record": self._shell.record("{id}"),
                "filters": wanted,
                "others": [asdict(tile) | {"picture": None, "at": None} for tile in chosen if tile not in wall],
                "alerts": {alert.id: [alert.camera, alert.label, alert.site] for alert in alerts},
            },
            tiles=wall,
            any_camera=bool(tiles),
            few=len(wall) <= FEW,
            hidden=len(chosen) - len(wall),
            alerts=rail[:RAIL],
            open=len(rail),
            wanted=wanted,
            sites=sorted({tile.site for tile in tiles}),
            cameras=[tile.camera for tile in tiles if tile.camera],
            labels=labels,
            states=STATES,
            may=who.may("operate"),
            blank=BLANK,
            blank_alert=BLANK_ALERT,
            sample=sample_for(self._sources.settings) if who.may("submit") else None,
            may_file=who.may("operate") and who.sites is None,
            checklist=() if tiles else await self._checklist(who, alerts),
        )

    async def file_rule(self, request: Request) -> Response:
        """The sample's rule."""
        return await file_rule(request, self._sources.rules)

    async def _tiles(self, who: Principal, labels: Sequence[str], alerts: Sequence[AlertView]) -> list[Tile]:
        settings = self._sources.settings
        zones = {site.name: site.timezone for site in settings.sites}
        newest = await self._sources.results.latest(sites=who.sites)
        tiles = []
        for camera in sorted(settings.cameras, key=lambda camera: camera.name):
            if who.sees(camera.site):
                zone = zones.get(camera.site, "UTC")
                tiles.append(_tile(camera, newest.get(camera.name), zone, labels, alerting(alerts, camera.name)))
        uploaded = await self._uploaded(who)
        if uploaded is not None:
            tiles.append(_uploads(uploaded, zones, labels, alerting(alerts, None)))
        return tiles

    async def _uploaded(self, who: Principal) -> Result | None:
        """The newest picture that a client sent, if there was one lately."""
        recent, _ = await self._sources.results.find(ResultQuery(sites=who.sites, status="completed", limit=RECENT))
        return next((result for result in recent if result.camera is None), None)

    async def _checklist(self, who: Principal, alerts: Sequence[AlertView]) -> Sequence[Step]:
        """What there is to do before there is anything to see."""
        settings = self._sources.settings
        rules = await self._sources.rules.listed(who)
        return (
            Step(name="models", href="/models", done=bool(settings.pipelines)),
            Step(name="cameras", href="/system", done=bool(settings.cameras)),
            Step(name="rules", href="/rules", done=bool(rules)),
            Step(name="alerts", href="/alerts", done=bool(alerts)),
            Step(name="channels", done=bool(settings.alerts.channels)),
        )


def _here(tile: Tile, wanted: Mapping[str, str]) -> bool:
    """What a tile is about never changes: those of other sites and cameras are not on this wall."""
    return wanted["site"] in {"", tile.site} and wanted["camera"] in {"", tile.camera}


def _about(alert: AlertView, wanted: Mapping[str, str]) -> bool:
    return wanted["site"] in {"", alert.site} and wanted["camera"] in {"", alert.camera}


def matches(tile: Tile, wanted: Mapping[str, str]) -> bool:
    """What it shows does: it comes and goes with its newest picture."""
    boxes = tile.picture.boxes if tile.picture else ()
    has_label = not wanted["label"] or any(box.label == wanted["label"] for box in boxes)
    return has_label and wanted["status"] in {"", tile.state}


def _tile(camera: CameraSettings, result: Result | None, zone: str, labels: Sequence[str], alerts: set[str]) -> Tile:
    picture = picture_of(result, labels, alerts) if result else None
    at = min(result.captured_at, result.received_at) if result else None
    silent_after = silence_of(camera)
    return Tile(
        camera=camera.name,
        site=camera.site,
        zone=zone,
        state=state_of(at, silent_after, picture, alerting=bool(alerts)),
        silent_after=silent_after,
        at=at,
        result_id=result.id if result else None,
        picture=picture,
    )


def _uploads(result: Result, zones: Mapping[str, str], labels: Sequence[str], alerts: set[str]) -> Tile:
    """Pictures of clients share a tile; none are due."""
    picture = picture_of(result, labels, alerts)
    at = min(result.captured_at, result.received_at)
    return Tile(
        camera="",
        site=result.site,
        zone=zones.get(result.site, "UTC"),
        state=state_of(at, None, picture, alerting=bool(alerts)),
        silent_after=None,
        at=at,
        result_id=result.id,
        picture=picture,
    )


def silence_of(camera: CameraSettings) -> float | None:
    """Three times the time between pictures, where one is known."""
    if camera.only_triggered:
        return None
    if camera.gate > 0:
        return max(PATIENCE, 3 * camera.gate_seconds)
    return max(PATIENCE, 3 / camera.fps) if camera.fps else None


def state_of(at: datetime | None, silent_after: float | None, picture: Picture | None, *, alerting: bool) -> str:
    """The one word for a camera: what is worst comes first, but of a camera that shows nothing, nothing is known."""
    if at is None or (silent_after is not None and (utcnow() - at).total_seconds() > silent_after):
        return "offline"
    if alerting:
        return "alert"
    return "review" if picture is not None and picture.doubtful else "ok"
