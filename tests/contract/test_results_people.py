"""The promises of every result store about people who sign in, and about figures over time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from eyeline.stores.results import open_results
from eyeline.stores.results.base import (
    Action,
    LineRow,
    NewJob,
    ReplicaRow,
    ResultStore,
    SeriesRow,
    SessionRow,
    UserRow,
)
from tests.contract.test_results import make_job, make_result

NOON = datetime(2026, 3, 4, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


def ana(**changes: Any) -> UserRow:
    row = UserRow(name="ana", password="$argon2id$one", role="operator", sites=("north",), created_at=NOON)
    return replace(row, **changes)


def session(number: int, user: str = "ana", at: datetime = NOON) -> SessionRow:
    return SessionRow(sha256=f"{number:064x}", user=user, created_at=at, seen_at=at, expires_at=at + timedelta(days=7))


async def actions(store: ResultStore) -> list[dict[str, Any]]:
    records = await store.unsealed(100, bodies=True)
    return [msgspec.json.decode(record.body) for record in records if record.kind == "action" and record.body]


async def test_users_are_replaced_by_name_and_a_removed_one_stays(store: ResultStore) -> None:
    await store.put_user(ana(), by="boss")
    removed = ana(removed_at=NOON + timedelta(hours=1), sites=())
    await store.put_user(removed)
    assert await store.users() == [removed]
    told = await actions(store)
    assert [(one["what"], one["by"], one["role"], one["removed_at"] is None) for one in told] == [
        ("user", "boss", "operator", True),
        ("user", "", "operator", False),
    ]
    assert "argon2" not in str(told)


async def test_a_session_is_found_with_its_user_until_it_ends(store: ResultStore) -> None:
    await store.put_user(ana())
    await store.begin_session(session(1), most=5, address="10.0.0.9")
    assert await store.session(session(1).sha256) == (session(1), ana())
    assert await store.session(session(2).sha256) is None
    later = NOON + timedelta(minutes=5)
    await store.touch_session(session(1).sha256, later)
    found = await store.session(session(1).sha256)
    assert found is not None
    assert found[0].seen_at == later
    assert await store.end_session(session(1).sha256)
    assert not await store.end_session(session(1).sha256)
    assert await store.session(session(1).sha256) is None
    assert [(one["what"], one["by"]) for one in (await actions(store))[1:]] == [("login", "ana"), ("logout", "ana")]


async def test_a_new_session_takes_the_place_of_the_one_that_was_shown_and_of_the_oldest(store: ResultStore) -> None:
    await store.put_user(ana())
    await store.put_user(ana(name="ben"))
    await store.begin_session(session(9, "ben"), most=3)
    for number in range(1, 5):
        await store.begin_session(session(number, at=NOON + timedelta(minutes=number)), most=3)
    assert [number for number in range(1, 5) if await store.session(session(number).sha256)] == [2, 3, 4]
    await store.begin_session(session(5, at=NOON + timedelta(minutes=5)), most=9, ends=session(3).sha256)
    assert [number for number in range(1, 6) if await store.session(session(number).sha256)] == [2, 4, 5]
    await store.begin_session(
        session(6, at=NOON + timedelta(days=8)), most=9
    )  # whatever expired meanwhile is forgotten
    assert [number for number in range(1, 10) if await store.session(session(number).sha256)] == [6]


async def test_a_change_of_a_user_ends_his_sessions_and_a_new_hash_of_the_same_password_does_not(
    store: ResultStore,
) -> None:
    for name in ("ana", "ben"):
        await store.put_user(ana(name=name))
    await store.begin_session(session(1), most=5)
    await store.begin_session(session(2, "ben"), most=5)
    await store.rehash("ana", "$argon2id$one", "$argon2id$two")
    await store.rehash("ana", "$argon2id$one", "$argon2id$three")  # somebody was faster
    found = await store.session(session(1).sha256)
    assert found is not None
    assert found[1].password == "$argon2id$two"
    await store.put_user(ana(role="viewer"))
    assert await store.session(session(1).sha256) is None
    assert await store.session(session(2).sha256) is not None


def bucket(start: int, site: str = "", step: int = 60, **sums: float) -> SeriesRow:
    return SeriesRow(step=step, start=start, site=site, sums=sums)


async def test_sums_are_added_up_once_by_whoever_moves_the_cursor(store: ResultStore) -> None:
    assert await store.series_cursor() is None
    assert await store.add_series([bucket(0, "north", images=2)], before=None, after=10)
    assert not await store.add_series([bucket(0, "north", images=2)], before=None, after=10)
    assert await store.series_cursor() == 10
    more = [bucket(0, "north", images=1, failed=1), bucket(60, "south", images=4)]
    won = await asyncio.gather(*(store.add_series(more, before=10, after=20) for _ in range(4)))
    assert sorted(won) == [False, False, False, True]
    assert await store.series(60, 0, None) == [
        bucket(0, "north", images=3, failed=1),
        bucket(60, "south", images=4),
    ]
    assert await store.series(60, 0, ["south"]) == [bucket(60, "south", images=4)]
    assert await store.series(60, 60, ["north"]) == []


async def test_sums_of_many_processes_add_up_and_old_ones_are_forgotten(results_url: str, store: ResultStore) -> None:
    other = open_results(results_url)
    rows = [bucket(start, step=step, busy=0.5, looks=1) for start in (0, 900) for step in (60, 900)]
    for _ in range(5):
        await asyncio.gather(store.add_sums(rows), other.add_sums(rows[::-1]))
    await other.close()
    assert [(row.start, row.sums) for row in await store.series(60, 0, None)] == [
        (0, {"busy": 5.0, "looks": 10}),
        (900, {"busy": 5.0, "looks": 10}),
    ]
    await store.prune_series(60, 900)
    assert [row.start for row in await store.series(60, 0, None)] == [900]
    assert [row.start for row in await store.series(900, 0, None)] == [0, 900]


async def test_processes_say_who_they_are_and_those_long_silent_are_forgotten(store: ResultStore) -> None:
    row = ReplicaRow(
        id="worker@line:7", role="worker", host="line", pid=7, version="1", started_at=NOON, seen_at=NOON, body={"a": 1}
    )
    await store.report_replica(row)
    later = replace(row, seen_at=NOON + timedelta(hours=23), body={"a": 2})
    await store.report_replica(later)
    assert await store.replicas() == [later]
    other = replace(row, id="worker@line:8", pid=8, seen_at=NOON + timedelta(hours=48))
    await store.report_replica(other)
    assert await store.replicas() == [other]


async def test_a_process_is_drained_until_it_is_put_back_or_ends_and_each_time_is_an_action(store: ResultStore) -> None:
    row = ReplicaRow(
        id="worker@line:7", role="worker", host="line", pid=7, version="1", started_at=NOON, seen_at=NOON, body={"a": 1}
    )
    for each in (row, replace(row, id="worker@line:8", pid=8)):
        await store.report_replica(each)

    async def drain(name: str, *, drained: bool) -> bool:
        what = "replica.drained" if drained else "replica.put_back"
        return await store.drain_replica(
            name, drained=drained, action=Action(what=what, by="ana", body={"replica": name})
        )

    assert not await drain("worker@line:9", drained=True)
    assert await drain(row.id, drained=True)
    assert [await store.is_drained(f"worker@line:{pid}") for pid in (7, 8, 9)] == [True, False, False]
    await store.report_replica(replace(row, seen_at=NOON + timedelta(minutes=1), body={"a": 2}))
    (kept, other) = await store.replicas()
    assert kept.drained_at is not None
    assert (kept.body, other.drained_at) == ({"a": 2}, None)
    assert await drain(row.id, drained=False)
    assert not await store.is_drained(row.id)
    assert await drain(row.id, drained=True)
    await store.report_replica(
        replace(row, started_at=NOON + timedelta(minutes=2), seen_at=NOON + timedelta(minutes=2))
    )
    assert not await store.is_drained(row.id)
    now = datetime.now(UTC)
    told = await store.actions(now - timedelta(hours=1), now + timedelta(hours=1), 10)
    assert sorted((each["what"], each["by"], each["replica"]) for each in told) == [
        ("replica.drained", "ana", row.id),
        ("replica.drained", "ana", row.id),
        ("replica.put_back", "ana", row.id),
    ]


async def test_a_state_is_kept_with_the_action_that_changed_it(store: ResultStore) -> None:
    for value in (b"1", b"2"):
        await store.keep_state("models/history", value, Action(what="model.promoted", by="ana"))
    assert await store.load_state("models/history") == b"2"
    assert [one["by"] for one in await actions(store)] == ["ana", "ana"]


async def test_of_two_who_change_a_state_at_once_one_does(store: ResultStore) -> None:
    for before in (None, b"1"):
        values = {b"2": Action(what="compare", by="ana"), b"3": Action(what="compare", by="ben")}
        done = await asyncio.gather(
            *(store.replace_state("models/comparisons", before, value, action) for value, action in values.items())
        )
        assert sorted(done) == [False, True]
        [kept] = [value for value, did in zip(values, done, strict=True) if did]
        assert await store.load_state("models/comparisons") == kept
        assert (await actions(store))[-1]["by"] == values[kept].by
        await store.keep_state("models/comparisons", b"1", Action(what="compare"))
    assert len(await actions(store)) == 4


async def test_the_line_is_counted_by_site_and_lane(store: ResultStore) -> None:
    jobs = [make_job(1), make_job(2, lane="bulk"), make_job(3, received=NOON + timedelta(seconds=9))]
    await store.keep_jobs([NewJob(job=job) for job in [*jobs, make_job(4)]])
    done = make_job(5)
    await store.keep_jobs([NewJob(job=done)])
    await store.save_many([make_result(done)])
    assert await store.line() == [
        LineRow(site="north", lane="bulk", count=1, oldest=NOON),
        LineRow(site="north", lane="live", count=3, oldest=NOON),
    ]


async def test_the_latest_use_of_a_key_stands(store: ResultStore) -> None:
    await store.touch_keys({"a" * 64: NOON, "b" * 64: NOON})
    await store.touch_keys({"a" * 64: NOON - timedelta(hours=1), "b" * 64: NOON + timedelta(hours=1)})
    assert await store.key_uses() == {"a" * 64: NOON, "b" * 64: NOON + timedelta(hours=1)}
