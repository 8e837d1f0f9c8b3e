"""A camera's books on disk: frames in hand, frames spooled, and what became of every frame before.

    hand/N.frame       captured, not settled; not fsynced, so a frame that is settled within seconds never costs a disk write
    spool/N.frame      kept for later: fsynced before anyone counts it
    outcomes-G.log     one line a settled frame: number and outcome
    books.json         the outcomes of earlier logs, summed; names the log G that goes on
    origins.log        what was captured of a source that keeps its frames; behind a `-`, what it has let go since

A frame is settled by one appended line and then unlinked; what died in between is unlinked at the next start. Captured is
what was settled and what lies here, so that captured = accepted + dropped + spooled + in hand holds after kill -9 on any line.
After a power cut frames in hand may be gone, and with them their count; spooled ones are not.
"""

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import msgspec

from eyeline.cameras.base import Frame, Memory
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError, ConfigError
from eyeline.core.ids import uuid7

ACCEPTED = "accepted"
_FOLD_AFTER = 10_000


class _Header(msgspec.Struct, frozen=True):
    """The first line of a frame's file; the image follows."""

    captured_at: datetime
    size: int
    origin: str | None = None
    meta: dict[str, str] = {}
    ref: str | None = None
    schema_version: int = 1


class _Books(msgspec.Struct):
    """books.json."""

    camera: str
    since: datetime
    log: int = 0
    next: int = 1
    outcomes: dict[str, int] = {}
    schema_version: int = 1


@dataclass(frozen=True)
class Held:
    """A captured frame that is not settled: where it lies, and the key under which it is sent, every time the same."""

    number: int
    key: str
    path: Path
    size: int
    captured_at: datetime
    meta: Mapping[str, str] = field(default_factory=dict)
    ref: str | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Counts:
    """The camera's accounting: captured = accepted + dropped + spooled + in_hand."""

    captured: int
    accepted: int
    dropped: dict[str, int]
    spooled: int
    in_hand: int


class Spool:
    """The books of one camera. Sync: used by one thread; not shared by two processes (ConfigError)."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._hand, self._kept = folder / "hand", folder / "spool"
        for path in (self._hand, self._kept):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / "lock")
        self._books = self._read_books()
        self._outcomes = Counter(self._books.outcomes)
        self._lines = 0
        self._origins: set[str] = set()
        self.in_hand: dict[int, Held] = {}
        self.spooled: dict[int, Held] = {}
        self._recover()
        self._journal = self._open(f"outcomes-{self._books.log}.log")
        self._seen = self._open("origins.log")

    @property
    def memory(self) -> Memory:
        """What a source may ask."""
        return Memory(self._origins.__contains__, self._books.since, pending=self._is_pending, forget=self._forget)

    @property
    def kept_bytes(self) -> int:
        """What the spooled frames take."""
        return sum(held.size for held in self.spooled.values())

    def capture(self, frame: Frame) -> Held:
        """Take a frame into the books; from here on it is accounted for. Raises CameraError where the disk is full."""
        number = self._books.next
        header = msgspec.json.encode(
            _Header(frame.captured_at, len(frame.data), frame.origin, dict(frame.meta), frame.ref)
        )
        draft, path = self._hand / f"{number}.draft", self._hand / f"{number}.frame"
        try:
            draft.write_bytes(b"".join((header, b"\n", frame.data)))
            draft.rename(path)
            if frame.origin is not None:
                self._remember(frame.origin)
        except OSError as error:
            for leftover in (draft, path):
                leftover.unlink(missing_ok=True)
            raise CameraError(f"a frame cannot be written to {self._hand}: {error}") from error
        self._books.next = number + 1
        held = Held(
            number, self._key(number), path, len(frame.data), frame.captured_at, frame.meta, frame.ref, frame.origin
        )
        self.in_hand[number] = held
        return held

    def keep(self, held: Held) -> Held | None:
        """Move a frame in hand to the spool, durably; None where it would go over the limit or the disk is full."""
        if self.kept_bytes + held.size > self._limit:
            return None
        path = self._kept / held.path.name
        try:
            with held.path.open("rb") as file:
                os.fsync(file.fileno())
            held.path.rename(path)
            _sync_folder(self._kept)
        except OSError:
            return None
        kept = replace(held, path=path)
        self.spooled[held.number] = kept  # before it leaves the other: who asks meanwhile finds it in one of them
        self.in_hand.pop(held.number, None)
        return kept

    def settle(self, held: Held, outcome: str) -> None:
        """What became of a frame, for good: `accepted`, or the reason why it was dropped."""
        self._write(held.number, outcome)
        held.path.unlink(missing_ok=True)
        self.in_hand.pop(held.number, None)
        self.spooled.pop(held.number, None)

    def lost(self, outcome: str, origin: str | None = None) -> None:
        """Count a frame that was not taken into the books; one with an origin is not captured again."""
        if origin is not None:
            with contextlib.suppress(OSError):
                self._remember(origin)
        number, self._books.next = self._books.next, self._books.next + 1
        self._write(number, outcome)

    def data(self, held: Held) -> bytes:
        """The image of a held frame. Raises CameraError for a file that someone else damaged."""
        try:
            header, _, data = held.path.read_bytes().partition(b"\n")
        except OSError as error:
            raise CameraError(f"a spooled frame is gone: {error}") from error
        if not header or len(data) != held.size:
            raise CameraError(f"{held.path} has {len(data)} of {held.size} bytes")
        return data

    def oldest(self, count: int) -> list[Held]:
        """The first `count` spooled frames."""
        return [self.spooled[number] for number in sorted(self.spooled)[:count]]

    def counts(self) -> Counts:
        """The accounting now."""
        dropped = {outcome: count for outcome, count in self._outcomes.items() if outcome != ACCEPTED}
        spooled, in_hand = len(self.spooled), len(self.in_hand)
        captured = sum(self._outcomes.values()) + spooled + in_hand
        return Counts(captured, self._outcomes[ACCEPTED], dropped, spooled, in_hand)

    def close(self) -> None:
        """Frames in hand go to the spool as far as there is room; idempotent."""
        if self._lock < 0:
            return
        for held in list(self.in_hand.values()):
            self.keep(held)
        for file in (self._journal, self._seen):
            os.fsync(file)
            os.close(file)
        os.close(self._lock)
        self._lock = -1

    def _is_pending(self, origin: str) -> bool:
        return any(held.origin == origin for place in (self.in_hand, self.spooled) for held in list(place.values()))

    def _forget(self, origin: str) -> None:
        """It will not be asked for again. From any thread."""
        with contextlib.suppress(OSError):
            os.write(self._seen, b"-" + msgspec.json.encode(origin) + b"\n")
        self._origins.discard(origin)

    def _key(self, number: int) -> str:
        return f"{self._books.camera}-{number}"

    def _remember(self, origin: str) -> None:
        os.write(self._seen, msgspec.json.encode(origin) + b"\n")
        self._origins.add(origin)

    def _write(self, number: int, outcome: str) -> None:
        with contextlib.suppress(OSError):  # on a full disk the count lives on in memory alone
            os.write(self._journal, f"{number} {outcome}\n".encode())
        self._outcomes[outcome] += 1
        self._lines += 1
        if self._lines >= _FOLD_AFTER:
            with contextlib.suppress(OSError):
                os.close(self._journal)
                self._fold()
            self._journal = self._open(f"outcomes-{self._books.log}.log")

    def _read_books(self) -> _Books:
        path = self._folder / "books.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Books)
        except FileNotFoundError:
            return _Books(camera=uuid7(), since=utcnow())
        except (msgspec.DecodeError, OSError) as error:
            raise ConfigError(f"{path} cannot be read: {error}; move {self._folder} away to begin anew") from error

    def _recover(self) -> None:
        """Bring books, logs and frames into line after whatever happened."""
        settled = dict(self._read_outcomes())
        self._outcomes.update(settled.values())
        self._origins.update(self._read_origins())
        for draft in self._hand.glob("*.draft"):
            draft.unlink()
        for folder in (self._hand, self._kept):
            for path in folder.glob("*.frame"):
                self._take_up(path, settled)
        highest = max([*settled, *self.in_hand, *self.spooled, 0])
        self._books.next = max(self._books.next, highest + 1)
        self._fold()

    def _take_up(self, path: Path, settled: dict[int, str]) -> None:
        number = int(path.stem)
        header = None if number in settled else _header(path)
        if header is None:  # settled and not yet unlinked, or torn by a power cut
            path.unlink()
            return
        if header.origin is not None:
            self._origins.add(header.origin)
        place = self.in_hand if path.parent == self._hand else self.spooled
        place[number] = Held(
            number, self._key(number), path, header.size, header.captured_at, header.meta, header.ref, header.origin
        )

    def _read_outcomes(self) -> Iterator[tuple[int, str]]:
        path = self._folder / f"outcomes-{self._books.log}.log"
        for line in path.read_text().splitlines() if path.exists() else ():
            number, _, outcome = line.partition(" ")
            if number.isdigit() and outcome:
                yield int(number), outcome

    def _read_origins(self) -> Iterator[str]:
        """What is to be remembered; what was forgotten since is left out of the file, too."""
        path = self._folder / "origins.log"
        lines = path.read_bytes().splitlines() if path.exists() else []
        forgotten = {line[1:] for line in lines if line.startswith(b"-")}
        left = [line for line in lines if not line.startswith(b"-") and line not in forgotten]
        if forgotten:
            draft = self._folder / "origins.log.draft"
            draft.write_bytes(b"".join(line + b"\n" for line in left))
            draft.rename(path)
        for line in left:
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line, type=str)

    def _fold(self) -> None:
        """Sum the outcomes into books.json and go on with a new log; the old one counts until the books are in place."""
        books = msgspec.structs.replace(self._books, log=self._books.log + 1, outcomes=dict(self._outcomes))
        draft = self._folder / "books.json.draft"
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(books))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._folder / "books.json")
        self._books = books
        _sync_folder(self._folder)
        self._lines = 0
        for old in self._folder.glob("outcomes-*.log"):
            if old.name != f"outcomes-{self._books.log}.log":
                old.unlink()

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _header(path: Path) -> _Header | None:
    """A frame's header; None for a file that is not whole."""
    with path.open("rb") as file:
        line = file.readline(65_536)
        try:
            header = msgspec.json.decode(line, type=_Header)
        except msgspec.DecodeError:
            return None
        return header if os.fstat(file.fileno()).st_size == len(line) + header.size else None


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"another agent works in {path.parent}; run one agent for each camera") from error
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
