"""A real gateway with its dashboard for tests of pages, in a thread of its own, over stores that hold what a test puts there."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from eyeline.app import gateway_service
from eyeline.core.clock import utcnow
from eyeline.core.ids import first_id, uuid7
from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import BlobRef, Detection, ImageInfo, Job, ModelRef, Result
from eyeline.gateway.comparing import Asked, Comparison, Comparisons, Side
from eyeline.gateway.export_jobs import ExportJob
from eyeline.inference.bundles import MANIFEST, bundled_folder
from eyeline.ops.audit.sealer import Sealer
from eyeline.stores.blobs import open_blobs
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertRow, DeliveryRow, NewJob, ResultQuery, ResultStore, RuleRow
from eyeline.stores.results.review import Doubt, NewVerdict, RecordKind, Said, VerdictRecord
from tests.system import TLS, free_port, until

T = TypeVar("T")

#: What a model file, a client or a person may have written: it must be shown as it stands, and do nothing.
HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</script>"
PARCEL = (640, 360)


@cache
def parcel() -> bytes:
    """A real picture that is bundled."""
    golden = bundled_folder() / "parcel-finder" / "golden"
    return min(golden.glob("*.jpg"), key=lambda path: path.name).read_bytes()


@cache
def parcel_finder() -> str:
    """The version of the bundled model, as results name it."""
    manifest = (bundled_folder() / "parcel-finder" / MANIFEST).read_bytes()
    return f"1.0.0+{hashlib.sha256(manifest).hexdigest()[:12]}"


@dataclass
class Site:
    """A running dashboard. Its stores are open a second time for the test, which puts results and alerts there."""

    settings: Settings
    results: ResultStore
    blobs: BlobStore
    loop: asyncio.AbstractEventLoop
    url: str
    _thread: threading.Thread | None = None
    _stop: asyncio.Event | None = None

    def run(self, work: Awaitable[T]) -> T:
        """Run something in the loop of the stores."""

        async def waited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self.loop).result(30)

    # ---- the gateway
    def start(self) -> None:
        """Serve, on the same port as before."""
        began = threading.Event()

        async def serve() -> None:
            self._stop = asyncio.Event()
            began.set()
            await gateway_service(self.settings).run(self._stop)

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        began.wait(10)
        with self.client() as client:
            until(lambda: client.get("/healthz").status_code == 200, 20, "the gateway answers")

    def stop(self) -> None:
        """Stop serving; the stores stay."""
        thread, stop = self._thread, self._stop
        if thread is None or stop is None:
            return
        loop = stop._loop  # type: ignore[attr-defined]
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive(), "the gateway did not stop"
        self._thread = None

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, verify=TLS)

    # ---- what it knows
    def result(self, camera: str | None = None, *, site: str | None = None, **changes: Any) -> Result:
        """Keep a picture and a result of it, as a worker would."""
        stands = next((each.site for each in self.settings.cameras if each.name == camera), "default")
        made = made_result(camera, site or stands, **changes)
        self.keep([made])
        return made

    def keep(
        self, made: Sequence[Result], data: bytes | None = None, doubts: Mapping[str, Doubt] | None = None
    ) -> None:
        self.run(self._keep(made, parcel() if data is None else data, doubts or {}))

    async def _keep(self, made: Sequence[Result], data: bytes, doubts: Mapping[str, Doubt]) -> None:
        for site in {each.site for each in made}:
            await self.blobs.put(site, data, hashlib.sha256(data).hexdigest())
        await self.results.keep_jobs([NewJob(job=_job(each), enqueued=True) for each in made])
        await self.results.save_many(made, doubts)

    def say(self, result: Result, kind: RecordKind, **words: Any) -> VerdictRecord:
        """Keep a person's verdict."""
        kept = self.run(self.results.add_verdict(NewVerdict(result_id=result.id, kind=kind, **words)))
        assert kept is not None
        return kept.record

    def alert(self, result: Result, **changes: Any) -> AlertRow:
        """Keep an alert that this result raised, with one delivery."""
        row = made_alert(result, **changes)
        told = DeliveryRow(
            id=uuid7(), alert_id=row.id, channel="log", payload=b"{}", captured_at=row.opened_at, next_at=row.opened_at
        )
        self.run(self.results.commit_alerts(state={}, alerts=[row], deliveries=[told]))
        return row


def made_result(camera: str | None, site: str, **changes: Any) -> Result:
    """A result of the bundled picture: one parcel, damaged."""
    data = parcel()
    now = changes.pop("at", None) or utcnow()
    values: dict[str, Any] = {
        "id": uuid7(),
        "status": "completed",
        "site": site,
        "camera": camera,
        "pipeline": "parcels",
        "captured_at": now,
        "received_at": now,
        "completed_at": now,
        "image": ImageInfo(hashlib.sha256(data).hexdigest(), *size_of(data), "jpeg", len(data)),
        "detections": [detection("carton", 0.93)],
    }
    return Result(**(values | changes))


def detection(label: str, score: float, box: tuple[float, float, float, float] = (40, 40, 200, 160)) -> Detection:
    return Detection(label, score, box, "find")


@cache
def size_of(data: bytes) -> tuple[int, int]:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return image.size


def made_alert(result: Result, **changes: Any) -> AlertRow:
    found = result.detections[0] if result.detections else None
    group = {"camera": result.camera}
    hit = {"label": found.label if found else None, "score": found.score if found else None, "step": "find"}
    values: dict[str, Any] = {
        "id": uuid7(),
        "rule": "damaged parcel",
        "cause": json.dumps(group),
        "site": result.site,
        "severity": "warning",
        "state": "open",
        "opened_at": result.captured_at,
        "last_at": result.captured_at,
        "count": 1,
        "result_id": result.id,
        "body": {"group": group, "hit": hit, "camera": result.camera, "pipeline": result.pipeline, "ref": result.ref},
    }
    return AlertRow(**(values | changes))


def _job(result: Result) -> Job:
    assert result.image is not None
    sha256 = result.image.sha256
    return Job(
        id=result.id,
        site=result.site,
        pipeline=result.pipeline,
        lane="live",
        blob=BlobRef(f"{result.site}/{sha256}", result.image.bytes, sha256),
        received_at=result.received_at,
        captured_at=result.captured_at,
        camera=result.camera,
        ref=result.ref,
        meta=result.meta,
    )


def settings_of(folder: Path, **tree: Any) -> Settings:
    """Settings with everything under `folder` and a port of its own."""
    base = {"data_dir": str(folder), "gateway": {"port": free_port()}}
    pipelines = [{"name": "parcels", "steps": [{"name": "find", "model": "parcel-finder"}]}]
    return load_settings(environ={}, overrides={"pipelines": pipelines} | base | tree)


def cameras(count: int, **more: Any) -> list[dict[str, Any]]:
    """So many, two at each site."""
    return [
        {"name": f"belt-{number:02}", "url": "file:///none", "site": ("north", "south")[number % 2]} | more
        for number in range(1, count + 1)
    ]


FILED = [{"name": "filed", "when": "label == 'carton' and score >= 0.8", "severity": "critical"}]
SITES = [{"name": "north", "timezone": "Europe/Berlin"}, {"name": "south", "timezone": "America/Chicago"}]


@contextmanager
def dashboard(settings: Settings) -> Iterator[Site]:
    """The stores in a loop of their own, and the gateway serving."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    site = Site(
        settings,
        open_results(settings.results.url),
        open_blobs(settings.blobs.url),
        loop,
        f"http://127.0.0.1:{settings.gateway.port}",
    )
    try:
        site.run(site.results.upgrade())
        site.start()
        yield site
    finally:
        site.stop()
        site.run(site.results.close())
        site.run(site.blobs.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def fill(site: Site, at: datetime | None = None) -> None:
    """What a line that runs looks like: pictures of every camera, a doubtful one, a hostile one, alerts of every kind."""
    now = at or utcnow()
    made = {}
    for number, camera in enumerate(site.settings.cameras):
        made[camera.name] = made_result(camera.name, camera.site, at=now - timedelta(milliseconds=10 * number))
    names = list(made)
    made[names[1]] = made_result(
        names[1], site.settings.cameras[1].site, at=now, detections=[detection("carton", 0.4)], ref="order 7"
    )
    made[names[2]] = made_result(
        names[2],
        site.settings.cameras[2].site,
        at=now,
        detections=[detection(HOSTILE[:100], 0.9), detection("bag", 0.8, (300, 60, 500, 200))],
        ref=HOSTILE,
        meta={HOSTILE: HOSTILE},
    )
    site.keep(list(made.values()))
    for name, when in ((HOSTILE, "label == 'carton'"), ("damaged parcel", "label == 'carton' and score >= 0.5")):
        row = RuleRow(name=name, version=1, at=now, by=HOSTILE, body={"name": name, "when": when})
        assert site.run(site.results.add_rule(row))
    site.alert(made[names[0]], severity="critical")
    site.alert(made[names[2]], rule=HOSTILE)
    site.alert(made[names[3]], severity="info", rule="seen", state="acknowledged")
    fill_review(site, now)
    fill_exports(site, now)


#: What the pages about results show: one that was corrected, and one thing that several cameras saw.
CORRECTED, ITEM = "0198f000-0000-7000-8000-00000000c0de", "PAL-7"


def fill_exports(site: Site, now: datetime) -> None:
    """Two exports that were asked for: one that is done, one that is not."""
    folder = site.settings.data_dir / "exports"
    folder.mkdir(exist_ok=True)
    for number, (state, error) in enumerate((("done", None), ("failed", HOSTILE)), 1):
        job = ExportJob(
            id=first_id(now - timedelta(minutes=number)),
            by="",
            sites=None,
            asked={"format": "csv", "q": f"label:{HOSTILE}"},
            created_at=now - timedelta(minutes=number),
            expires_at=now + timedelta(hours=23),
            state=state,  # type: ignore[arg-type]
            results=12_345,
            error=error,
        )
        (folder / f"{job.id}.json").write_bytes(msgspec.json.encode(job))


#: Two versions on two pictures: of one they say the same, of the other one sees more.
COMPARED = "0198f000-0000-7000-8000-0000000000ab"


def compare(site: Site) -> None:
    """As if both versions had been asked about the two newest pictures."""
    records, _ = site.run(site.results.find(ResultQuery(status="completed", limit=2)))
    asked = []
    for number, record in enumerate(records):
        sides = []
        for version, score in (("1.0.0", 0.93), ("2.0.0", 0.81)):
            found = [detection("carton", score)]
            if number and version == "2.0.0":
                found.append(detection(HOSTILE[:100], 0.7, (300, 60, 500, 200)))
            models = [ModelRef("brightness", f"{version}+0123456789ab", "onnxruntime", "fp32")]
            more: dict[str, Any] = {"aside": True, "replay_of": record.id, "ref": record.id, "models": models}
            sides.append(made_result(None, record.site, detections=found, **more))
        site.keep(sides)
        asked.append(Asked(record.id, sides[0].id, sides[1].id))
    new = Comparison(
        id=COMPARED,
        at=utcnow(),
        by="ana",
        site=records[0].site,
        a=Side("parcels"),
        b=Side("parcels", "brightness@2.0.0"),
        asked=asked,
    )
    site.run(Comparisons(site.results).keep(new))


def fill_review(site: Site, now: datetime) -> None:
    """Doubtful pictures that wait, a hostile one among them; decided ones; a thing on its way."""
    cameras = site.settings.cameras
    waiting = [
        made_result(
            cameras[number % len(cameras)].name,
            cameras[number % len(cameras)].site,
            at=now - timedelta(minutes=number),
            detections=[detection("carton", 0.45), detection(label, 0.3, (300, 60, 500, 200))],
            models=[ModelRef("parcel-finder", "1.4.2+0123456789ab", "onnxruntime", "fp32")],
            ref=label,
        )
        for number, label in enumerate(["bag", HOSTILE[:100], "carton", "bag", "carton"], 5)
    ]
    doubts = [Doubt(0.7, "low score"), Doubt(1.0, "new label"), Doubt(0.9, "steps disagree"), Doubt(0.2, "low score")]
    site.keep(waiting, doubts={result.id: doubt for result, doubt in zip(waiting, doubts, strict=False)})
    seen = [
        made_result(
            cameras[number].name,
            cameras[number].site,
            at=now - timedelta(hours=3 - number),
            ref=ITEM,
            detections=[detection("damaged" if number else "carton", 0.93)],
            **({"id": CORRECTED, "meta": {"line": HOSTILE}} if number == 1 else {}),
            timings={"fetch": 0.004, "decode": 0.011, "preprocess": 0.002, "infer": 0.031, "postprocess": 0.001},
            models=[ModelRef("parcel-finder", parcel_finder(), "onnxruntime", "fp32")],
        )
        for number in range(3)
    ]
    site.keep(seen)
    drawn = Said([detection("carton", 0.93), Detection("damaged", 1.0, (300, 60, 500, 200), "human")])
    site.say(seen[1], "corrected", by="ana", after=drawn, comment=HOSTILE)
    site.say(seen[0], "rejected", by="ben")
    site.run(Sealer(site.results).seal_all())
