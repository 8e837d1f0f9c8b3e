"""Operations: six service levels with their budgets, charts over one range, stages, queue, processes, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.clock import parse_time, utcnow
from eyeline.core.errors import InputError, NotFound
from eyeline.core.figures import WINDOWS
from eyeline.core.pages import Page, principal_of
from eyeline.dashboard.format import number, percent
from eyeline.dashboard.shell import Room, Shell, form_of

#: Ranges in the order of their keys, 1 to 6.
RANGES = tuple(WINDOWS)
CHARTS = ("latency", "throughput", "queue", "errors", "api", "depth")
#: The way of an image, in order; what is not named comes last.
STAGES = ("queue", "fetch", "decode", "preprocess", "codes", "infer_queue", "infer", "postprocess", "store")
STATES = {"ok": "ok", "at risk": "risk", "missed": "missed", "not measured": "unmeasured"}
#: Changes of rules in a chart, at most.
NOTES = 50


def _pages(shell: Shell) -> Sequence[Page]:
    page = OperationsPage(shell)
    return (
        shell.page("/operations", page.show, room="operations"),
        shell.page("/operations/drain", page.drain, room="operations", methods=("POST",), right="operate"),
        shell.page("/operations/slowest", page.slowest, room="operations"),
    )


ROOM = Room(name="operations", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class TileView:
    """A service level as it is written down. `budget`: what is left of it, 0..1, or where it has none the share of the time
    in which the target was kept; None without a target.
    """

    name: str
    title: str
    value: str
    target: str
    state: str
    budget: float | None
    budgeted: bool
    budget_words: str
    latest: str
    spark: list[float | None]


@dataclass(frozen=True)
class Bar:
    """A stage of one image: when it began and how long it took, as shares of the whole."""

    name: str
    seconds: str
    start: float
    share: float


class OperationsPage:
    """GET /operations, the forms that drain and put back, and the way from a point of a chart to the record behind it."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._say = shell.words.say

    async def show(self, request: Request) -> Response:
        """The page for the range and the site of the address."""
        who = principal_of(request)
        over: Any = request.query_params.get("range", "1h")
        if over not in RANGES:
            raise InputError(f"range={over[:20]!r}: choose from {', '.join(RANGES)}")
        site = request.query_params.get("site") or None
        report = await self._shell.sources.operations(who, over, site)
        history = (await self._shell.sources.models()).get("history", [])
        sites = [each.name for each in self._shell.sources.settings.sites if who.sees(each.name)]
        return await self._shell.render(
            request,
            "operations.html",
            room="operations",
            title=self._say("operations.title"),
            script="js/pages/operations.js",
            data={
                "range": over,
                "site": site,
                "seconds": report["seconds"],
                "targets": {
                    tile["metric"]: {"value": tile["target"], "line": tile["line"]}
                    for tile in report["tiles"]
                    if tile["target"]
                },
                "notes": [*map(_note, history[:NOTES]), *await self._rule_notes(report["seconds"])],
                "cost": report["cost"],
            },
            report=report,
            tiles=[self._tile(tile) for tile in report["tiles"]],
            bars=bars_of((report["slowest"] or {}).get("timings", {})),
            means=[(stage, duration(seconds)) for stage, seconds in ordered(report["stages"])],
            ranges=RANGES,
            over=over,
            site=site,
            sites=sites,
            charts=CHARTS,
            may_keep=who.may("manage"),
            queue=report["queue"],
            processes=report["replicas"]["processes"],
            servers=report["replicas"]["inference"],
            lone=[name for kind in report["replicas"].values() for name in lone(kind)],
            may_drain=who.may("operate") and who.sites is None,
            duration=duration,
            moment=moment,
        )

    async def drain(self, request: Request) -> Response:
        """The form that takes one out, or puts it back."""
        form = await form_of(request)
        await self._shell.sources.drain(principal_of(request), form.get("replica", ""), wanted="wanted" in form)
        return self._shell.see(f"/operations?{request.url.query}#processes-title")

    async def slowest(self, request: Request) -> Response:
        """Leads to the record of what took longest in a time, and to its stages. Raises InputError, NotFound."""
        who, asked = principal_of(request), request.query_params
        site = asked.get("site") or None
        since, until = (_second(asked.get(name, "")) for name in ("from", "until"))
        sites = who.sites if site is None else [site] if who.sees(site) else []
        found = await self._shell.sources.results.slowest(since, until, sites)
        if found is None:
            raise NotFound(self._say("operations.none_slow"))
        return self._shell.see(f"/audit/{found.id}")

    async def _rule_notes(self, seconds: int) -> list[dict[str, Any]]:
        """Every version that people made of a rule in the range."""
        results, since = self._shell.sources.results, utcnow() - timedelta(seconds=seconds)
        changed = [row.name for row in await results.rules() if row.at >= since][:NOTES]
        rows = [row for name in changed for row in await results.rule_versions(name) if row.at >= since]
        return [
            {
                "at": row.at.timestamp(),
                "words": self._say(
                    "operations.rule_removed" if row.body is None else "operations.rule_changed",
                    name=row.name,
                    version=row.version,
                    by=row.by,
                ),
            }
            for row in rows[:NOTES]
        ]

    def _tile(self, tile: Mapping[str, Any]) -> TileView:
        target, budget = tile["target"], tile["budget"]
        left = budget and budget["left"]
        words = self._say("operations.no_budget")
        share = left if budget else tile["kept"]
        if not budget and share is not None:
            words = self._say("operations.kept", share=percent(share))
        if left is not None:
            words = self._say("operations.budget", left=percent(max(left, 0.0)), objective=budget["objective"])
        elif budget:
            words = self._say("operations.unmeasured_budget", objective=budget["objective"])
        limit = "" if target is None else self._say(f"operations.{tile['better']}", value=shown(target, tile["unit"]))
        return TileView(
            name=tile["name"],
            title=self._say(f"operations.{tile['name']}"),
            value=shown(tile["value"], tile["unit"]),
            target=limit,
            state=STATES[tile["verdict"]],
            budget=None if share is None else max(0.0, min(1.0, share)),
            budgeted=left is not None,
            budget_words=words,
            spark=tile["spark"],
            latest=self._say("operations.latest", value=shown(_latest(tile["spark"]), tile["unit"])),
        )


def _latest(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _second(text: str) -> datetime:
    """A moment as a chart counts it. Raises InputError."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"{text[:20]!r} is no time; give Unix seconds, as the charts do") from error


def _note(line: Mapping[str, Any]) -> dict[str, Any]:
    """A change of model as a line in every chart."""
    return {"at": parse_time(line["at"]).timestamp(), "words": f"{line['model']} {line['version']}"}


def lone(kind: Sequence[Mapping[str, Any]]) -> list[str]:
    """The one beside which no other of its kind works."""
    working = [one["id"] for one in kind if one["drainable"] and one["state"] == "running"]
    return working if len(working) == 1 else []


def shown(value: float | None, unit: str) -> str:
    """A measure with its unit, as people say it."""
    if value is None:
        return "–"
    if unit == "share":
        return f"{number(value * 100)} %"
    return duration(value) if unit == "s" else f"{number(value)} {unit}"


def duration(seconds: float) -> str:
    """Milliseconds below a second."""
    return f"{number(seconds * 1000)} ms" if seconds < 1 else f"{number(seconds)} s"


def moment(value: Any) -> datetime:
    """A time that a report tells, whichever way."""
    return value if isinstance(value, datetime) else parse_time(str(value))


def ordered(stages: Mapping[str, float]) -> list[tuple[str, float]]:
    """In the order of an image's way."""
    return sorted(
        stages.items(), key=lambda each: (STAGES.index(each[0]) if each[0] in STAGES else len(STAGES), each[0])
    )


def bars_of(timings: Mapping[str, float]) -> list[Bar]:
    """Each stage behind the one before."""
    whole = sum(timings.values()) or 1.0
    bars, start = [], 0.0
    for name, seconds in ordered(timings):
        bars.append(Bar(name, duration(seconds), round(start / whole * 100, 2), round(seconds / whole * 100, 2)))
        start += seconds
    return bars
