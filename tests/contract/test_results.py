"""The promises of every result store: what is kept stays kept, once, and can be found again."""

import asyncio
import itertools
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from eyeline.core.errors import StoreError
from eyeline.core.ids import uuid7
from eyeline.core.types import (
    BlobRef,
    Classification,
    Code,
    Detection,
    ImageInfo,
    Job,
    Lane,
    Result,
)
from eyeline.stores.results import open_results
from eyeline.stores.results.base import (
    AlertQuery,
    AlertRow,
    CountQuery,
    DeliveryRow,
    ItemQuery,
    ItemRow,
    KeyRow,
    NewJob,
    ResultQuery,
    ResultStore,
    SightingRow,
)

NOON = datetime(2026, 3, 4, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
def url(results_url: str) -> str:
    return results_url


@pytest.fixture
async def store(url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(url)
    await opened.upgrade()
    yield opened
    await opened.close()


def make_job(number: int = 0, *, camera: str | None = None, lane: Lane = "live", received: datetime = NOON) -> Job:
    sha = f"{number:064x}"
    return Job(
        id=uuid7(),
        site="north",
        pipeline="parcels",
        lane=lane,
        blob=BlobRef(f"north/{sha}", 1000 + number, sha),
        received_at=received,
        captured_at=received - timedelta(seconds=1),
        camera=camera,
        meta={"pallet": "7"},
    )


def make_result(job: Job, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "id": job.id,
        "status": "completed",
        "site": job.site,
        "pipeline": job.pipeline,
        "captured_at": job.captured_at,
        "received_at": job.received_at,
        "completed_at": job.received_at + timedelta(seconds=1),
        "camera": job.camera,
        "image": ImageInfo(sha256=job.blob.sha256, width=640, height=480, format="jpeg", bytes=1000),
    }
    return Result(**(values | changes))


async def kept(store: ResultStore, jobs: Sequence[Job]) -> None:
    await store.keep_jobs([NewJob(job=job) for job in jobs])


# jobs


async def test_a_kept_job_comes_back_whole(store: ResultStore) -> None:
    job = make_job(1, camera="belt-1")
    answer = await store.keep_jobs([NewJob(job=job, principal="key-1", body_digest="d1")])
    found = await store.get_job(job.id)
    assert answer[0].job == job
    assert not answer[0].existing
    assert found is not None
    assert (found.job, found.status, found.attempts, found.enqueued) == (job, "queued", 0, False)
    assert found.body_digest == "d1"


async def test_the_same_id_kept_again_is_told_as_existing(store: ResultStore) -> None:
    job = make_job()
    await kept(store, [job])
    again = await store.keep_jobs([NewJob(job=job), NewJob(job=make_job(2))])
    assert [answer.existing for answer in again] == [True, False]


async def test_an_idempotency_key_gives_the_first_job_to_its_owner_alone(store: ResultStore) -> None:
    first, second, other = make_job(1), make_job(2), make_job(3)
    new = NewJob(job=first, principal="a", idempotency_key="k", body_digest="d1")
    await store.keep_jobs([new])
    again = await store.keep_jobs([replace(new, job=second, body_digest="d2"), replace(new, job=other, principal="b")])
    assert (again[0].job.id, again[0].existing, again[0].body_digest) == (first.id, True, "d1")
    assert (again[1].job.id, again[1].existing) == (other.id, False)
    assert await store.get_job(second.id) is None


async def test_a_hundred_at_once_with_one_key_make_one_job(store: ResultStore) -> None:
    async def keep(number: int) -> str:
        new = NewJob(job=make_job(number), principal="a", idempotency_key="k", body_digest="d")
        return (await store.keep_jobs([new]))[0].job.id

    ids = await asyncio.gather(*(keep(number) for number in range(100)))
    assert len(set(ids)) == 1
    assert (await store.unfinished()).count == 1


async def test_the_relay_sees_only_old_unmarked_unfinished_jobs(store: ResultStore) -> None:
    marked, unmarked, done = make_job(1), make_job(2), make_job(3)
    await kept(store, [marked, unmarked, done])
    await store.mark_enqueued([marked.id])
    await store.mark_enqueued([marked.id, uuid7()])
    await store.save_many([make_result(done)])
    assert await store.unqueued(-1.0, 10) == [unmarked]
    assert await store.unqueued(3600.0, 10) == []
    found = await store.get_job(marked.id)
    assert found is not None
    assert found.enqueued


async def test_after_a_lost_queue_all_unfinished_jobs_are_for_the_relay_again(store: ResultStore) -> None:
    waiting, done = make_job(1), make_job(2)
    await kept(store, [waiting, done])
    await store.mark_enqueued([waiting.id, done.id])
    await store.save_many([make_result(done)])
    assert await store.forget_enqueued() == 1
    assert await store.unqueued(-1.0, 10) == [waiting]


async def test_what_was_enqueued_long_ago_and_has_no_result_is_found_page_by_page(store: ResultStore) -> None:
    jobs = sorted((make_job(number) for number in range(5)), key=lambda job: job.id)
    await kept(store, jobs)
    await store.mark_enqueued([job.id for job in jobs[1:]])
    await store.save_many([make_result(jobs[2])])
    assert await store.long_queued(-1.0, "", 2) == [jobs[1], jobs[3]]
    assert await store.long_queued(-1.0, jobs[3].id, 2) == [jobs[4]]
    assert await store.long_queued(3600.0, "", 2) == []


async def test_a_window_of_time_finds_all_that_was_captured_in_it_however_late_it_came(store: ResultStore) -> None:
    now = datetime.now(UTC)
    hours = (
        -90 * 24,
        -49,
        -25,
        -2,
        -1.0001,
        -0.9999,
        -0.5,
        0,
        0.5,
        23.9,
        24.1,
        49,
    )  # of the capture, as ids are made now
    made = [
        make_result(
            make_job(number),
            captured_at=now + timedelta(hours=offset),
            camera=f"belt-{number % 2}",
            classifications=[Classification("odd", 0.5, "kind")],
        )
        for number, offset in enumerate(hours)
    ]
    await store.save_many(made)
    edges = [None, *(now + timedelta(hours=offset) for offset in (-49, -1, 0.1, 24))]
    for since, until in itertools.product(edges, edges):
        for label, camera in ((None, None), ("odd", "belt-1"), ("dent", None)):
            query = ResultQuery(since=since, until=until, camera=camera, label=label, limit=3)
            found: list[str] = []
            while True:
                page, cursor = await store.find(replace(query, cursor=found[-1] if found else None))
                found += [result.id for result in page]
                if cursor is None:
                    break
            fits = [
                result.id
                for result in sorted(made, key=lambda result: result.id, reverse=True)
                if (since is None or result.captured_at >= since)
                and (until is None or result.captured_at < until)
                and camera in {None, result.camera}
                and label != "dent"
            ]
            assert found == fits, (since, until, camera, label)


async def test_attempts_are_counted_on_the_job(store: ResultStore) -> None:
    job = make_job()
    await kept(store, [job])
    assert [await store.charge(job.id) for _ in range(3)] == [1, 2, 3]
    found = await store.find_jobs([job.id, uuid7()])
    assert {ident: row.attempts for ident, row in found.items()} == {job.id: 3}


async def test_charging_a_job_that_is_not_there_is_an_error_that_will_not_pass(store: ResultStore) -> None:
    with pytest.raises(StoreError, match="no job") as caught:
        await store.charge(uuid7())
    assert not caught.value.transient


async def test_one_bad_write_does_not_fail_those_committed_with_it(store: ResultStore) -> None:
    jobs = [make_job(number) for number in range(8)]
    answers = await asyncio.gather(
        *(store.keep_jobs([NewJob(job=job)]) for job in jobs),
        store.charge("nobody"),
        *(store.save_many([make_result(job)]) for job in jobs),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if isinstance(answer, BaseException)] == [StoreError]
    assert len(await store.get_many([job.id for job in jobs])) == 8


async def test_unfinished_counts_by_lane_and_camera_and_knows_the_oldest(store: ResultStore) -> None:
    assert (await store.unfinished()).oldest is None
    old = make_job(1, camera="belt-1", received=NOON - timedelta(minutes=5))
    jobs = [old, make_job(2, camera="belt-1"), make_job(3, lane="bulk"), make_job(4)]
    await kept(store, jobs)
    await store.save_many([make_result(jobs[3], status="failed", reason="bad_image: cut")])
    found = await store.unfinished()
    assert (found.count, dict(found.by_lane)) == (3, {"live": 2, "bulk": 1})
    assert (found.oldest, dict(found.by_camera)) == (old.received_at, {"belt-1": 2})


async def test_blobs_that_a_job_names_are_told_apart_from_orphans(store: ResultStore) -> None:
    finished, waiting, never = make_job(1), make_job(2), make_job(3)
    await kept(store, [finished, waiting])
    await store.save_many([make_result(finished)])
    urls = [job.blob.url for job in (finished, waiting, never)]
    assert await store.named_blobs([*urls, f"south/{finished.blob.sha256}"]) == set(urls[:2])


# results


async def test_the_first_final_result_wins(store: ResultStore) -> None:
    job = make_job()
    await kept(store, [job])
    first = make_result(job, status="failed", reason="bad_image: cut")
    assert await store.save_many([first]) == {job.id}
    assert await store.save_many([make_result(job)]) == set()
    row = await store.get_job(job.id)
    assert await store.get(job.id) == first
    assert row is not None
    assert row.status == "failed"


async def test_the_same_result_twice_in_one_call_is_one_result(store: ResultStore) -> None:
    job = make_job()
    result = make_result(job, detections=[Detection("box", 0.9, (0, 0, 1, 1), "find")])
    assert await store.save_many([result, result]) == {job.id}
    assert await store.last_seq() == 1


async def test_a_result_comes_back_with_every_field(store: ResultStore) -> None:
    job = make_job(camera="belt-1")
    result = make_result(
        job,
        ref="order 7 ü",
        meta={"a": "b"},
        detections=[Detection("box", 0.5, (0.25, 1.5, 2, 3), "find", {"damage": {"label": "dent", "score": 0.7}})],
        classifications=[Classification("open", 0.75, "door")],
        codes=[Code("4006381333931", "EAN13", (0, 0, 1, 1))],
        environment="e1",
        timings={"infer": 0.0123},
        duplicate_of=uuid7(),
    )
    await store.save_many([result])
    assert await store.get(job.id) == result
    assert await store.get(uuid7()) is None


async def saved(store: ResultStore, count: int, **changes: Any) -> list[Result]:
    results = [make_result(make_job(number), **changes) for number in range(count)]
    await store.save_many(results)
    return results


async def test_pages_run_from_the_newest_to_the_oldest_without_gap_or_repeat(store: ResultStore) -> None:
    results = await saved(store, 25)
    pages: list[list[str]] = []
    cursor = None
    while True:
        page, cursor = await store.find(ResultQuery(cursor=cursor, limit=10))
        pages.append([result.id for result in page])
        if cursor is None:
            break
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [ident for page in pages for ident in page] == [result.id for result in reversed(results)]


async def test_each_filter_finds_its_own(store: ResultStore) -> None:
    dent = Detection("parcel", 0.9, (0, 0, 9, 9), "find", {"damage": {"label": "dent", "score": 0.6}})
    chosen = make_result(
        make_job(camera="belt-1"),
        ref="order-7",
        detections=[dent, Detection("parcel", 0.4, (0, 0, 1, 1), "find")],
        codes=[Code("ABC", "Code128", (0, 0, 1, 1))],
    )
    weak = make_result(make_job(), site="south", detections=[Detection("parcel", 0.3, (0, 0, 1, 1), "find")])
    late = make_result(make_job(received=NOON + timedelta(hours=1)), status="failed", reason="x: y")
    await store.save_many([chosen, weak, late])

    async def found(**query: Any) -> list[str]:
        return [result.id for result in (await store.find(ResultQuery(**query)))[0]]

    assert await found(camera="belt-1") == await found(ref="order-7") == await found(code="ABC") == [chosen.id]
    assert await found(label="parcel") == [weak.id, chosen.id]
    assert await found(label="parcel", min_score=0.5) == await found(min_score=0.9) == [chosen.id]
    assert await found(label="dent", min_score=0.6) == await found(label="parcel", code="ABC") == [chosen.id]
    assert await found(label="dent", min_score=0.7) == await found(camera="belt-9") == []
    assert await found(status="failed") == await found(since=NOON) == [late.id]
    assert await found(until=NOON) == await found(pipeline="parcels", until=NOON) == [weak.id, chosen.id]
    assert await found(site="south") == await found(sites=["south", "west"]) == [weak.id]
    assert await found(sites=[]) == []
    assert await found(label="parcel", cursor=weak.id) == [chosen.id]


async def test_what_was_answered_aside_is_found_and_counted_nowhere(store: ResultStore) -> None:
    record, asked = make_job(1, camera="belt-1"), replace_struct(make_job(1, camera="belt-1"), aside="")
    await store.keep_jobs([NewJob(job=record), NewJob(job=asked)])
    first = make_result(record)
    aside = make_result(asked, aside=True, replay_of=record.id, ref=record.id)
    assert (await store.camera_counts())["belt-1"]["in_flight"] == 1
    assert await store.save_many([first, aside]) == {record.id, asked.id}
    kept = await store.get_job(asked.id)
    assert kept is not None
    assert kept.status == "completed"
    assert [one.id for one in (await store.find(ResultQuery(ref=record.id)))[0]] == [asked.id]
    assert [one.id for one in (await store.find(ResultQuery(status="completed")))[0]] == [record.id]
    assert (await store.camera_counts())["belt-1"]["completed"] == 1
    assert [one.id for one in (await store.latest()).values()] == [record.id]
    day = CountQuery(by=(), bucket=86_400, since=NOON - timedelta(days=1), until=NOON + timedelta(days=1))
    assert [one.count for one in await store.count_results(day)] == [1]
    events = await store.tail(0, 10)  # what rules, items and live pages go by
    assert [event.body["id"] for event in events if event.kind == "result"] == [record.id]
    assert [event.body["id"] for event in events if event.body.get("type") == "aside"] == [asked.id]
    audited = {each.id for each in await store.unsealed(10)}
    assert audited >= {record.id, asked.id}


async def test_camera_counts_close(store: ResultStore) -> None:
    jobs = [make_job(number, camera="belt-1") for number in range(5)] + [make_job(9, camera="belt-2")]
    await kept(store, jobs)
    await store.save_many([make_result(jobs[0]), make_result(jobs[1], duplicate_of=jobs[0].id)])
    await store.save_many([make_result(jobs[2], status="failed", reason="bad_image: cut")])
    await store.save_many([make_result(jobs[2]), make_result(make_job(10))])
    assert await store.camera_counts() == {
        "belt-1": {"completed": 2, "failed": 1, "duplicates": 1, "in_flight": 2},
        "belt-2": {"completed": 0, "failed": 0, "duplicates": 0, "in_flight": 1},
    }


async def test_the_latest_of_each_camera_is_its_newest_completed_one_among_the_sites_that_are_seen(
    store: ResultStore,
) -> None:
    jobs = [make_job(number, camera="belt-1") for number in range(3)] + [make_job(9, camera="belt-2"), make_job(10)]
    await kept(store, jobs)
    assert await store.latest() == {}
    failed = make_result(jobs[2], status="failed", reason="bad_image: cut")
    elsewhere = make_result(jobs[3], site="south")
    await store.save_many([make_result(jobs[1]), make_result(jobs[0]), failed, elsewhere, make_result(jobs[4])])
    assert {name: result.id for name, result in (await store.latest()).items()} == {
        "belt-1": jobs[1].id,
        "belt-2": jobs[3].id,
    }
    assert list(await store.latest(sites=["north"])) == ["belt-1"]
    assert await store.latest(sites=[]) == {}


# event log


async def test_events_follow_each_other_and_carry_the_whole_result(store: ResultStore) -> None:
    job = make_job()
    result = make_result(job, classifications=[Classification("open", 0.75, "door")])
    await store.add_event("system", "north", {"text": "hello"})
    await store.save_many([result])
    events = await store.tail(0, 10)
    assert [event.kind for event in events] == ["system", "result"]
    assert events[0].body == {"text": "hello"}
    assert (events[1].body["id"], events[1].body["classifications"][0]["label"]) == (job.id, "open")
    assert events[1].body["schema_version"] == 1
    assert await store.tail(events[0].seq, 10) == events[1:]
    assert await store.tail(0, 1) == events[:1]
    assert await store.last_seq() == events[1].seq


async def test_one_who_waits_for_events_gets_them_when_they_come_and_nothing_when_none_do(store: ResultStore) -> None:
    assert await store.tail(0, 10, wait=0.1) == []
    waiting = asyncio.create_task(store.tail(0, 10, wait=30.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await store.add_event("system", "north", {"n": 1})
    async with asyncio.timeout(10):
        assert [event.body for event in await waiting] == [{"n": 1}]


async def test_a_store_that_closes_lets_those_go_who_wait_for_events(store: ResultStore) -> None:
    waiting = asyncio.create_task(store.tail(0, 10, wait=30.0))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await store.close()
        assert await waiting == []


async def test_a_reader_of_the_log_misses_nothing_while_many_write(store: ResultStore) -> None:
    jobs = [make_job(number) for number in range(120)]
    seen: list[str] = []

    async def follow() -> None:
        after = 0
        while len(seen) < len(jobs):
            for event in await store.tail(after, 7):
                seen.append(event.body["id"])
                after = event.seq

    reader = asyncio.create_task(follow())
    await asyncio.gather(*(store.save_many([make_result(job)]) for job in jobs))
    await asyncio.wait_for(reader, 30)
    assert sorted(seen) == sorted(job.id for job in jobs)


# alerts


def make_alert(**changes: Any) -> AlertRow:
    values: dict[str, Any] = {
        "id": uuid7(),
        "rule": "dents",
        "cause": "belt-1",
        "site": "north",
        "severity": "warning",
        "state": "open",
        "opened_at": NOON,
        "last_at": NOON,
        "count": 1,
        "result_id": uuid7(),
        "body": {"label": "dent"},
    }
    return AlertRow(**(values | changes))


def make_delivery(alert: AlertRow, **changes: Any) -> DeliveryRow:
    values: dict[str, Any] = {
        "id": uuid7(),
        "alert_id": alert.id,
        "channel": "ops",
        "payload": b"{}",
        "captured_at": NOON,
        "next_at": NOON,
    }
    return DeliveryRow(**(values | changes))


async def test_alerts_deliveries_events_and_state_are_kept_together(store: ResultStore) -> None:
    alert = make_alert()
    delivery = make_delivery(alert)
    await store.commit_alerts(state={"engine": b"s1"}, alerts=[alert], deliveries=[delivery])
    assert await store.load_state("engine") == b"s1"
    assert await store.load_state("other") is None
    assert await store.find_alerts(AlertQuery(limit=10)) == ([alert], None)
    assert await store.list_deliveries(alert.id) == await store.due_deliveries(NOON, 10) == [delivery]
    event = (await store.tail(0, 10))[0]
    assert (event.kind, event.body["id"], event.body["body"]) == ("alert", alert.id, {"label": "dent"})


async def test_a_delivery_made_twice_is_kept_once(store: ResultStore) -> None:
    alert = make_alert()
    delivery = make_delivery(alert)
    await store.commit_alerts(state={}, alerts=[alert], deliveries=[delivery])
    await store.update_delivery(replace(delivery, state="delivered", attempts=1, delivered_at=NOON))
    await store.commit_alerts(state={}, alerts=[replace(alert, count=2)], deliveries=[delivery])
    row = (await store.list_deliveries(alert.id))[0]
    assert (row.state, row.attempts, row.delivered_at) == ("delivered", 1, NOON)
    assert await store.due_deliveries(NOON, 10) == []
    assert (await store.find_alerts(AlertQuery(limit=10)))[0][0].count == 2


async def test_alert_pages_show_only_what_the_caller_may_see(store: ResultStore) -> None:
    alerts = [make_alert(site=site) for site in ("north", "south", "north", "north")]
    await store.commit_alerts(state={}, alerts=alerts, deliveries=[])
    page, cursor = await store.find_alerts(AlertQuery(sites=["north"], limit=2))
    rest, end = await store.find_alerts(AlertQuery(sites=["north"], cursor=cursor, limit=2))
    assert [row.id for row in page + rest] == [alerts[number].id for number in (3, 2, 0)]
    assert await store.find_alerts(AlertQuery(sites=["north"], result_id=alerts[0].result_id)) == ([alerts[0]], None)
    assert await store.find_alerts(AlertQuery(sites=["south"], result_id=alerts[0].result_id)) == ([], None)
    assert end is None


async def test_a_delivery_is_due_only_when_its_time_has_come(store: ResultStore) -> None:
    alert = make_alert()
    later = make_delivery(alert, next_at=NOON + timedelta(seconds=5), attempts=1)
    now = make_delivery(alert, next_at=NOON, attempts=1)
    await store.commit_alerts(state={}, alerts=[], deliveries=[later, now])
    assert await store.due_deliveries(NOON, 10) == [now]
    assert await store.due_deliveries(NOON + timedelta(seconds=5), 10) == [now, later]


async def test_a_delivery_that_was_never_tried_is_due_though_the_clock_was_set_back(store: ResultStore) -> None:
    made = make_delivery(make_alert(), next_at=NOON + timedelta(hours=1))
    await store.commit_alerts(state={}, alerts=[], deliveries=[made])
    assert await store.due_deliveries(NOON, 10) == [made]


# cameras and keys


async def test_the_newest_camera_report_stands(store: ResultStore) -> None:
    await store.report_camera("belt-1", "north", {"captured": 1})
    await store.report_camera("belt-1", "north", {"captured": 5, "dropped": {"busy": 2}})
    found = await store.cameras()
    assert found["belt-1"]["captured"] == 5
    assert found["belt-1"]["site"] == "north"
    assert found["belt-1"]["reported_at"].endswith("Z")


async def test_keys_are_replaced_by_name(store: ResultStore) -> None:
    key = KeyRow(name="ops", sha256="a" * 64, role="viewer", sites=("north",), created_at=NOON)
    await store.put_key(key)
    revoked = replace(key, revoked_at=NOON, expires_at=NOON + timedelta(days=1))
    await store.put_key(revoked)
    assert await store.keys() == [revoked]


# the whole


async def test_everything_is_there_after_closing_and_opening_again(url: str) -> None:
    job = make_job()
    first = open_results(url)
    await first.upgrade()
    await kept(first, [job])
    await first.close()
    await first.close()
    second = open_results(url)
    await second.upgrade()
    assert await second.get_job(job.id) is not None
    await second.close()


async def test_a_closed_store_says_so(store: ResultStore) -> None:
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.mark_enqueued(["x"])
    with pytest.raises(StoreError, match="closed"):
        await store.unfinished()


def _work_in_another_process(url: str, count: int) -> None:
    async def work() -> None:
        store = open_results(url)
        await store.upgrade()
        jobs = [make_job(number, camera="belt-1") for number in range(count)]
        for job in jobs:
            await kept(store, [job])
            await store.save_many([make_result(job)])
        await store.close()

    asyncio.run(work())


async def test_two_processes_start_and_write_side_by_side(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work_in_another_process, args=(url, 40)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = open_results(url)
    assert (await store.camera_counts())["belt-1"]["completed"] == 80
    assert [event.seq for event in await store.tail(0, 100)] == list(range(1, 81))
    await store.close()


KILLED = """
import asyncio, os, signal, sys
from eyeline.stores.results import open_results
sys.path.insert(0, sys.argv[4])
from test_results import make_job, make_result, kept

url, when, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0

def dying(self):
    global seen
    seen += self.in_transaction
    if when == "before" and seen == number:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self)
    if when == "after" and seen == number:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    global commit
    store = open_results(url)
    await store.upgrade()
    connection = store.writing.dialect.dbapi.Connection
    commit, connection.commit = connection.commit, dying
    jobs = [make_job(n, camera="belt-1") for n in range(4)]
    await kept(store, jobs)
    print("kept", flush=True)
    await store.save_many([make_result(job) for job in jobs])
    print("saved", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("when", "number", "jobs", "results"),
    [("before", 1, 0, 0), ("after", 1, 4, 0), ("before", 2, 4, 0), ("after", 2, 4, 4)],
)
async def test_a_kill_around_a_commit_leaves_all_of_it_or_nothing(
    url: str, when: str, number: int, jobs: int, results: int
) -> None:
    here = str(Path(__file__).parent)
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, url, when, str(number), here], check=False
    )
    assert died.returncode == -signal.SIGKILL
    store = open_results(url)
    await store.upgrade()
    found, _ = await store.find(ResultQuery())
    counts = (await store.camera_counts()).get("belt-1", {"completed": 0, "in_flight": 0})
    assert (len(found), len(await store.tail(0, 10)), counts["completed"]) == (results, results, results)
    assert counts["in_flight"] == (await store.unfinished()).count == jobs - results
    await store.close()


def make_item(number: int, *, site: str = "north", camera: str = "c", at: datetime = NOON, **more: Any) -> ItemRow:
    values: dict[str, Any] = {
        "pipeline": "p", "label": "parcel", "first_at": at, "last_at": at, "frames": 3, "score": 0.9, "result_id": "r",
        "labels": {"parcel": 0.9}, "codes": (f"code-{number}",),
    } | more  # fmt: skip
    return ItemRow(id=f"item-{number}", site=site, camera=camera, **values)


async def test_items_are_kept_with_labels_codes_sightings_and_state_and_the_newest_word_wins(
    store: ResultStore,
) -> None:
    sighting = SightingRow(item_id="item-1", result_id="r", detection=2)
    first = make_item(1, labels={"parcel": 0.9, "damaged": 0.6})
    await store.commit_items(state={"items/state": b"1"}, items=[first], sightings=[sighting])
    later = replace(first, frames=9, labels={"parcel": 0.95, "intact": 0.7}, codes=("code-1", "more"))
    for _ in range(2):
        await store.commit_items(state={"items/state": b"2"}, items=[later], sightings=[sighting])
    assert await store.load_state("items/state") == b"2"
    assert (await store.find_items(ItemQuery(code="more")))[0] == [later]
    assert (await store.find_items(ItemQuery(label="damaged")))[0] == []
    assert (await store.find_items(ItemQuery(label="intact", id="item-1", camera="c")))[0] == [later]
    assert await store.sightings(["item-1", "none"]) == [sighting]


async def test_items_are_paged_and_limited_to_what_may_be_seen(store: ResultStore) -> None:
    await store.commit_items(
        state={}, items=[make_item(n, site="north" if n % 2 else "south") for n in range(5)], sightings=[]
    )
    page, cursor = await store.find_items(ItemQuery(limit=3))
    rest, end = await store.find_items(ItemQuery(limit=3, cursor=cursor))
    assert [item.id for item in page + rest] == [f"item-{n}" for n in (4, 3, 2, 1, 0)]
    assert end is None
    assert {item.site for item in (await store.find_items(ItemQuery(sites=["south"])))[0]} == {"south"}
    assert (await store.find_items(ItemQuery(since=NOON + timedelta(seconds=1))))[0] == []


def counting(*by: Any, bucket: int = 3600, **more: Any) -> CountQuery:
    return CountQuery(by=by, bucket=bucket, since=NOON - timedelta(days=2), until=NOON + timedelta(days=2), **more)


async def test_items_are_counted_by_label_camera_and_site_in_buckets(store: ResultStore) -> None:
    damaged: dict[str, Any] = {"labels": {"parcel": 0.9, "damaged": 0.7}}
    items = [
        make_item(1),
        make_item(2, at=NOON + timedelta(minutes=59)),
        make_item(3, at=NOON + timedelta(minutes=61), **damaged),
        make_item(4, site="south", camera="d", at=NOON - timedelta(hours=13)),
    ]
    await store.commit_items(state={}, items=items, sightings=[])
    noon = NOON.replace(microsecond=0).timestamp()
    hours = {(one.start, *one.by.values()): one.count for one in await store.count_items(counting("label", "camera"))}
    assert hours == {
        (noon, "parcel", "c"): 2,
        (noon + 3600, "parcel", "c"): 1,
        (noon + 3600, "damaged", "c"): 1,
        (noon - 13 * 3600, "parcel", "d"): 1,
    }
    assert sorted(one.count for one in await store.count_items(counting("site", bucket=86_400))) == [1, 3]
    quarters = {one.start - noon: one.count for one in await store.count_items(counting(bucket=900, sites=["north"]))}
    assert quarters == {0: 1, 2700: 1, 3600: 1}


async def test_a_day_is_counted_from_midnight_to_midnight_of_its_site(store: ResultStore) -> None:
    moments = [
        "2026-03-27T22:59:59",
        "2026-03-27T23:00:00",
        "2026-03-28T18:14:59",
        "2026-03-28T18:15:00",
        "2026-03-29T21:59:59",
    ]
    made = []
    for number, moment in enumerate(moments):
        at = datetime.fromisoformat(f"{moment}+00:00")
        made += [
            make_result(make_job(2 * number, received=at), captured_at=at, site="north"),
            make_result(make_job(2 * number + 1, received=at), captured_at=at, site="east"),
        ]
    await store.save_many(made)
    query = CountQuery(
        by=("site",),
        bucket=86_400,
        since=NOON - timedelta(days=30),
        until=NOON + timedelta(days=60),
        zones={
            "north": "Europe/Berlin",
            "east": "Asia/Kathmandu",
        },  # a day of 23 hours; five and three quarter hours ahead
        zone="Europe/Berlin",
    )
    counted = {
        (one.by["site"], datetime.fromtimestamp(one.start, UTC).isoformat()[:16]): one.count
        for one in await store.count_results(query)
    }
    assert counted == {
        ("north", "2026-03-26T23:00"): 1, ("north", "2026-03-27T23:00"): 3, ("north", "2026-03-28T23:00"): 1,
        ("east", "2026-03-27T18:15"): 3, ("east", "2026-03-28T18:15"): 1, ("east", "2026-03-29T18:15"): 1,
    }  # fmt: skip
    both = await store.count_results(replace(query, by=()))
    assert sorted((one.start, one.count) for one in both)[1:3] == [(1774652400.0, 6), (1774738800.0, 2)]


async def test_results_are_counted_but_those_that_items_are_made_of(store: ResultStore) -> None:
    found = [Detection(label, 0.9, (0.0, 0.0, 1.0, 1.0), "find") for label in ("parcel", "parcel", "pallet")]
    kept = [
        make_result(make_job(1, camera="c"), detections=found),
        make_result(make_job(2, camera="c")),
        make_result(make_job(3)),
        make_result(make_job(4), status="failed", reason="x: y"),
    ]
    await store.save_many(kept)
    pipeline = kept[0].pipeline
    everything = await store.count_results(counting("site"))
    assert sum(one.count for one in everything) == 3
    left = await store.count_results(counting("camera"), but=[pipeline])
    assert [(one.by["camera"], one.count) for one in left] == [(None, 1)]
    labels = {one.by["label"]: one.count for one in await store.count_results(counting("label"))}
    assert labels == {"parcel": 1, "pallet": 1}
