"""`eyeline demo`: the whole system on the bundled clips and models, with a live view of what it does.

It starts `eyeline up` as a user would, listens to the public event stream, and compares what was found with what the
clips are known to hold.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import tomli_w
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from eyeline.core.errors import BackendError, ConfigError
from eyeline.core.figures import quantile
from eyeline.ops.own import own_system
from eyeline.ops.planted import Clip, Judge, Score
from eyeline.ops.slo import merged, read

BUNDLED = Path(str(files("eyeline") / "bundled"))
START_SECONDS = 120.0
DISK_LIMIT = 450_000_000  # bytes under the demo's folder, of the 500 MB that it may take
OLD = 60.0  # seconds after which a demo picture may go: its job is long finished


@dataclass(frozen=True)
class Feed:
    """A demo camera: its clip, its pipeline, and when something counts as raised."""

    name: str
    site: str
    pipeline: str
    fps: float
    threshold: float
    needed: int
    defects_are_boxes: bool


FEEDS = (
    Feed("inbound", "north", "parcels", 5, 0.8, 6, defects_are_boxes=False),
    Feed("outbound", "south", "parcels", 5, 0.8, 6, defects_are_boxes=False),
    Feed("boards", "line", "pcb-defects", 2, 0.5, 1, defects_are_boxes=True),
)


@dataclass
class State:
    """What the view shows."""

    address: str
    started: float = field(default_factory=time.monotonic)
    first: float | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    results: int = 0
    failed: int = 0
    finds: int = 0
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    alerts: deque[str] = field(default_factory=lambda: deque(maxlen=6))
    judges: dict[str, Judge] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    queue_wait: float | None = None

    @property
    def rate(self) -> float:
        """Results a second over the last five."""
        now = time.monotonic()
        return sum(1 for moment in self.arrivals if now - moment < 5.0) / 5.0

    def totals(self) -> tuple[int, int, int, int]:
        """Planted, found, missed, false over all cameras."""
        scores = [judge.score for judge in self.judges.values()]

        def count(part: Callable[[Score], set[str]]) -> int:
            return sum(len(part(score)) for score in scores)

        return count(lambda s: s.planted), count(lambda s: s.found), count(lambda s: s.missed), count(lambda s: s.false)


def demo_settings(folder: Path, port: int, inference_port: int, feeds: tuple[Feed, ...]) -> dict[str, Any]:
    """The settings of the demo, as they stand in its eyeline.toml."""
    return {
        "data_dir": str(folder / "data"),
        "log_level": "warning",
        "gateway": {"port": port},
        "inference": {"url": f"http://127.0.0.1:{inference_port}", "models": str(folder / "models")},
        "sites": [
            {"name": "north", "timezone": "Europe/Berlin", "shifts": ["06:00", "14:00", "22:00"]},
            {"name": "south", "timezone": "America/Chicago", "shifts": ["07:00", "19:00"]},
            {"name": "line", "timezone": "Asia/Tokyo", "shifts": ["08:00", "20:00"]},
        ],
        "pipelines": [
            {
                "name": "parcels",
                "steps": [
                    {"name": "find", "model": "parcel-finder"},
                    {"name": "damage", "model": "parcel-damage", "on": "find"},
                    {"name": "codes", "kind": "barcodes", "on": "find", "formats": ["QRCode", "Code128"]},
                    {"name": "follow", "kind": "track", "on": "find"},
                ],
            },
            {"name": "pcb-defects", "steps": [{"name": "defects", "model": "pcb-defects"}]},
        ],
        "cameras": [
            {
                "name": feed.name,
                "site": feed.site,
                "url": str(BUNDLED / "clips" / f"{feed.name}.mp4"),
                "fps": feed.fps,
                "pipeline": feed.pipeline,
                "drop": "newest",
                "loop": True,
            }
            for feed in feeds
        ],
        "alerts": {
            "rules": [
                {
                    "name": "damaged parcel",
                    "when": "label == 'damaged' and score >= 0.8",
                    "count": 6,
                    "within": "4s",
                    "by": ["camera"],
                    "severity": "critical",
                    "cooldown": "10s",
                    "notify": ["log"],
                },
                {
                    "name": "board defect",
                    "when": "pipeline == 'pcb-defects' and score >= 0.5",
                    "by": ["camera", "label"],
                    "severity": "warning",
                    "cooldown": "10s",
                    "notify": ["log"],
                },
            ]
        },
    }


async def run_demo(
    folder: Path, port: int, free_port: Callable[[str, int], int], seconds: float | None, console: Console
) -> int:
    """Run in `folder` (absolute) for `seconds` from the first result on or, where None, until Ctrl-C.

    Returns 0, or 1 if nothing was found.
    """
    feeds = tuple(feed for feed in FEEDS if (BUNDLED / "clips" / f"{feed.name}.mp4").exists())
    if not feeds:
        raise ConfigError(f"the demo's clips are missing from {BUNDLED / 'clips'}; reinstall eyeline")
    _wipe(folder)
    (folder / "models").mkdir(parents=True)
    config = folder / "eyeline.toml"
    config.write_text(tomli_w.dumps(demo_settings(folder, port, free_port("127.0.0.1", max(8090, port + 1)), feeds)))
    state = State(f"http://127.0.0.1:{port}")
    for feed in feeds:
        clip = Clip(BUNDLED / "clips" / f"{feed.name}.jsonl")
        state.judges[feed.name] = Judge(
            clip, threshold=feed.threshold, needed=feed.needed, defects_are_boxes=feed.defects_are_boxes
        )
    console.print(f"Eyeline demo: {len(feeds)} cameras, address {state.address}/docs", highlight=False)
    with (folder / "log").open("wb") as log:
        async with own_system(config, log) as process:
            await _show_until(process, state, seconds, console, folder)
    return _verdict(state, folder, console)


def _wipe(folder: Path) -> None:
    """Start anew, but never delete a folder that a demo did not make."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "eyeline.toml").exists():
        raise ConfigError(f"{folder} is not empty and was not made by a demo; name another folder with --dir")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


async def _show_until(
    process: asyncio.subprocess.Process, state: State, seconds: float | None, console: Console, folder: Path
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listener = asyncio.create_task(_listen(process, state, folder))
    listener.add_done_callback(lambda _: stop.set())
    prober = asyncio.create_task(_probe(state))
    sweeper = asyncio.create_task(_stay_small(folder, stop, console))
    timer = asyncio.create_task(_end_after(seconds, state, stop))
    try:
        await (_live(state, stop, console) if seconds is None else _lines(state, stop, console))
    finally:
        tasks = (listener, prober, sweeper, timer)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, BackendError | ConfigError):
            raise outcome


async def _end_after(seconds: float | None, state: State, stop: asyncio.Event) -> None:
    """The time is counted from the first result: how long a machine takes to start says nothing about what is found."""
    if seconds is None:
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(state.begun.wait(), START_SECONDS)
        await asyncio.sleep(seconds)
    stop.set()


async def _listen(process: asyncio.subprocess.Process, state: State, folder: Path) -> None:
    """Follow the public event stream, again from where it broke off."""
    last = "0"
    deadline = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=30)) as session:
        while True:
            if process.returncode is not None:
                tail = (folder / "log").read_text(errors="replace")[-600:]
                raise BackendError(f"eyeline up ended with code {process.returncode}; the end of its log:\n{tail}")
            try:
                async with session.get(f"{state.address}/v1/events", headers={"Last-Event-ID": last}) as stream:
                    async for number, kind, body in server_sent_events(stream.content):
                        last = number or last
                        _take(state, kind, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                if state.first is None and time.monotonic() > deadline:
                    raise BackendError(f"nothing answers at {state.address} after {START_SECONDS:.0f} s") from error
            await asyncio.sleep(0.25)


async def server_sent_events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    """(id, event, data) of each event of a text/event-stream body."""
    fields: dict[str, str] = {}
    async for line in content:
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if fields.get("data"):
            yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
        fields = {}


async def _probe(state: State) -> None:
    """Queue wait p99 from the public metrics and items from the public counts, every two seconds."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{state.address}/metrics") as answer:
                    samples = await asyncio.to_thread(read, await answer.text())
                    waits = samples.histograms.get("eyeline_queue_wait_seconds", {}).values()
                    state.queue_wait = quantile(merged(waits), 0.99)
                async with session.get(f"{state.address}/v1/counts", params={"by": "camera", "bucket": "1d"}) as answer:
                    counted = [row for row in (await answer.json())["counts"] if row["of"] == "items"]
                    state.items = _by_camera(counted)
            await asyncio.sleep(2.0)


def _by_camera(counted: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Camera → items; a demo at midnight has two days."""
    items: dict[str, int] = {}
    for row in counted:
        items[row["camera"]] = items.get(row["camera"], 0) + row["count"]
    return items


async def _stay_small(folder: Path, stop: asyncio.Event, console: Console) -> None:
    """Drop the oldest pictures before the folder outgrows its limit; where only records are left, end the demo."""
    while True:
        await asyncio.sleep(5.0)
        if await asyncio.to_thread(shrink, folder, DISK_LIMIT) > DISK_LIMIT:
            console.print(f"{folder} has reached {DISK_LIMIT / 1e6:.0f} MB: the demo ends here", highlight=False)
            stop.set()
            return


def shrink(folder: Path, limit: int, old: float = OLD) -> int:
    """Remove pictures older than `old` seconds, oldest first, until `folder` holds at most `limit` bytes; what it holds then."""
    files = list(_files(folder))
    total = sum(status.st_size for _, status in files)
    pictures = [(s.st_mtime, s.st_size, path) for path, s in files if folder / "data" / "blobs" in path.parents]
    for written, size, path in sorted(pictures):
        if total <= limit or time.time() - written < old:
            break
        path.unlink(missing_ok=True)
        total -= size
    return total


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a draft that was renamed meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                yield path, status


def _take(state: State, kind: str, body: Mapping[str, Any]) -> None:
    if kind == "alert":
        cause = ", ".join(f"{name} {value}" for name, value in body["cause"].items())
        state.alerts.appendleft(f"{body['severity']}: {body['rule']} · {cause}")
    if kind != "result":
        return
    state.results += 1
    state.first = state.first or time.monotonic()
    state.begun.set()
    state.arrivals.append(time.monotonic())
    if body["status"] == "failed":
        state.failed += 1
        state.latest.appendleft(f"{body['camera']}: failed, {body['reason']}")
        return
    if body["detections"] or body["classifications"]:
        state.finds += 1
        state.latest.appendleft(f"{body['camera']}: {summary(body)}")
    judge = state.judges.get(body["camera"] or "")
    position = body["meta"].get("position")
    if judge is not None and position is not None:
        judge.take(body, float(position), int(body["meta"].get("lap", 0)))


def summary(result: Mapping[str, Any]) -> str:
    """The things a result names, most frequent first: `3 carton, 1 bag, damaged 0.93`."""
    counts: dict[str, int] = {}
    for detection in result["detections"]:
        counts[detection["label"]] = counts.get(detection["label"], 0) + 1
    words = [f"{count} {label}" for label, count in sorted(counts.items(), key=lambda item: -item[1])]
    words += [
        f"damaged {inner['score']:.2f}"
        for detection in result["detections"]
        for inner in detection.get("attributes", {}).get("classifications", [])
        if inner["label"] == "damaged" and inner["score"] >= 0.8
    ]
    return ", ".join(words[:6]) or "nothing"


def _line(state: State) -> str:
    planted, found, missed, false = state.totals()
    wait = "–" if state.queue_wait is None else f"{state.queue_wait * 1000:.0f} ms"
    return (
        f"{time.monotonic() - state.started:5.0f} s  results {state.results}  {state.rate:.1f}/s  queue wait p99 {wait}"
        f"  failed {state.failed}  planted {planted}  found {found}  missed {missed}  false {false}"
    )


async def _lines(state: State, stop: asyncio.Event, console: Console) -> None:
    while not stop.is_set():
        console.print(_line(state), highlight=False, soft_wrap=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


async def _live(state: State, stop: asyncio.Event, console: Console) -> None:
    with Live(_view(state), console=console, refresh_per_second=4) as live:
        while not stop.is_set():
            live.update(_view(state))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.25)


def _view(state: State) -> Group:
    columns = ("camera", "planted", "found", "missed", "false", "parcels", "items", "codes read", "misread")
    table = Table(*columns, box=None, header_style="bold")
    for name, judge in state.judges.items():
        score = judge.score
        row = [str(len(part)) for part in (score.planted, score.found, score.missed, score.false)]
        table.add_row(name, *row, *_tracked(state, name))
    waiting = "" if state.first else "  starting: models load and warm up …"
    latest = "\n".join(state.latest) or "nothing yet"
    alerts = "\n".join(state.alerts) or "none yet"
    return Group(
        f"{_line(state)}{waiting}",
        Panel(table, title="what the clips hold, and what was found", title_align="left"),
        Panel(latest, title="latest", title_align="left"),
        Panel(alerts, title="alerts", title_align="left"),
        f"Open {state.address}/docs · Ctrl-C ends the demo",
    )


def _tracked(state: State, name: str) -> list[str]:
    """Parcels that were in the picture, items that were made of them, their codes read, and misread; nothing for boards."""
    score = state.judges[name].score
    if name not in state.items:
        return []
    return [str(len(score.things)), str(state.items[name]), str(len(score.read)), str(len(score.misread))]


def _verdict(state: State, folder: Path, console: Console) -> int:
    planted, found, missed, false = state.totals()
    console.print(_line(state), highlight=False, soft_wrap=True)
    if state.first is not None:
        console.print(f"first result after {state.first - state.started:.1f} s", highlight=False)
    if state.finds == 0:
        what = "nothing was found" if state.results else "there was no result"
        console.print(f"{what}: see {folder / 'log'}", highlight=False)
        return 1
    for name, judge in state.judges.items():
        score = judge.score
        parts = (len(score.planted), len(score.found), len(score.missed), len(score.false))
        console.print("  {}: planted {}, found {}, missed {}, falsely raised {}".format(name, *parts), highlight=False)
    for name in state.items:
        words = "  {}: parcels {}, items {}, codes read {}, misread {}"
        console.print(words.format(name, *_tracked(state, name)), highlight=False)
    console.print(f"planted {planted}, found {found}, missed {missed}, falsely raised {false}", highlight=False)
    return 0
