"""The item engine: reads the event log by cursor, as the alert engine does, and keeps items, what it remembers and the cursor
in one transaction.

Workers stay stateless, results may come twice and out of order: whatever happens to them, the log has each result once, and
what is read again after a crash gives the same items under the same ids.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from eyeline.core.clock import utcnow
from eyeline.core.settings import PipelineSettings, StepSettings
from eyeline.core.telemetry import ITEM_FRAMES, logger
from eyeline.core.types import Event, Result
from eyeline.items.camera import CameraItems, Item, frame_of, written
from eyeline.stores.results.base import ItemRow, ResultStore, SightingRow

log = logger("items")

#: Events read at a time, and seconds between two commits at least: each costs a synced write.
PAGE = 500
KEEP_EVERY = 0.5
STATE = "items/state"


class Kept(msgspec.Struct):
    """What the engine remembers."""

    cursor: int = 0
    cameras: list[CameraItems] = msgspec.field(default_factory=list)


class ItemEngine:
    """Follows the cameras of the pipelines that have a `track` step. `reorder`: seconds to wait for frames that overtook."""

    def __init__(self, pipelines: list[PipelineSettings], results: ResultStore, reorder: float) -> None:
        self._steps: Mapping[str, StepSettings] = {
            pipeline.name: pipeline.track for pipeline in pipelines if pipeline.track is not None
        }
        self._results = results
        self._reorder = reorder
        self._cursor = self._kept_cursor = 0
        self._cameras: dict[tuple[str, str, str], CameraItems] = {}
        self._recorded = 0.0
        self._kept_at = 0.0
        self._rows: dict[str, ItemRow] = {}
        self._sightings: list[SightingRow] = []

    async def load(self) -> None:
        """Go on where the last engine stopped; the first one begins with the oldest event, so that counts have no gap."""
        kept = await self._results.load_state(STATE)
        told = msgspec.json.decode(kept, type=Kept) if kept is not None else Kept()
        self._cursor = self._kept_cursor = min(told.cursor, await self._results.last_seq())
        self._cameras = {(one.site, one.camera, one.pipeline): one for one in told.cameras}

    async def step(self) -> int:
        """Read on. Returns how many events there were. Raises StoreError; nothing is lost by that."""
        events = await self._results.tail(self._cursor, PAGE)
        await asyncio.to_thread(self._follow, events)
        if self._dirty() and asyncio.get_running_loop().time() - self._kept_at >= KEEP_EVERY:
            await self.keep()
        return len(events)

    async def keep(self) -> None:
        """Commit items, memory and cursor together. What fails to commit is committed next time."""
        state = msgspec.json.encode(Kept(self._cursor, list(self._cameras.values())))
        await self._results.commit_items(
            state={STATE: state}, items=list(self._rows.values()), sightings=self._sightings
        )
        self._rows, self._sightings = {}, []
        self._kept_cursor = self._cursor
        self._kept_at = asyncio.get_running_loop().time()

    def _dirty(self) -> bool:
        return bool(self._rows) or self._cursor != self._kept_cursor

    def _follow(self, events: list[Event]) -> None:
        for event in events:
            if event.kind == "result":
                self._observe(event)
            self._cursor, self._recorded = event.seq, event.at.timestamp()
        # while there is more to read, time is what the log says it is; at its end, it is now
        now = self._recorded if len(events) == PAGE else utcnow().timestamp()
        for camera in self._cameras.values():
            step = self._steps.get(camera.pipeline)
            if step is not None:
                self._note(camera, camera.release(now - self._reorder, step), step)

    def _observe(self, event: Event) -> None:
        step = self._steps.get(event.body.get("pipeline", ""))
        if step is None or event.body.get("camera") is None or event.body.get("status") != "completed":
            return
        try:
            result = msgspec.convert(event.body, Result)
            frame = frame_of(result, event.at, step.on)
        except (msgspec.ValidationError, KeyError) as error:
            log.warning("a result cannot be read and shows no item", seq=event.seq, error=str(error))
            return
        name = (result.site, result.camera or "", result.pipeline)
        camera = self._cameras.setdefault(name, CameraItems(*name))
        ITEM_FRAMES.labels(outcome="followed" if camera.take(frame) else "late").inc()

    def _note(self, camera: CameraItems, touched: list[Item], step: StepSettings) -> None:
        for item in touched:
            if item.track.hits >= step.min_frames:
                self._rows[item.id] = camera.row(item)
                self._sightings += written(item)
