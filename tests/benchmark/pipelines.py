"""What each kind of step costs, end to end: `python -m tests.benchmark.pipelines --seconds 15`.

Frames of the bundled belts through a whole `eyeline up`: the finder alone, then with a classifier on its boxes, with barcodes
read, and with tracking behind the results. Told for each: images a second, CPU milliseconds an image over all processes, and,
where it tracks, how many events the item engine was behind when the last answer had come.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from eyeline.items.engine import STATE, Kept
from eyeline.ops.bench.images import load_images
from eyeline.ops.bench.load import LoadPlan
from eyeline.ops.bench.run import BenchPlan, load, running
from eyeline.stores.results import open_results

FIND = {"name": "find", "model": "parcel-finder"}
DAMAGE = {"name": "damage", "model": "parcel-damage", "on": "find"}
CODES = {"name": "codes", "kind": "barcodes", "on": "find", "formats": ["QRCode", "Code128"]}
TRACK = {"name": "follow", "kind": "track", "on": "find"}
PIPELINES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "finder": [FIND],
    "finder, classifier": [FIND, DAMAGE],
    "finder, classifier, barcodes": [FIND, DAMAGE, CODES],
    "finder, classifier, barcodes, tracking": [FIND, DAMAGE, CODES, TRACK],
}
WARMUP = 2.0


@dataclass(frozen=True)
class Measured:
    """What one pipeline did."""

    name: str
    rate: float
    cpu_ms: float
    images: int
    errors: int
    behind: int | None

    def told(self) -> str:
        """A row of the table."""
        behind = "" if self.behind is None else str(self.behind)
        return f"| {self.name} | {self.rate:.1f} | {self.cpu_ms:.1f} | {behind} |"


async def measure(name: str, seconds: float, clients: int, folder: Path) -> Measured:
    """Closed loop, each upload with a digest of its own."""
    (folder / "images").mkdir()
    for number, data in enumerate(load_images(None)):
        (folder / "images" / f"{number:03d}.jpg").write_bytes(data)
    camera = {"name": "belt", "url": "synthetic://320x240", "only_triggered": True}  # sends nothing by itself
    settings = {"pipelines": [{"name": "bench", "steps": PIPELINES[name]}], "cameras": [camera]}
    plan = BenchPlan(model="parcel-finder", models_dir=folder, images=None)
    async with running(plan, folder, settings) as system:
        before = system.cpu_seconds()
        sent = LoadPlan(
            url=system.url, kind="answer", images=str(folder / "images"), seconds=seconds, clients=clients,
            pipeline=system.pipeline, camera="belt", warmup=WARMUP,
        )  # fmt: skip
        seen = await load(sent)
        spent = (system.cpu_seconds() - before) * seen["seconds"] / (seen["seconds"] + WARMUP)
        behind = await _behind(folder / "data") if TRACK in PIPELINES[name] else None
    count = len(seen["ids"])
    return Measured(name, seen["rate_alone"], 1000 * spent / max(1, count), count, seen["errors"], behind)


async def _behind(data: Path) -> int:
    """Events that the item engine has still to look at."""
    results = open_results(f"sqlite:///{data}/results.db")
    try:
        kept = await results.load_state(STATE)
        cursor = 0 if kept is None else msgspec.json.decode(kept, type=Kept).cursor
        return await results.last_seq() - cursor
    finally:
        await results.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=16)
    told = parser.parse_args()
    print(
        f"load before: {os.getloadavg()[0]:.1f}\n\n| | images/s | CPU ms an image | events behind |\n|---|--:|--:|--:|"
    )
    for name in PIPELINES:
        with TemporaryDirectory(prefix="eyeline-bench-") as folder:
            print(asyncio.run(measure(name, told.seconds, told.clients, Path(folder))).told(), flush=True)


if __name__ == "__main__":
    main()
