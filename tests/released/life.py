"""A day in the life of a release that is not this one: its gateway's, worker's, engines' and sealer's writes and reads.

Run with a frozen release before everything else on the path, on a database that the present release has upgraded. The words
here are the frozen release's: what it did not know cannot be said.
"""

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import eyeline
from eyeline.alerts.engine import AlertEngine
from eyeline.alerts.rules import compile_rule
from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.core.settings import PipelineSettings, RuleSettings
from eyeline.core.types import BlobRef, Classification, Code, Detection, Job, Result
from eyeline.items.engine import ItemEngine
from eyeline.ops.audit import trail
from eyeline.ops.audit.sealer import Sealer
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action, CountQuery, ItemQuery, KeyRow, NewJob, ResultQuery, ResultStore

STEPS = [{"name": "find", "model": "finder"}, {"name": "follow", "kind": "track", "on": "find"}]
BELT = PipelineSettings.model_validate({"name": "belt", "steps": STEPS})
FRAMES = 10


async def open_alerts(store: Any) -> list[Any]:
    """By the name that this has in either release."""
    if hasattr(store, "list_alerts"):
        found, _ = await store.list_alerts(sites=["north"], state="open", cursor=None, limit=100)
    else:
        from eyeline.stores.results.base import AlertQuery

        found, _ = await store.find_alerts(AlertQuery(sites=["north"], states=["open"]))
    return list(found)


def jobs(camera: str) -> list[Job]:
    """A parcel's way past a camera."""
    begun = utcnow() - timedelta(seconds=FRAMES)
    made = []
    for number in range(FRAMES):
        sha, at = f"{number:064x}", begun + timedelta(seconds=number / 5)
        blob = BlobRef(f"north/{sha}", 1000, sha)
        made.append(
            Job(
                id=uuid7(), site="north", pipeline="belt", lane="live", blob=blob, camera=camera, ref=camera,
                captured_at=at, received_at=at,
            )
        )  # fmt: skip
    return made


def result_of(job: Job, number: int) -> Result:
    """One box, a label, a code; the last frame failed."""
    fields: dict[str, Any] = {name: getattr(job, name) for name in ("id", "site", "pipeline", "camera", "ref")}
    fields |= {"captured_at": job.captured_at, "received_at": job.received_at, "completed_at": utcnow()}
    if number == FRAMES - 1:
        return Result(status="failed", reason="bad_image: cut off", **fields)
    return Result(
        status="completed",
        detections=[Detection("parcel", 0.9, (number * 40.0, 0.0, number * 40.0 + 100, 100.0), "find")],
        classifications=[Classification("damaged", 0.95, "damage")],
        codes=[Code("A1", "QRCode", (0.0, 0.0, 1.0, 1.0))],
        **fields,
    )


async def gateway_and_worker(store: ResultStore, camera: str) -> list[str]:
    """Keep, enqueue, charge, record, look up."""
    mine = jobs(camera)
    news = [NewJob(job=job, principal="p", idempotency_key=f"{camera}-{n}") for n, job in enumerate(mine)]
    await store.keep_jobs(news)
    assert (await store.keep_jobs(news[:1]))[0].existing
    await store.mark_enqueued([job.id for job in mine[1:]])
    assert [job.id for job in await store.unqueued(-60.0, 100)] == [mine[0].id]
    assert await store.charge(mine[0].id) == 1
    assert set(await store.find_jobs([job.id for job in mine])) == {job.id for job in mine}
    assert (await store.unfinished()).by_camera[camera] == FRAMES
    assert await store.named_blobs([mine[0].blob.url, "north/none"]) == {mine[0].blob.url}
    results = [result_of(job, number) for number, job in enumerate(mine)]
    assert await store.save_many(results) == {job.id for job in mine}
    assert await store.save_many(results) == set()
    assert (await store.get_job(mine[0].id)).status == "completed"  # type: ignore[union-attr]
    for query, count in (
        (ResultQuery(camera=camera), FRAMES),
        (ResultQuery(label="damaged", min_score=0.9, camera=camera), FRAMES - 1),
        (ResultQuery(code="A1", camera=camera), FRAMES - 1),
        (ResultQuery(ref=camera, site="north", sites=["north"]), FRAMES),
        (ResultQuery(status="failed", camera=camera), 1),
        (ResultQuery(min_score=0.5, camera=camera, since=datetime(2020, 1, 1, tzinfo=UTC)), FRAMES - 1),
    ):
        assert len((await store.find(query))[0]) == count, query
    assert set(await store.get_many([job.id for job in mine])) == {job.id for job in mine}
    assert (await store.camera_counts())[camera]["completed"] == FRAMES - 1
    return [job.id for job in mine]


async def alert_engine(store: ResultStore) -> AlertEngine:
    """It begins before the results come: a release that knows the rule by another meaning counts from its start."""
    rule = RuleSettings(name="r", when="label == 'damaged'", by=["camera"], notify=["ops"])
    engine = AlertEngine([compile_rule(rule)], store)
    await engine.load()
    return engine


async def engines(store: ResultStore, alerts: AlertEngine, camera: str) -> None:
    """Alerts and items go on behind the event log, from where whoever was there before left them."""
    while (await alerts.step())[0]:
        pass
    await alerts.keep()
    items = ItemEngine([BELT], store, reorder=0.0)
    await items.load()
    while await items.step():
        pass
    await items.keep()
    opened = await open_alerts(store)
    assert camera in {alert.body["camera"] for alert in opened}
    for row in await store.due_deliveries(utcnow(), 100):
        await store.update_delivery(replace(row, state="delivered", attempts=row.attempts + 1, delivered_at=utcnow()))
    assert {row.state for alert in opened for row in await store.list_deliveries(alert.id)} == {"delivered"}
    found, _ = await store.find_items(ItemQuery(camera=camera, label="parcel"))
    assert len(await store.sightings([item.id for item in found])) == FRAMES - 1
    counted = CountQuery(
        by=("camera",), bucket=3600, since=datetime(2020, 1, 1, tzinfo=UTC), until=datetime(2100, 1, 1, tzinfo=UTC)
    )
    assert sum(count.count for count in await store.count_items(counted) if count.by["camera"] == camera) == 1
    assert (
        sum(count.count for count in await store.count_results(counted) if count.by["camera"] == camera) == FRAMES - 1
    )


async def the_rest(store: ResultStore, camera: str) -> None:
    """People, cameras, keys, the audit."""
    await store.record_action(Action(what="note", by="mia", body={"text": camera}))
    await store.report_camera(camera, "north", {"captured": FRAMES})
    assert (await store.cameras())[camera]["captured"] == FRAMES
    await store.put_key(KeyRow(name=camera, sha256="0" * 64, role="viewer", sites=("north",), created_at=utcnow()))
    assert camera in {key.name for key in await store.keys()}
    await store.add_event("system", "north", {"what": "note"})
    assert len(await store.tail(await store.last_seq() - 1, 10)) == 1
    await Sealer(store, lease=0.0).seal_all()
    assert await store.unaudited(10) == []
    assert (await trail.verify(store)).good
    one = (await store.find(ResultQuery(camera=camera, limit=1)))[0][0].id
    assert await store.erase([one], by="mia", reason="asked for") == {one}
    await Sealer(store, lease=0.0).seal_all()
    assert (await trail.verify(store)).good


async def life(url: str, camera: str) -> None:
    """All of it, on a schema that this release does not know."""
    store = open_results(url)
    try:
        alerts = await alert_engine(store)
        ids = await gateway_and_worker(store, camera)
        await engines(store, alerts, camera)
        await the_rest(store, camera)
        print(eyeline.__file__, *ids)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(life(sys.argv[1], sys.argv[2]))
