"""One camera's items, pure: frames in the order in which they were recorded go in, items come out.

Frames are put back into the order in which they were captured: each waits until it was recorded so long ago that none from
before it is to be expected, and what comes later still is late.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from eyeline.core.ids import derived_id
from eyeline.core.settings import StepSettings
from eyeline.core.types import Result
from eyeline.pipeline import tracking
from eyeline.pipeline.tracking import Seen, Speed, Track
from eyeline.stores.results.base import ItemRow, SightingRow

#: Share of its frames from which a label of a classifier is one of the item's own.
BORNE = 0.5


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """What one result shows: when it was captured and recorded (Unix seconds), its boxes."""

    captured: float
    recorded: float
    result_id: str
    seen: tuple[Seen, ...]


class Item(msgspec.Struct):
    """A thing in view. `pending`: sightings that are not written yet; `said`: scores added up by step and label."""

    id: str
    first: float
    track: Track
    score: float
    result_id: str
    pending: list[tuple[str, int]]
    said: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)


class CameraItems(msgspec.Struct):
    """All that is remembered of a camera between two frames: kept in the same transaction as what came of it."""

    site: str
    camera: str
    pipeline: str
    waiting: list[Frame] = msgspec.field(default_factory=list)
    inside: list[Item] = msgspec.field(default_factory=list)
    flow: Speed = (0.0, 0.0)
    clock: float = 0.0

    def take(self, frame: Frame) -> bool:
        """Let a frame wait for its turn; False for one that comes too late, which is left out."""
        if frame.captured <= self.clock:
            return False
        self.waiting.append(frame)
        return True

    def release(self, until: float, step: StepSettings) -> list[Item]:
        """Go on with what was recorded before `until`, and with all that was captured before that. Returns the items in them."""
        due = max((frame.captured for frame in self.waiting if frame.recorded <= until), default=None)
        if due is None:
            return []
        frames = sorted(
            (frame for frame in self.waiting if frame.captured <= due),
            key=lambda frame: (frame.captured, frame.result_id),
        )
        self.waiting = [frame for frame in self.waiting if frame.captured > due]
        touched: dict[str, Item] = {}
        for frame in frames:
            touched |= {item.id: item for item in self._see(frame, step)}
        return list(touched.values())

    def _see(self, frame: Frame, step: StepSettings) -> Iterable[Item]:
        if frame.captured <= self.clock:  # two frames of one moment show no movement
            return []
        self.clock = frame.captured
        self.inside = [item for item in self.inside if frame.captured - item.track.last <= step.lost_after]
        seen = tracking.distinct(frame.seen)
        pairs = tracking.match([item.track for item in self.inside], seen, frame.captured, step.sure)
        seen_again = [self._go_on(self.inside[row], frame, seen[column]) for row, column in pairs]
        known = {column for _, column in pairs}
        new = [
            self._begin(frame, one) for column, one in enumerate(seen) if column not in known and one.score >= step.sure
        ]
        self.inside += new
        return seen_again + new

    def _go_on(self, item: Item, frame: Frame, seen: Seen) -> Item:
        moved = item.track.move(seen, frame.captured)
        self.flow = tracking.flow_after(self.flow, moved)
        if seen.score > item.score:
            item.score, item.result_id = seen.score, frame.result_id
        _note(item, frame, seen)
        return item

    def _begin(self, frame: Frame, seen: Seen) -> Item:
        names = (self.site, self.camera, self.pipeline, frame.result_id, str(seen.index))
        track = tracking.begin(seen, frame.captured, self.flow)
        item = Item(derived_id(_moment(frame.captured), *names), frame.captured, track, seen.score, frame.result_id, [])
        _note(item, frame, seen)
        return item

    def row(self, item: Item) -> ItemRow:
        """The item as it is kept."""
        return ItemRow(
            id=item.id,
            site=self.site,
            camera=self.camera,
            pipeline=self.pipeline,
            label=item.track.label,
            first_at=_moment(item.first),
            last_at=_moment(item.track.last),
            frames=item.track.hits,
            score=item.score,
            result_id=item.result_id,
            labels={item.track.label: item.score} | borne(item),
            codes=tuple(item.track.codes),
        )


def borne(item: Item) -> dict[str, float]:
    """The label of each classifier that the item bore over most of its frames, with its mean score."""
    best = [max(scores.items(), key=lambda pair: pair[1]) for scores in item.said.values()]
    return {label: round(total / item.track.hits, 4) for label, total in best if total / item.track.hits >= BORNE}


def written(item: Item) -> list[SightingRow]:
    """The sightings that are not kept yet; they are now."""
    rows = [SightingRow(item_id=item.id, result_id=result, detection=index) for result, index in item.pending]
    item.pending = []
    return rows


def frame_of(result: Result, recorded: datetime, on: str | None) -> Frame:
    """What a result shows of the boxes of step `on`. A camera's clock that is ahead counts as no later than the reception."""
    captured = min(result.captured_at, result.received_at).timestamp()
    seen = [
        Seen(
            index,
            found.box,
            found.label,
            found.score,
            tuple(dict.fromkeys(code["text"] for code in found.attributes.get("codes", ()))),
            tuple((one["step"], one["label"], one["score"]) for one in found.attributes.get("classifications", ())),
        )
        for index, found in enumerate(result.detections)
        if found.step == on
    ]
    return Frame(captured, recorded.timestamp(), result.id, tuple(seen))


def _note(item: Item, frame: Frame, seen: Seen) -> None:
    item.pending.append((frame.result_id, seen.index))
    for step, label, score in seen.said:
        scores = item.said.setdefault(step, {})
        scores[label] = round(scores.get(label, 0.0) + score, 4)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
