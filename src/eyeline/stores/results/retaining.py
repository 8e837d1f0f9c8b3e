"""The part of the result store's promise that is about how long things are kept: pictures, legal holds, tallies."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from eyeline.core.types import BlobRef, Result

if TYPE_CHECKING:
    from eyeline.stores.results.base import Action


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A legal hold: nothing that fits all of what it names is deleted or re-encoded until it is lifted. Times are about
    `captured_at`; `by` is the principal, empty for one at the machine itself.
    """

    id: str
    placed_at: datetime
    lifted_at: datetime | None = None
    by: str = ""
    reason: str = ""
    site: str | None = None
    camera: str | None = None
    ref: str | None = None
    result: str | None = None
    item: str | None = None
    since: datetime | None = None  # inclusive
    until: datetime | None = None  # exclusive

    @property
    def scope(self) -> dict[str, str | datetime | None]:
        """All that it can name, by name; None is any."""
        return {name: getattr(self, name) for name in ("ref", "result", "item", "camera", "site", "since", "until")}

    def covers(self, result: Result, items: Collection[str]) -> bool:
        """Whether it holds this result, which shows those items."""
        named = {"site": result.site, "camera": result.camera, "ref": result.ref, "result": result.id}
        return (
            all(getattr(self, name) in {None, value} for name, value in named.items())
            and (self.item is None or self.item in items)
            and (self.since is None or result.captured_at >= self.since)
            and (self.until is None or result.captured_at < self.until)
        )


#: What the blobs that were made of a picture show: all of it, all of it small, or one box (`crop_name`).
REENCODED: Literal["reencoded"] = "reencoded"
THUMBNAIL = "thumbnail"


def crop_name(box: tuple[float, float, float, float]) -> str:
    """What the crop of a box is called."""
    return "crop " + ",".join(f"{side:g}" for side in box)


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """What is kept of a picture in its original's place. `url` is the original's.

    `kept`: blobs that were made of it, by what they show; `drop`: URLs of
    blobs that go as soon as `pending` is worked off.
    """

    url: str
    state: Literal["reencoded", "evidence", "gone"]
    at: str  # RFC 3339: when it was marked
    kept: Mapping[str, BlobRef] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    pending: bool = True


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What came or went on a day (UTC), added up: `what` happened, to which `kind`, how often, bytes, bytes that were saved
    by it, and seconds of work.
    """

    day: str
    what: str
    kind: str = ""
    count: int = 0
    bytes: int = 0
    saved: int = 0
    seconds: float = 0.0


#: Whether a result does not need its picture any more. Called in the store's writing thread: pure and quick.
Ripe = Callable[[Result], bool]


#: What of the results with those ids is to be added up.
Tallies = Callable[[set[str]], Sequence[Tally]]


class Retaining(Protocol):
    """Methods of ResultStore; all raise StoreError."""

    async def aged(self, after: str, before: str, limit: int) -> list[Result]:
        """Results with after < id < before, oldest first, with their places in the audit: ids are times of reception."""
        ...

    async def picture(self, url: str) -> PictureRow | None:
        """What is kept of that original, where it is not the original itself."""
        ...

    async def pictures_of(self, urls: Collection[str]) -> dict[str, PictureRow]:
        """The same for many originals, by URL."""
        ...

    async def unwanted(self, urls: Sequence[str], ripe: Ripe) -> set[str]:
        """Those pictures that no unfinished job names, no hold covers, and whose results are all `ripe`."""
        ...

    async def change_pictures(
        self, rows: Sequence[PictureRow], ripe: Ripe, *, action: "Action | None" = None, tallies: Sequence[Tally] = ()
    ) -> set[str]:
        """Keep those rows that are `unwanted` in the same moment, in one transaction with their action and tallies: all of them,
        or none where one is not. Returns the URLs that were changed. Idempotent but for the tallies.
        """
        ...

    async def pending_pictures(self, limit: int) -> list[PictureRow]:
        """Rows whose blobs wait to be deleted, oldest first."""
        ...

    async def settle_pictures(self, urls: Sequence[str]) -> None:
        """Their blobs are deleted. What is gone altogether is forgotten. Idempotent; a power cut may undo it."""
        ...

    async def forget_events(self, before: datetime, limit: int) -> int:
        """Delete the oldest events, up to so many, as far as they were written before then; returns how many."""
        ...

    async def place_hold(self, hold: Hold) -> None:
        """Keep a hold, recorded as an action. From then on nothing that it covers is deleted."""
        ...

    async def lift_hold(self, id: str, *, by: str = "", reason: str = "") -> bool:  # noqa: A002
        """End a hold, recorded as an action; False where there is none in force. Retention then looks at everything anew."""
        ...

    async def holds(self, *, lifted: bool = False) -> list[Hold]:
        """Those in force, or all that there ever were."""
        ...

    async def tally(self, rows: Sequence[Tally], state: Mapping[str, bytes]) -> None:
        """Add to the tallies and keep the state, in one transaction. A power cut may undo both, and then only both."""
        ...

    async def tallies(self, since: str) -> list[Tally]:
        """By day, from that day on."""
        ...

    async def take_turn(self, name: str, holder: str, lease: float) -> bool:
        """Hold the named lease for so many seconds, where it is free or one's own."""
        ...

    async def make_room(self, now: datetime) -> None:
        """Ready the database for the results that come, and give back the room of those that are gone, where it does neither by
        itself. Idempotent; by several processes at once, too.
        """
        ...

    async def size(self) -> int:
        """Bytes of the database on its disk."""
        ...
