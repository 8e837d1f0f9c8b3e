"""Whether all answer alike: what inference servers, workers and bundles say of themselves, beside each other. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from eyeline.core.clock import isoformat, parse_time

#: What is compared of a model, in this order; a fingerprint covers digest, runtime, precision, threads and libraries.
FACTS = ("version", "runtime", "precision", "preprocessing", "fingerprint")
#: What is compared of a machine and its software.
SURROUNDINGS = (
    "software", "python", "numpy", "opencv", "simplejpeg", "pillow", "onnxruntime", "openvino", "providers", "gpu",
    "driver", "machine", "instructions", "cpu", "kernel", "libc", "pipelines",
)  # fmt: skip
#: Digests, and characters of them that are shown.
DIGESTS, SHOWN = {"preprocessing", "fingerprint"}, 12


@dataclass(frozen=True, kw_only=True)
class Column:
    """Who says it: a server by its URL, the workers of a host that say the same, or a model's bundle of where it was made."""

    kind: Literal["server", "workers", "bundle"] = "server"
    name: str
    host: str = ""
    count: int = 1

    @property
    def word(self) -> str:
        """The column in a text."""
        return self.name if self.kind == "server" else f"{self.kind}@{self.name}"


@dataclass(frozen=True)
class Cell:
    """What one says; None: it says nothing of this. `other`: not what most say."""

    words: str | None
    other: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fact, a cell for each column. `model`: of which model; empty: of the machine and its software."""

    model: str
    fact: str
    cells: Sequence[Cell]

    @property
    def differs(self) -> bool:
        """Whether not all say the same."""
        return any(cell.other for cell in self.cells)


@dataclass(frozen=True, kw_only=True)
class GoldenRow:
    """How a server answers a model's golden pictures: at its load, or when somebody (`by`) asked."""

    server: str
    model: str
    state: Literal["ok", "failed", "unmeasured"]
    version: str = ""
    pictures: int = 0
    score_difference: float | None = None
    tolerance: float | None = None
    at: datetime | None = None
    by: str = ""
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Who says something, what, how golden pictures are answered, and the servers that give no answer, each with the reason."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    goldens: Sequence[GoldenRow]
    silent: Sequence[tuple[str, str]]

    @property
    def servers(self) -> list[str]:
        """The servers that answer."""
        return [column.name for column in self.columns if column.kind == "server"]

    @property
    def models(self) -> list[str]:
        """The models that are served, by the names that a golden check is asked for."""
        return sorted({row.model.partition("@")[0] for row in self.goldens})

    @property
    def different(self) -> list[Row]:
        """Where they differ."""
        return [row for row in self.rows if row.differs]

    @property
    def deciding(self) -> list[Row]:
        """Where they differ in what decides answers; machines may differ and answer alike."""
        return [row for row in self.different if row.model]

    @property
    def same(self) -> list[Row]:
        """Where they agree."""
        return [row for row in self.rows if not row.differs]


Told = Mapping[str, Any]
Environments = Iterable[tuple[str, Mapping[str, str]]]


def parity(
    servers: Iterable[Any], *, asked: Iterable[Told] = (), workers: Environments = (), bundles: Environments = ()
) -> Parity:
    """Servers, and golden checks that were asked for, as GET /v1/models tells them; hosts and what their workers say; models
    and what their bundles say.
    """
    servers = list(servers)
    answering = [server for server in servers if not server.error]
    grouped = Counter((host, tuple(sorted(said.items()))) for host, said in workers if said)
    told: list[tuple[Column, Mapping[str, str]]] = [
        *((Column(name=one.url, host=one.environment.get("host", "")), one.environment) for one in answering),
        *((Column(kind="workers", name=host, count=n), dict(said)) for (host, said), n in sorted(grouped.items())),
        *((Column(kind="bundle", name=name), said) for name, said in bundles if said),
    ]
    served: list[dict[str, Told]] = [{row["name"]: row for row in each.models} for each in answering]
    quiet: list[str | None] = [None] * (len(told) - len(served))
    names = sorted({name for each in served for name in each})
    about = [
        _row(name, fact, [*(_said(each.get(name), fact) for each in served), *quiet])
        for name in names
        for fact in FACTS
    ]
    around = [_row("", fact, [said.get(fact) for _, said in told]) for fact in SURROUNDINGS]
    return Parity(
        columns=[column for column, _ in told],
        rows=[row for row in (*about, *around) if any(cell.words for cell in row.cells)],
        goldens=_goldens(answering, list(asked)),
        silent=[(server.url, server.error) for server in servers if server.error],
    )


def as_text(found: Parity) -> str:
    """One fact a line, `≠` before those in which they differ; two texts of different days can be compared by `diff`."""
    lines = [f"# {url} gives no answer: {' '.join(why.split())}" for url, why in found.silent]
    for row in found.rows:
        said = (
            f"{_word(column.word)}={_word(cell.words)}" for column, cell in zip(found.columns, row.cells, strict=True)
        )
        lines.append(f"{'≠' if row.differs else '='} {_word(row.model or 'environment')} {row.fact}: {' '.join(said)}")
    for one in found.goldens:
        sign = "≠" if one.state == "failed" else "="
        figures = f" score_difference={one.score_difference} tolerance={one.tolerance}" if one.pictures else ""
        at = f" at={isoformat(one.at)}" if one.at else ""
        words = f" {_word(one.words)}" if one.words else ""
        lines.append(f"{sign} {_word(one.model)} golden: {_word(one.server)}={one.state}{figures}{at}{words}")
    return "".join(f"{line}\n" for line in lines)


def _word(said: str | None) -> str:
    """As it is where it is one plain word, in quotes otherwise: a value may not look like another line or column."""
    if said is None:
        return "–"
    return said if said.isprintable() and said and not set(said) & set(' ="') else json.dumps(said, ensure_ascii=False)


def _said(model: Told | None, fact: str) -> str | None:
    """A server that does not serve a model says so by nothing; one that serves it may be too old to tell a fact."""
    if model is None:
        return ""
    said = model.get(fact)
    return said if said is None else str(said)[:SHOWN] if fact in DIGESTS else str(said)


def _row(model: str, fact: str, said: Sequence[str | None]) -> Row:
    """Where as many say the one as the other, the first is what the others are compared with."""
    usual = next((words for words, _ in Counter(words for words in said if words is not None).most_common(1)), None)
    return Row(model=model, fact=fact, cells=[Cell(words, other=words not in (None, usual)) for words in said])


def _goldens(servers: Sequence[Any], asked: Sequence[Told]) -> list[GoldenRow]:
    """Of each model of each server the newest check of the version that it serves, and what it refuses to serve."""
    newest = {(one["server"], one["model"]): one for one in asked}
    rows: list[GoldenRow] = []
    for server in servers:
        for model in server.models:
            loaded, run = model.get("golden") or {}, newest.get((server.url, model["name"]), {})
            run = run if run.get("version", model["version"]) == model["version"] else {}
            later = bool(run) and ("at" not in loaded or parse_time(run["at"]) >= parse_time(loaded["at"]))
            rows.append(_golden(server.url, model, run if later else loaded))
        rows += [
            GoldenRow(server=server.url, model=name, state="failed", words=why)
            for name, why in sorted(server.refused.items())
        ]
    return sorted(rows, key=lambda row: (row.model, row.server))


def _golden(url: str, model: Told, found: Told) -> GoldenRow:
    pictures = found.get("pictures", 0)
    words = found.get("error") or "; ".join(found.get("differences", ())[:3])
    return GoldenRow(
        server=url,
        model=model["name"],
        version=model["version"],
        state="failed" if found.get("differences") else "ok" if pictures else "unmeasured",
        pictures=pictures,
        score_difference=found.get("score_difference") if pictures else None,
        tolerance=found.get("tolerance") if pictures else None,
        at=parse_time(found["at"]) if found.get("at") else None,
        by=found.get("by", ""),
        words=words,
    )


def releases(processes: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The processes by the release that they run, the most usual one first. `processes`: names and releases."""
    found: dict[str, list[str]] = {}
    for name, release in sorted(processes):
        found.setdefault(release, []).append(name)
    return dict(sorted(found.items(), key=lambda each: -len(each[1])))
