"""`eyeline models tune`: measure how a model runs best on this machine, and keep the fastest way that decides the same.

What is kept stands in `tuned.toml` beside the model. It belongs to this machine, not to the model: it is no part of the
bundle's digest, but of the fingerprint of what serves.
"""

import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tomli_w

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import ConfigError, InferenceError
from eyeline.inference.answers import tensor_of
from eyeline.inference.base import ModelRuntime, Tensor
from eyeline.inference.bundles import Bundle
from eyeline.inference.environment import processor
from eyeline.inference.golden import check
from eyeline.inference.runtimes import RUNTIMES, TUNED, Choice, cores, open_runtimes

Progress = Callable[[float, str], None]

#: Seconds that one way is measured for: at most, and at least where the budget is short.
WINDOW, SHORTEST = 4.0, 0.3
SLICES = 3
#: Ways this close to the fastest are as fast; the one that takes least CPU is chosen among them.
AS_FAST = 0.92
#: Where others take more than this share of the machine, speeds within the second are as fast: CPU time tells then.
BUSY, BLURRED = 0.15, 0.6
#: A larger batch must be this much faster to be worth its latency.
WORTH = 1.08


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to run the model and what it came to. `note`: why it was not measured or not taken."""

    runtime: str
    precision: str
    threads: int
    instances: int
    images_per_second: float | None = None
    cpu_ms: float | None = None
    same_decisions: bool | None = None
    batch: int = 1
    chosen: bool = False
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """For a table: runtime, precision, threads, instances, images/s, CPU ms an image, same decisions, remark."""
        speed = "–" if self.images_per_second is None else f"{self.images_per_second:.1f}"
        cpu = "–" if self.cpu_ms is None else f"{self.cpu_ms:.1f}"
        same = {None: "–", True: "yes", False: "no"}[self.same_decisions]
        remark = " ".join(filter(None, ("◀ chosen" if self.chosen else "", self.note)))
        return (self.runtime, self.precision, str(self.threads), str(self.instances), speed, cpu, same, remark)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """All that was tried, and what serves from the next load on."""

    rows: tuple[Row, ...]
    chosen: Row


def tune(
    bundle: Bundle, *, budget: float = 60.0, progress: Progress = lambda _share, _words: None, write: bool = True
) -> Tuning:
    """Measure within about `budget` seconds and write `tuned.toml`. Blocks; `progress` is told the share done and words.

    Raises ConfigError where no way gives the recorded decisions, or the folder cannot be written.
    """
    started, neighbours = time.monotonic(), _Neighbours()
    pictures = _pictures(bundle)
    ways = list(_ways())
    rows: list[Row] = []
    for number, row in enumerate(ways):
        progress(number / len(ways), f"{row.runtime} {row.precision}, {row.instances} × {row.threads} threads")
        left = budget - (time.monotonic() - started)
        if row.note or (left <= 0 and rows):
            rows.append(_with(row, note=row.note or "no time left: give more with --seconds"))
            continue
        window = max(SHORTEST, min(WINDOW, 0.6 * left / (len(ways) - number)))
        rows.append(_measured(bundle, row, pictures, window))
    busy = neighbours.share() > BUSY
    chosen = _with(_best(bundle, rows, BLURRED if busy else AS_FAST), chosen=True)
    if busy:
        chosen = _with(chosen, note="others kept this machine busy: CPU time decided; tune again when it is quiet")
    if bundle.contract.input.max_batch > 1:
        progress(0.97, "batches")
        chosen = _batched(bundle, chosen, pictures)
    tuning = Tuning(rows=tuple(chosen if _same_way(row, chosen) else row for row in rows), chosen=chosen)
    if write:
        _write(bundle.path / TUNED, tuning)
    progress(1.0, "done")
    return tuning


def _with(row: Row, **changes: Any) -> Row:
    return Row(**(asdict(row) | changes))


def _same_way(one: Row, other: Row) -> bool:
    return (one.runtime, one.precision, one.threads, one.instances) == (
        other.runtime,
        other.precision,
        other.threads,
        other.instances,
    )


def _ways() -> Iterator[Row]:
    """What can be tried here: one thread an instance first, which costs least on most CPUs."""
    count = cores()
    layouts = dict.fromkeys([(1, count), (count, 1), *([(2, count // 2)] if count >= 4 else [])])
    for runtime in RUNTIMES.schemes():
        try:
            precisions = RUNTIMES.load(runtime).precisions()
        except ConfigError as error:
            yield Row(runtime=runtime, precision="–", threads=0, instances=0, note=str(error))
            continue
        for precision in precisions:
            for threads, instances in layouts:
                yield Row(runtime=runtime, precision=precision, threads=threads, instances=instances)


def _pictures(bundle: Bundle) -> list[Tensor]:
    """The golden pictures as tensors of one; grey noise where there are none."""
    wanted = bundle.contract.input
    if not bundle.golden.images:
        noise = np.random.default_rng(7).integers(0, 256, (1, *wanted.shape), np.uint8)
        return [noise.astype(wanted.dtype)]
    return [tensor_of(bundle.read(f"golden/{image.file}"), bundle.contract)[0] for image in bundle.golden.images]


def _choice(row: Row) -> Choice:
    return Choice(
        runtime=row.runtime,
        precision=row.precision,  # type: ignore[arg-type]
        threads=row.threads,
        instances=row.instances,
    )


def _measured(bundle: Bundle, row: Row, pictures: Sequence[Tensor], window: float) -> Row:
    """The row with its numbers; a way that cannot run says why."""
    try:
        runtimes = open_runtimes(bundle, _choice(row))
    except ConfigError as error:
        return _with(row, note=str(error))
    try:
        differences = check(bundle, runtimes[0].infer)
        speed, cpu = _speed(bundle, runtimes, pictures, window)
    except InferenceError as error:
        return _with(row, note=str(error))
    finally:
        for runtime in runtimes:
            runtime.close()
    return _with(
        row,
        images_per_second=round(speed, 2),
        cpu_ms=round(cpu, 2),
        same_decisions=not differences,
        note=differences[0] if differences else "",
    )


def _speed(
    bundle: Bundle, runtimes: Sequence[ModelRuntime], pictures: Sequence[Tensor], window: float
) -> tuple[float, float]:
    """(images a second, CPU milliseconds an image) with every instance busy in a thread of its own.

    The best of a few slices: what others do on this machine meanwhile makes a slice slower, never faster.
    """
    for runtime in runtimes:
        runtime.infer({bundle.contract.input.name: pictures[0]})
    slices = [_slice(bundle.contract.input.name, runtimes, pictures, window / SLICES) for _ in range(SLICES)]
    return max(speed for speed, _ in slices), min(cpu for _, cpu in slices)


def _slice(
    name: str, runtimes: Sequence[ModelRuntime], pictures: Sequence[Tensor], seconds: float
) -> tuple[float, float]:
    counts = [0] * len(runtimes)
    failures: list[InferenceError] = []
    end = time.perf_counter() + seconds

    def work(at: int) -> None:
        try:
            while time.perf_counter() < end:
                runtimes[at].infer({name: pictures[counts[at] % len(pictures)]})
                counts[at] += 1
        except InferenceError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(runtimes))]
    began, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    images = max(1, sum(counts)) * len(pictures[0])
    return images / (time.perf_counter() - began), 1000 * (time.process_time() - used) / images


def _best(bundle: Bundle, rows: Sequence[Row], as_fast: float = AS_FAST) -> Row:
    """The fastest way with the same decisions; of ways as fast, one that takes little CPU, with the fewest threads."""
    speeds = [row.images_per_second for row in rows if row.same_decisions and row.images_per_second]
    if not speeds:
        said = "; ".join(f"{row.runtime} {row.precision}: {row.note}" for row in rows if row.note)
        raise ConfigError(f"{bundle.name} {bundle.version}: no way to run it gives the recorded decisions ({said})")
    fast = [row for row in rows if row.same_decisions and (row.images_per_second or 0) >= as_fast * max(speeds)]
    frugal = min(row.cpu_ms or 0.0 for row in fast) / AS_FAST
    return min((row for row in fast if (row.cpu_ms or 0.0) <= frugal), key=lambda row: (row.threads, row.cpu_ms))


class _Neighbours:
    """How much of this machine other processes take, from when this is made."""

    def __init__(self) -> None:
        self._busy, self._total, self._own = self._times()

    def share(self) -> float:
        """0..1 of all cores."""
        busy, total, own = self._times()
        return max(0.0, (busy - self._busy) - (own - self._own)) / max(1e-6, total - self._total)

    @staticmethod
    def _times() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        total = sum(getattr(times, name) for name in ("user", "nice", "system", "idle"))
        return total - times.idle, total, time.process_time()


def _batched(bundle: Bundle, row: Row, pictures: Sequence[Tensor]) -> Row:
    """The chosen way with the batch that is worth it: 1, unless more at once are clearly faster."""
    runtimes = open_runtimes(bundle, _choice(row))
    best, speed = 1, row.images_per_second or 0.0
    try:
        for size in (4, 8):
            if size > bundle.contract.input.max_batch:
                break
            batch = np.concatenate([pictures[at % len(pictures)] for at in range(size)])
            found, _ = _speed(bundle, runtimes, [batch], SHORTEST * 2)
            if found > speed * WORTH:
                best, speed = size, found
    except InferenceError:
        best = 1  # this way takes single images only
    finally:
        for runtime in runtimes:
            runtime.close()
    return _with(row, batch=best)


def _write(path: Path, tuning: Tuning) -> None:
    chosen = tuning.chosen
    content = {
        "runtime": chosen.runtime,
        "precision": chosen.precision,
        "threads": chosen.threads,
        "instances": chosen.instances,
        "batch": chosen.batch,
        "measured_at": isoformat(utcnow()),
        "machine": {"processor": processor(), "cores": cores(), "architecture": platform.machine()},
        "libraries": [RUNTIMES.load(name).version() for name in dict.fromkeys(_measured_runtimes(tuning))],
        "measured": [{name: value for name, value in asdict(row).items() if value is not None} for row in tuning.rows],
    }
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_text(tomli_w.dumps(content), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); copy the bundle into your models folder and tune it there"
        ) from error


def _measured_runtimes(tuning: Tuning) -> list[str]:
    return [row.runtime for row in tuning.rows if row.images_per_second is not None]
