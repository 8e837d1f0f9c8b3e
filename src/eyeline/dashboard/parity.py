"""Whether all replicas answer alike: what each inference server says of its models, beside each other. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What is compared of a model, in this order; a fingerprint covers digest, runtime, precision, threads and libraries.
FACTS = ("version", "runtime", "precision", "fingerprint")
#: Characters of a fingerprint that are shown.
SHOWN = 12


@dataclass(frozen=True)
class Cell:
    """What one server says. `other`: not what most say."""

    words: str
    other: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fact of one model, a cell for each server."""

    model: str
    fact: str
    cells: Sequence[Cell]

    @property
    def differs(self) -> bool:
        """Whether not all say the same."""
        return any(cell.other for cell in self.cells)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The servers that answer, what they say, and those that give no answer, each with the reason."""

    servers: Sequence[str]
    rows: Sequence[Row]
    silent: Sequence[tuple[str, str]]

    @property
    def different(self) -> list[Row]:
        """Where they differ."""
        return [row for row in self.rows if row.differs]

    @property
    def same(self) -> list[Row]:
        """Where they agree."""
        return [row for row in self.rows if not row.differs]


def parity(servers: Iterable[Any]) -> Parity:
    """Servers as GET /v1/models tells them."""
    servers = list(servers)
    answering = [server for server in servers if not server.error]
    served: list[dict[str, Mapping[str, Any]]] = [{row["name"]: row for row in each.models} for each in answering]
    names = sorted({name for each in served for name in each})
    rows = [
        Row(model=name, fact=fact, cells=_cells([_said(each.get(name, {}), fact) for each in served]))
        for name in names
        for fact in FACTS
    ]
    silent = [(server.url, server.error) for server in servers if server.error]
    return Parity(servers=[server.url for server in answering], rows=rows, silent=silent)


def _said(model: Mapping[str, Any], fact: str) -> str:
    said = str(model.get(fact) or "")
    return said[:SHOWN] if fact == "fingerprint" else said


def _cells(said: Sequence[str]) -> list[Cell]:
    """Where as many say the one as the other, the first is what the others are compared with."""
    [(usual, _)] = Counter(said).most_common(1)
    return [Cell(words, other=words != usual) for words in said]


def releases(processes: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The processes by the release that they run, the most usual one first. `processes`: names and releases."""
    found: dict[str, list[str]] = {}
    for name, release in sorted(processes):
        found.setdefault(release, []).append(name)
    return dict(sorted(found.items(), key=lambda each: -len(each[1])))
