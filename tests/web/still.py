"""Two dashboards in which nothing moves: the clock stands, ids are counted, what a machine says of itself is made up.

A process of its own, because its clock must be nobody else's: it says where the two serve, and serves until its standard
input ends, be it because its parent died.
"""

import asyncio
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from eyeline.core.clock import isoformat
from eyeline.core.figures import Sums, added
from eyeline.core.ids import first_id
from eyeline.core.settings import mask
from eyeline.gateway.recorder import KEPT, WHOLE
from eyeline.inference.bundles import MANIFEST
from eyeline.stores.results.base import ENGINE_CHECKED, ReplicaRow, SeriesRow
from tests.dashboards import PARCEL, SITES, Site, cameras, dashboard, fill, settings_of
from tests.fake_models import write_brightness_versions

NOW = datetime(2026, 3, 4, 9, 41, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Still:
    """Where they serve: the one that is full, and the one as it is after the first start."""

    full: str
    first: str


@contextmanager
def standing_still(folder: Path) -> Iterator[Still]:
    """Both, for so long."""
    command = [sys.executable, "-m", "tests.web.still", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = next((line for line in process.stdout if line.startswith("{")), None)
            assert told is not None, f"{' '.join(command)} ended before it served"
            yield Still(**json.loads(told))
        finally:
            process.terminate()  # nothing of it is kept


class Standing(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW.astimezone(tz)


@contextmanager
def nothing_moves(folder: Path) -> Iterator[None]:
    """Whatever differs between two runs is the same in this process."""
    ids = (f"{first_id(NOW)[:-12]}{number:012x}" for number in itertools.count(1))
    disk = shutil._ntuple_diskusage(250 * 10**9, 70 * 10**9, 180 * 10**9)
    same = {
        "eyeline.core.clock.datetime": Standing,
        "time.time": NOW.timestamp,
        "os.urandom": bytes,  # the salts of the audit
        "tests.dashboards.uuid7": lambda: next(ids),
        "eyeline.stores.results.verdicts.uuid7": lambda: next(ids),
        "eyeline.stores.results.audit.uuid7": lambda: next(ids),
        "tests.dashboards.parcel": drawn,
        "shutil.disk_usage": lambda _: disk,
        "eyeline.dashboard.pages.system.mask": lambda url: mask(url).replace(str(folder), "/srv"),
        # what they would tell is of this machine
        "eyeline.gateway.recorder.Recorder.run": lambda _: asyncio.Event().wait(),
        "eyeline.ops.levels.LevelService._measure": lambda _: asyncio.sleep(0),
        "eyeline.ops.presence.Presence.row": lambda _: process("gateway", 4711),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, stands in same.items():
            patch.setattr(name, stands)
        yield


@cache
def drawn() -> bytes:
    """Two parcels on a belt, in few colours: a photograph would make the kept pictures ten times as large."""
    picture, out = Image.new("RGB", PARCEL, "#5a5f66"), io.BytesIO()
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 300, *PARCEL), fill="#2b2e33")
    pen.rectangle((40, 40, 200, 160), fill="#b08a5a")
    pen.rectangle((300, 60, 500, 200), fill="#8c6b42")
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def process(role: str, pid: int) -> ReplicaRow:
    """A process as it says of itself."""
    return ReplicaRow(
        id=f"{role}@line-1:{pid}",
        role=role,
        host="line-1",
        pid=pid,
        version="1.0.0",
        started_at=NOW - timedelta(days=2, hours=3),
        seen_at=NOW,
        body={"cores": 0.31, "bytes": 187_000_000},
    )


def add_figures(site: Site) -> None:
    """An hour of a line whose load swells, with a queue that grows for ten minutes and gets over it."""
    found: dict[tuple[int, int, str], Sums] = {}
    for ago in range(60):
        images, slow = 200.0 + 3 * ago, 40.0 if 15 <= ago < 25 else 1.0
        line = {"images": images, "failed": float(ago % 7 == 0)}
        line |= {"end_to_end|0.1": images - slow, "end_to_end|1": slow, "queue|0.03": images - slow, "queue|1": slow}
        for stage, seconds in (("decode", 0.011), ("infer", 0.031), ("postprocess", 0.001)):
            line |= {f"stage.{stage}+": seconds * images, f"stage.{stage}#": images}
        whole = {"api|0.03": images, "api|0.3": slow, "depth": slow * 12, "looks": 12.0, "busy": 8.0, "busy#": 12.0}
        at = NOW.timestamp() - 60 * ago
        for step, (name, sums) in itertools.product(KEPT, (("north", line), (WHOLE, whole))):
            key = (step, int(at // step * step), name)
            found[key] = added([found.get(key, {}), sums])
    rows = [SeriesRow(step=step, start=start, site=name, sums=sums) for (step, start, name), sums in found.items()]
    site.run(site.results.add_sums(rows))


def add_reports(site: Site) -> None:
    """What cameras, a worker and the alert engine say of themselves; one camera is in the dark, two are away."""
    looked = isoformat(NOW - timedelta(seconds=2)).encode()
    site.run(site.results.commit_alerts(state={ENGINE_CHECKED: looked}, alerts=[], deliveries=[]))
    site.run(site.results.report_replica(process("worker", 4712)))
    for number, camera in enumerate(site.settings.cameras[:4]):
        health = {"conditions": {"dark": "for 3 min"}} if number == 1 else {}
        told = {"state": "live", "captured": 1200 + number, "dropped": {"late": number}, "health": health}
        site.run(site.results.report_camera(camera.name, camera.site, told))


def main(folder: Path) -> None:
    """Serve both."""
    away = {"inference": {"url": "http://127.0.0.1:9", "models": str(folder / "models")}}  # nobody serves there
    with (
        nothing_moves(folder),
        dashboard(settings_of(folder / "full", sites=SITES, cameras=cameras(6), **away)) as full,
        dashboard(settings_of(folder / "first", **away)) as first,
    ):
        for file in write_brightness_versions(folder / "models").rglob(MANIFEST):
            os.utime(file, (NOW.timestamp(), NOW.timestamp()))  # this says when a version was made
        fill(full, NOW)
        add_figures(full)
        add_reports(full)
        print(json.dumps({"full": full.url, "first": first.url}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
