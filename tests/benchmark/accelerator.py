"""What an accelerator gives: `python -m tests.benchmark.accelerator --provider cuda --model parcel-finder`.

Three questions, each answered by a table: does every model decide there as its golden set says; how many images a second does
the model alone make of it, by batch size; and what is left of that through the whole `eyeline up`, with the time that the
device was at work by NVIDIA's own count. `--provider cpu` runs the same on any machine.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np

from eyeline.core.settings import InferenceSettings
from eyeline.inference import golden
from eyeline.inference.accelerator import nvidia
from eyeline.inference.base import ModelRuntime
from eyeline.inference.bundles import Bundle, find_bundles
from eyeline.inference.proving import warm_up
from eyeline.inference.runtimes import Choice, choose, open_runtimes
from eyeline.ops.bench.images import load_images
from eyeline.ops.bench.load import LoadPlan
from eyeline.ops.bench.run import BenchPlan, System, load, percentile, running
from eyeline.ops.slo import read

WARMUP = 3.0
SAMPLE = 0.05


@dataclass(frozen=True)
class Asked:
    """What the command line asked for."""

    models: Path
    model: str
    provider: str
    seconds: float
    clients: int
    generators: int
    replicas: int
    concurrency: int
    images: Path | None

    @property
    def providers(self) -> list[str]:
        """As the settings want them: the processor does what the device cannot."""
        return ["cpu"] if self.provider == "cpu" else [self.provider, "cpu"]

    def choice(self, bundle: Bundle) -> Choice:
        """How `eyeline inference` would run it here, not as `models tune` found on another machine's processor."""
        return choose(bundle, InferenceSettings.model_validate({"providers": self.providers}))


class Busy:
    """The share of time that the device was at work while the block ran; None where there is no device."""

    share: float | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Sample NVIDIA's counter until the block ends."""
        with contextlib.ExitStack() as stack:
            device = _device()
            if device is not None:
                stack.enter_context(self._sampled(*device))
            yield

    @contextlib.contextmanager
    def _sampled(self, library: Any, handle: Any) -> Iterator[None]:
        seen: list[float] = []
        over = threading.Event()

        def sample() -> None:
            while not over.wait(SAMPLE):
                seen.append(library.nvmlDeviceGetUtilizationRates(handle).gpu / 100)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.share = statistics.fmean(seen) if seen else None

    def told(self) -> str:
        """For a table."""
        return "–" if self.share is None else f"{self.share:.0%}"


def _device() -> tuple[Any, Any] | None:
    library = nvidia()
    return None if library is None else (library, library.nvmlDeviceGetHandleByIndex(0))


def agreement(asked: Asked) -> None:
    """Every installed model's golden set on the provider: the same decisions, and how far scores are off."""
    print(
        "| model | precision | golden pictures | same decisions | scores off by | allowed |\n|---|---|--:|---|--:|--:|"
    )
    for name, bundle in sorted(find_bundles(asked.models).items()):
        choice = replace(asked.choice(bundle), instances=1)
        (runtime,) = open_runtimes(bundle, choice)
        checked = golden.measure(bundle, runtime.infer)
        runtime.close()
        same = "yes" if not checked.differences else checked.differences[0]
        print(
            f"| {name} | {choice.precision} | {checked.pictures} | {same} | {checked.score_difference} | {checked.tolerance} |",
            flush=True,
        )


def alone(asked: Asked) -> float:
    """The model in a tight loop, by batch size; returns the most images a second."""
    bundle = find_bundles(asked.models)[asked.model]
    choice = asked.choice(bundle)
    began = time.perf_counter()
    runtimes = open_runtimes(bundle, choice)
    warm_up(bundle, choice, runtimes, 1)
    print(
        f"\n{asked.model} alone, {len(runtimes)} instances; open and warm after {time.perf_counter() - began:.1f} s\n"
    )
    print("| batch | first run, ms | images/s | ms a batch | device at work |\n|--:|--:|--:|--:|--:|")
    best, size = 0.0, 1
    while size <= bundle.contract.input.max_batch:
        busy = Busy()
        first = _first(bundle, runtimes[0], size)
        with busy.watched():
            rate = _rate(bundle, runtimes, size, asked.seconds / 3)
        each = 1000 * size * len(runtimes) / rate
        print(f"| {size} | {first:.0f} | {rate:.0f} | {each:.2f} | {busy.told()} |", flush=True)
        best, size = max(best, rate), size * 2
    for runtime in runtimes:
        runtime.close()
    return best


def _noise(bundle: Bundle, size: int) -> dict[str, Any]:
    wanted = bundle.contract.input
    values = np.random.default_rng(size).integers(0, 256, (size, *wanted.shape), np.uint8)
    return {wanted.name: values.astype(wanted.dtype)}


def _first(bundle: Bundle, runtime: ModelRuntime, size: int) -> float:
    """Milliseconds of the first batch of this size: what a request would meet that comes before any other did."""
    inputs = _noise(bundle, size)
    began = time.perf_counter()
    runtime.infer(inputs)
    return 1000 * (time.perf_counter() - began)


def _rate(bundle: Bundle, runtimes: Sequence[ModelRuntime], size: int, seconds: float) -> float:
    counts = [0] * len(runtimes)
    until = time.perf_counter() + seconds

    def work(at: int) -> None:
        inputs = _noise(bundle, size)
        while time.perf_counter() < until:
            runtimes[at].infer(inputs)
            counts[at] += 1

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(runtimes))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * size / (time.perf_counter() - began)


async def whole(asked: Asked, folder: Path, most: float) -> None:
    """Closed loop through all of it: uploads, queue, decoders, the device, results; each upload with a digest of its own."""
    (folder / "images").mkdir()
    for number, data in enumerate(load_images(asked.images)):
        (folder / "images" / f"{number:03d}.jpg").write_bytes(data)
    settings: Mapping[str, Any] = {
        "inference": {"providers": asked.providers, "max_queue": max(256, 2 * asked.clients)},
        "worker": {"replicas": asked.replicas, "concurrency": asked.concurrency},
    }
    plan = BenchPlan(model=asked.model, models_dir=asked.models, images=None)
    print(
        f"\nthe whole of it: {os.cpu_count()} cores, {asked.replicas} workers with {asked.concurrency} images in hand each, "
        f"{asked.generators} load generators on the same machine\n"
    )
    print(
        "| clients | images/s | of the model alone | p50, ms | p99, ms | images a batch | device at work | cores of Eyeline | "
        "cores of the load | refused | errors |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    async with running(plan, folder, settings) as system:
        clients = asked.generators
        while clients <= asked.clients:
            print(await _row(asked, system, folder / "images", clients, most), flush=True)
            clients *= 4


async def _row(asked: Asked, system: System, images: Path, clients: int, most: float) -> str:
    sent = LoadPlan(
        url=system.url, kind="answer", images=str(images), seconds=asked.seconds, clients=clients // asked.generators,
        pipeline=system.pipeline, warmup=WARMUP,
    )  # fmt: skip
    parts = [asyncio.create_task(load(sent)) for _ in range(asked.generators)]
    await asyncio.sleep(WARMUP + 1.0)  # the generators have started and warmed up
    before, cpu, began, busy = await _batches(system), system.cpu_seconds(), time.perf_counter(), Busy()
    with busy.watched():
        await asyncio.sleep(max(0.5, asked.seconds - 2.0))  # and are all still at it
    spent = (system.cpu_seconds() - cpu) / (time.perf_counter() - began)
    after = await _batches(system)
    seen = await asyncio.gather(*parts)
    latencies = [value for part in seen for value in part["latencies"]]
    rate = sum(part["rate"] for part in seen)
    mean = (after[0] - before[0]) / max(1.0, after[1] - before[1])
    others = sum(part["cpu_seconds"] / part["seconds"] for part in seen)
    p50, p99 = (1000 * (percentile(latencies, share) or 0.0) for share in (50, 99))
    return (
        f"| {clients} | {rate:.0f} | {rate / most:.0%} | {p50:.0f} | {p99:.0f} | {mean:.1f} | {busy.told()} | {spent:.1f} | "
        f"{others:.1f} | {sum(part['refused'] for part in seen)} | {sum(part['errors'] for part in seen)} |"
    )


async def _batches(system: System) -> tuple[float, float]:
    """(images, batches) so far."""
    async with aiohttp.ClientSession() as session, session.get(f"{system.inference}/metrics") as answer:
        sums = read(await answer.text()).sums.get("eyeline_batch_size", {}).values()
    return sum(total for total, _ in sums), sum(count for _, count in sums)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--model", default="parcel-finder")
    parser.add_argument("--provider", choices=("cpu", "cuda", "tensorrt"), default="cuda")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=256, help="the most at once")
    parser.add_argument("--generators", type=int, default=1, help="processes that send")
    parser.add_argument("--replicas", type=int, default=1, help="worker processes")
    parser.add_argument("--concurrency", type=int, default=64, help="images that each worker has in hand")
    parser.add_argument(
        "--images", type=Path, default=None, help="folder of JPEGs (default: frames of the bundled clips)"
    )
    told = parser.parse_args()
    asked = Asked(**{name.replace("models_dir", "models"): value for name, value in vars(told).items()})
    print(f"load before: {os.getloadavg()[0]:.1f}; {asked.provider}\n")
    agreement(asked)
    most = alone(asked)
    with TemporaryDirectory(prefix="eyeline-bench-") as folder:
        asyncio.run(whole(asked, Path(folder), most))


if __name__ == "__main__":
    main()
