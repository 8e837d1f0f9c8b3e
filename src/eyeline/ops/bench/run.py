"""Carries out the benchmark: each part in processes of its own, one after the other, on the same images and model.

Load generators share the machine with what they load. Their CPU time is measured, reported, and taken out of the
machine's before rates are compared: `rate_alone` = images / (seconds - generator CPU seconds / cores).
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import psutil
import tomli_w
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from eyeline import __version__
from eyeline.core.errors import BackendError, ConfigError
from eyeline.inference.bundles import Bundle, find_bundles
from eyeline.ops.bench.chart import draw_chart
from eyeline.ops.bench.images import load_images, unique
from eyeline.ops.bench.load import LoadPlan
from eyeline.ops.bench.ports import two_free_ports
from eyeline.ops.own import own_folder, own_system
from eyeline.ops.slo import read

Figures = dict[str, Any]
CORES = os.cpu_count() or 1
#: Seconds until the lines are filled and the rates steady; no longer than what is measured, so that a short run is short.
WARMUP = 2.0


@dataclass(frozen=True)
class BenchPlan:
    """What to measure: the model by name, for `seconds` in each part."""

    model: str
    models_dir: Path
    images: Path | None
    seconds: float = 15.0
    overload: bool = True


async def run_bench(plan: BenchPlan, console: Console, chart: Path) -> Figures:
    """All parts; returns the figures and writes the chart. Raises ConfigError for an unknown model or no images."""
    bundles = find_bundles(plan.models_dir)
    if plan.model not in bundles:
        raise ConfigError(f"no model is called {plan.model!r}; installed: {', '.join(sorted(bundles))}")
    bundle = bundles[plan.model]
    images = load_images(plan.images)
    with own_folder("eyeline-bench-") as folder:
        _write(images, folder / "images")
        with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as bar:
            task = bar.add_task("limit of this machine", total=4)
            limit = await measure_limit(bundle, folder / "images", plan.seconds)
            bar.update(task, advance=1, description="the naive service")
            naive = await measure_naive(bundle, folder / "images", plan.seconds)
            bar.update(task, advance=1, description="Eyeline")
            async with running(plan, folder) as system:
                eyeline = await measure_eyeline(system, folder / "images", plan.seconds, naive["rate_at_2s"])
                bar.update(task, advance=1, description="overload")
                overload = (
                    await measure_overload(system, folder / "images", eyeline, plan.seconds) if plan.overload else None
                )
    figures = _summary(bundle, images, limit, eyeline, naive, overload)
    draw_chart(figures, chart)
    _print(figures, console, chart)
    return figures


def _write(images: Sequence[bytes], folder: Path) -> None:
    folder.mkdir()
    for number, data in enumerate(images):
        (folder / f"{number:03d}.jpg").write_bytes(data)


# ---------------------------------------------------------------- (a) the limit
async def measure_limit(bundle: Bundle, images: Path, seconds: float) -> Figures:
    """The tight loop on every core at once."""
    words = (sys.executable, "-m", "eyeline.ops.bench.limit", str(bundle.path), str(images), str(seconds))
    parts = await asyncio.gather(*(_json_of(words) for _ in range(CORES)))
    count = sum(part["images"] for part in parts)
    return {
        "images_per_second": sum(part["images"] / part["seconds"] for part in parts),
        "cpu_ms_per_image": 1000 * sum(part["cpu_seconds"] for part in parts) / count,
    }


async def _json_of(words: Sequence[str], text: bytes = b"") -> Any:
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(text)
    if process.returncode:
        raise BackendError(f"{' '.join(words[2:3])} ended with code {process.returncode}; its message stands above")
    return json.loads(out)


async def load(plan: LoadPlan) -> Figures:
    """Run the generator in its own process; adds rates and percentiles to what it saw."""
    seen: Figures = await _json_of((sys.executable, "-m", "eyeline.ops.bench.load"), msgspec.json.encode(plan))
    alone = max(seen["seconds"] - seen["cpu_seconds"] / CORES, 1e-3)
    count = len(seen["latencies"])
    return {
        **seen,
        "rate": count / seen["seconds"],
        "rate_alone": count / alone,
        "generator_cpu_share": seen["cpu_seconds"] / (seen["seconds"] * CORES),
        "p50": percentile(seen["latencies"], 50),
        "p99": percentile(seen["latencies"], 99),
        "refusal_p99": percentile(seen["refusals"], 99),
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """The percentile in seconds, None of nothing."""
    return round(float(np.percentile(values, share)), 5) if values else None


# ---------------------------------------------------------------- (b) Eyeline
@dataclass(frozen=True)
class System:
    """A running `eyeline up`: its address, its inference server's, and its supervisor's pid."""

    url: str
    inference: str
    pid: int
    pipeline: str

    def processes(self) -> list[psutil.Process]:
        """All its processes, decoder children too."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """CPU time of them all so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def memory(self) -> int:
        """Bytes of private memory of them all (shared pixels are counted once)."""
        return sum(process.memory_info().rss - process.memory_info().shared for process in self.processes())


@contextlib.asynccontextmanager
async def running(plan: BenchPlan, folder: Path, more: Mapping[str, Any] | None = None) -> AsyncIterator[System]:
    """`eyeline up` on an empty data folder, ready to answer. `more` settings stand over those of the plan, section by section."""
    port, inference_port = two_free_ports()
    config = folder / "eyeline.toml"
    settings: dict[str, Any] = {
        "data_dir": str(folder / "data"),
        "log_level": "warning",
        "gateway": {"port": port},
        "inference": {"url": f"http://127.0.0.1:{inference_port}", "models": str(plan.models_dir.resolve())},
        "pipelines": [{"name": "bench", "steps": [{"name": "bench", "model": plan.model}]}],
    }
    for name, value in (more or {}).items():
        settings[name] = settings.get(name, {}) | value if isinstance(value, Mapping) else value
    config.write_text(tomli_w.dumps(settings))
    async with own_system(config) as process:
        await _until_ready(f"http://127.0.0.1:{port}", process)
        yield System(f"http://127.0.0.1:{port}", settings["inference"]["url"], process.pid, "bench")


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            if process.returncode is not None:
                raise BackendError(f"eyeline up ended with code {process.returncode}; its message stands above")
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200 and not (await answer.json())["pipelines_not_ready"]:
                        return
            await asyncio.sleep(0.1)
    raise BackendError(f"{url} was not ready after 60 s")


async def measure_eyeline(system: System, images: Path, seconds: float, naive_rate: float) -> Figures:
    """Closed loop at 1, 16 and 64 clients, the 202 alone, and the load at which the naive service reaches 2 s."""

    def plan(**what: Any) -> LoadPlan:
        return LoadPlan(url=system.url, images=str(images), pipeline=system.pipeline, **what)

    closed = {}
    for clients in (1, 16, 64):
        before = system.cpu_seconds()
        warmup = min(WARMUP, seconds)
        seen = await load(plan(kind="answer", seconds=seconds, clients=clients, warmup=warmup))
        after = system.cpu_seconds()
        # the warm-up's images are in the CPU time too: scaled by the length of both
        share = seen["seconds"] / (seen["seconds"] + warmup)
        closed[clients] = {
            **_slim(seen),
            "cpu_ms_per_image": 1000 * (after - before) * share / max(1, len(seen["ids"])),
        }
    capacity = max(entry["rate"] for entry in closed.values())
    accepted = await load(plan(kind="accept", seconds=seconds, rate=0.5 * capacity))
    await _drained(system)
    same = await load(plan(kind="answer", seconds=seconds, rate=naive_rate))
    return {
        "closed": closed,
        "capacity": capacity,
        "images_per_second": max(entry["rate_alone"] for entry in closed.values()),
        "cpu_ms_per_image": min(entry["cpu_ms_per_image"] for entry in closed.values()),
        "accept": _slim(accepted),
        "at_naive_2s": _slim(same),
        "memory_bytes": system.memory(),
    }


def _slim(seen: Figures) -> Figures:
    return {key: value for key, value in seen.items() if key not in ("latencies", "refusals", "ids", "finished")}


async def _drained(system: System) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            async with session.get(f"{system.url}/v1/system") as answer:
                queue = (await answer.json())["queue"]
                if queue["depth"] + queue["in_flight"] == 0:
                    return
            await asyncio.sleep(0.05)


# ---------------------------------------------------------------- overload
async def measure_overload(system: System, images: Path, eyeline: Mapping[str, Any], seconds: float) -> Figures:
    """Twice the capacity: what is completed, how long the accepted wait, how fast the refused are told, memory, recovery."""
    await _drained(system)
    alone = await load(
        LoadPlan(
            url=system.url, kind="answer", images=str(images), seconds=min(2.0, seconds), clients=1, pipeline="bench"
        )
    )
    memory, before = system.memory(), await _completed(system)
    rate = 2 * eyeline["capacity"]
    # the warm-up fills the line, so that the measured time is all overload
    plan = LoadPlan(
        url=system.url,
        kind="accept",
        images=str(images),
        seconds=seconds,
        rate=rate,
        pipeline="bench",
        warmup=min(WARMUP, seconds),
    )
    started = time.perf_counter()
    seen = await load(plan)
    elapsed = time.perf_counter() - started
    ended = time.perf_counter()
    recovered = await _recovery(system, images, ended, 2 * (alone["p50"] or 1.0))
    await _drained(system)
    completed = await _completed(system) - before
    waits = await _queue_waits(system, seen["ids"])
    return {
        **_slim(seen),
        "rate_asked": rate,
        "goodput": completed / elapsed,
        "goodput_alone": completed / (elapsed - seen["cpu_seconds"] / CORES),
        "queue_wait_p50": percentile(waits, 50),
        "queue_wait_p99": percentile(waits, 99),
        "memory_growth": system.memory() / memory - 1,
        "recovery_seconds": recovered,
    }


async def _completed(system: System) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{system.url}/metrics") as answer:
        values = read(await answer.text()).values.get("eyeline_images_total", {})
    return sum(value for key, value in values.items() if ("status", "completed") in key)


async def _recovery(system: System, images: Path, ended: float, normal: float) -> float:
    """Seconds from the load's end until a lone request is as fast as before (within a factor of two of the median)."""
    data = load_images(images)[0]
    async with aiohttp.ClientSession() as session:
        for _ in range(2000):
            started = time.perf_counter()
            body = unique(data, time.time_ns())
            params = {"pipeline": system.pipeline, "wait": "10"}
            async with session.post(f"{system.url}/v1/images", params=params, data=body) as answer:
                await answer.read()
                if answer.status == 200 and time.perf_counter() - started <= normal:
                    return time.perf_counter() - ended
            await asyncio.sleep(0.01)
    raise BackendError("the latency did not come back to normal after the overload")


async def _queue_waits(system: System, ids: Sequence[str]) -> list[float]:
    """The queue wait that the results of `ids` state."""
    wanted, waits, cursor = set(ids), [], None
    async with aiohttp.ClientSession() as session:
        while wanted:
            params = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
            async with session.get(f"{system.url}/v1/results", params=params) as answer:
                page = await answer.json()
            waits += [result["timings"]["queue"] for result in page["results"] if result["id"] in wanted]
            wanted -= {result["id"] for result in page["results"]}
            cursor = page["next"]
            if cursor is None:
                break
    return waits


# ---------------------------------------------------------------- (c) the naive service
async def measure_naive(bundle: Bundle, images: Path, seconds: float) -> Figures:
    """Closed loop at 16 clients; then open loop, faster and faster, until its p99 reaches 2 s."""
    port, _ = two_free_ports()
    words = (sys.executable, "-m", "eyeline.ops.bench.naive", str(bundle.path), str(port))
    process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        await _until_open(port, process)
        watched = psutil.Process(process.pid)
        before = sum(watched.cpu_times()[:2])
        plan = _naive_plan(url, images, seconds, clients=16)
        closed = await load(plan)
        cpu = (sum(watched.cpu_times()[:2]) - before) * closed["seconds"] / (closed["seconds"] + plan.warmup)
        rate, at_2s = await _ramp(url, images, seconds, closed["rate"])
        return {
            **_slim(closed),
            "images_per_second": closed["rate_alone"],
            "cpu_ms_per_image": 1000 * cpu / max(1, closed["answered"]),
            "memory_bytes": watched.memory_info().rss,
            "rate_at_2s": rate,
            "p99_at_2s": at_2s,
        }
    finally:
        process.terminate()
        await process.wait()


def _naive_plan(url: str, images: Path, seconds: float, **what: Any) -> LoadPlan:
    return LoadPlan(url=url, kind="naive", images=str(images), seconds=seconds, warmup=min(1.0, seconds), **what)


async def _ramp(url: str, images: Path, seconds: float, capacity: float) -> tuple[float, float]:
    for share in (0.8, 0.9, 1.0, 1.1, 1.25, 1.5):
        seen = await load(_naive_plan(url, images, seconds, rate=share * capacity))
        p99 = seen["p99"] or 30.0  # nothing answered in time: as bad as the client's patience
        if p99 >= 2.0:
            return share * capacity, p99
    return 1.5 * capacity, p99


async def _until_open(port: int, process: asyncio.subprocess.Process) -> None:
    for _ in range(300):
        if process.returncode is not None:
            raise BackendError(f"the naive service ended with code {process.returncode}; its message stands above")
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise BackendError("the naive service did not open its port in 30 s")


# ---------------------------------------------------------------- what is said
def _summary(
    bundle: Bundle, images: Sequence[bytes], limit: Figures, eyeline: Figures, naive: Figures, overload: Figures | None
) -> Figures:
    figures: Figures = {
        "eyeline": __version__,
        "model": f"{bundle.name} {bundle.version}",
        "images": {"count": len(images), "mean_bytes": round(sum(map(len, images)) / len(images))},
        "cores": CORES,
        "limit": limit,
        "service": eyeline,
        "naive": naive,
        "overload": overload,
        "fraction_of_limit": eyeline["images_per_second"] / limit["images_per_second"],
        "fraction_of_limit_with_generator": eyeline["capacity"] / limit["images_per_second"],
        "times_naive": eyeline["images_per_second"] / naive["images_per_second"],
        "p99_share_of_naive": (eyeline["at_naive_2s"]["p99"] or 0.0) / naive["p99_at_2s"],
        "overhead_cpu_ms": eyeline["cpu_ms_per_image"] - limit["cpu_ms_per_image"],
    }
    if overload is not None:
        figures["goodput_share"] = overload["goodput_alone"] / eyeline["images_per_second"]
    return figures


def _print(figures: Figures, console: Console, chart: Path) -> None:
    limit, service, naive, overload = (figures[part] for part in ("limit", "service", "naive", "overload"))

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    pictures = figures["images"]
    say(f"{figures['model']}, {pictures['count']} images of {pictures['mean_bytes'] / 1000:.0f} kB, {CORES} cores")
    for name, part in (("limit", limit), ("Eyeline", service), ("naive", naive)):
        say(f"  {name:<8} {part['images_per_second']:7.1f} images/s   {part['cpu_ms_per_image']:6.2f} CPU ms an image")
    say(
        f"  Eyeline reaches {figures['fraction_of_limit']:.0%} of the limit, {figures['times_naive']:.2f} times the naive service"
    )
    say(f"  202: p50 {_ms(service['accept']['p50'])}, p99 {_ms(service['accept']['p99'])} at half the capacity")
    say(
        f"  at {naive['rate_at_2s']:.0f} images/s: naive p99 {_ms(naive['p99_at_2s'])},"
        f" Eyeline p99 {_ms(service['at_naive_2s']['p99'])}"
    )
    if overload:
        say(
            f"  at twice the capacity: goodput {figures['goodput_share']:.0%}, queue wait p99 {_ms(overload['queue_wait_p99'])},"
            f" refusals p99 {_ms(overload['refusal_p99'])}, memory {overload['memory_growth']:+.1%},"
            f" normal again after {overload['recovery_seconds']:.2f} s"
        )
    say(f"  chart: {chart}")


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.1f} ms"
