"""Which case holds on which backend: `python -m tests.contract.matrix > matrix.md` runs the contract suite and prints a table.

What else is given goes to pytest: `python -m tests.contract.matrix tests/contract/test_caches.py -k bucket`.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from eyeline.core.telemetry import printable

#: The fixture that gives a test its backend → the room.
ROOMS = {
    "queue_url": "Queues",
    "server_url": "Queues",
    "cache_url": "Caches",
    "blobs_url": "Blobs",
    "results_url": "Results",
}


class Place(NamedTuple):
    """Where in the tables a test stands."""

    room: str
    case: str
    backend: str


@dataclass
class Matrix:
    """A plugin of pytest that keeps what became of each case; in order of their collection."""

    places: dict[str, Place] = field(default_factory=dict)
    found: dict[Place, str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Only what has a backend is run."""
        self.places = {item.nodeid: place for item in items if (place := place_of(item)) is not None}
        items[:] = [item for item in items if item.nodeid in self.places]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of one of them; what was wrong before or after it counts as well."""
        place = self.places.get(report.nodeid)
        if place is None or (report.passed and report.when != "call"):
            return
        if report.skipped:
            told: Any = report.longrepr
            self.found[place] = str(told[2]).removeprefix("Skipped: ")
        else:
            self.found[place] = report.outcome

    def markdown(self) -> Iterator[str]:
        """One table for each room, and the reasons of what was not asked below it."""
        for room in dict.fromkeys(place.room for place in self.found):
            yield from _table(room, {place: said for place, said in self.found.items() if place.room == room})


def place_of(item: pytest.Item) -> Place | None:
    """Room, case and backend of a test; None where it is about one backend only."""
    spec = getattr(item, "callspec", None)
    params: dict[str, Any] = {} if spec is None else spec.params
    for fixture, room in ROOMS.items():
        if fixture in params:
            backend = str(params[fixture])
            rest = ", ".join(printable(str(value), 60) for name, value in params.items() if name != fixture)
            case = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
            return Place(room, f"{case} ({rest})" if rest else case, backend)
    return None


def _table(room: str, found: dict[Place, str]) -> Iterator[str]:
    backends = sorted({place.backend for place in found})
    reasons: dict[str, int] = {}
    yield f"## {room}\n"
    yield f"| case | {' | '.join(backends)} |"
    yield "|---" * (len(backends) + 1) + "|"
    for case in dict.fromkeys(place.case for place in found):
        said = [found.get(Place(room, case, backend), "") for backend in backends]
        yield f"| {case.replace('|', '/')} | {' | '.join(_cell(each, reasons) for each in said)} |"
    counts = [sum(said == word for said in found.values()) for word in ("passed", "failed")]
    yield f"\n{counts[0]} passed, {counts[1]} failed, {len(found) - sum(counts)} not asked\n"
    yield from (f"{number}. {reason}" for reason, number in reasons.items())
    yield ""


def _cell(said: str, reasons: dict[str, int]) -> str:
    if said in ("passed", "failed", ""):
        return {"passed": "yes", "failed": "**no**", "": ""}[said]
    return f"not asked ({reasons.setdefault(said, len(reasons) + 1)})"


def main(words: Sequence[str]) -> int:
    """Run the suite, its own output on standard error, and print the tables."""
    matrix = Matrix()
    where = [] if any(word.startswith("tests/") for word in words) else ["tests/contract"]
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "-p", "no:cacheprovider", *where, *words], plugins=[matrix])
    sys.stdout.write("\n".join(matrix.markdown()))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
