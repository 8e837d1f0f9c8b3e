"""How long things are kept, on every result store: pictures, holds, tallies, and what goes with an erased result."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from eyeline.core.ids import first_id, moment_of, uuid7
from eyeline.core.types import BlobRef, Result
from eyeline.ops.audit.sealer import Sealer
from eyeline.stores.results import open_results
from eyeline.stores.results.base import (
    Action,
    AlertQuery,
    AlertRow,
    DeliveryRow,
    ItemQuery,
    NewJob,
    ResultStore,
    SightingRow,
)
from eyeline.stores.results.retaining import Hold, PictureRow, Tally
from tests.contract.test_results import NOON, make_item, make_job, make_result


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


async def recorded(store: ResultStore, *numbers: int, unfinished: bool = False) -> list[Result]:
    jobs = [make_job(number, camera="c") for number in numbers]
    await store.keep_jobs([NewJob(job=job) for job in jobs])
    made = [make_result(job, ref="order-7") for job in jobs]
    if not unfinished:
        await store.save_many(made)
    return made


def url_of(number: int) -> str:
    return f"north/{number:064x}"


def always(_: Result) -> bool:
    return True


def marked(number: int, **changes: Any) -> PictureRow:
    row = PictureRow(url=url_of(number), state="gone", at="2026-03-04T12:00:00.000000Z", drop=(url_of(number),))
    return replace(row, **changes)


async def test_results_come_by_age_with_their_places(store: ResultStore) -> None:
    made = await recorded(store, 1, 2, 3)
    await Sealer(store, lease=0.0).seal_all()
    later = first_id(moment_of(made[-1].id) + timedelta(seconds=1))
    page = await store.aged("", later, 2)
    assert [result.id for result in page] == [result.id for result in made[:2]]
    assert all(result.chain is not None for result in page)
    assert [result.id for result in await store.aged(page[-1].id, later, 2)] == [made[2].id]
    assert await store.aged("", first_id(moment_of(made[0].id) - timedelta(seconds=1)), 2) == []


async def test_a_picture_is_wanted_by_unfinished_jobs_unripe_results_and_holds(store: ResultStore) -> None:
    made = await recorded(store, 1, 2, 3)
    await recorded(store, 3, unfinished=True)
    urls = [url_of(number) for number in (1, 2, 3, 4)]
    assert await store.unwanted(urls, always) == {urls[0], urls[1], urls[3]}
    assert await store.unwanted(urls, lambda result: result.id == made[1].id) == {urls[1], urls[3]}
    await store.place_hold(hold := Hold(id=uuid7(), placed_at=NOON, result=made[0].id))
    assert await store.unwanted(urls, always) == {urls[1], urls[3]}
    assert await store.lift_hold(hold.id)
    assert await store.unwanted(urls, always) == {urls[0], urls[1], urls[3]}


async def test_pictures_are_changed_all_or_none_with_their_action_and_tallies(store: ResultStore) -> None:
    made = await recorded(store, 1, 2)
    tally = Tally(day="2026-03-04", what="original", count=1, bytes=10, saved=4, seconds=0.5)
    kept = {"thumbnail": BlobRef(url_of(90), 7, f"{90:064x}")}
    rows = [marked(1, state="evidence", kept=kept), marked(2)]
    action = Action(what="retention", body={"n": 1})
    done = await store.change_pictures(rows, lambda result: result.id == made[0].id, action=action, tallies=[tally])
    assert done == set()
    assert await store.picture(url_of(1)) is None
    assert await store.tallies("") == []
    done = await store.change_pictures(rows, always, action=action, tallies=[tally, replace(tally, kind="x")])
    assert done == {url_of(1), url_of(2)}
    assert await store.picture(url_of(1)) == rows[0]
    assert await store.pictures_of([url_of(1), url_of(2), url_of(3)]) == {row.url: row for row in rows}
    assert {row.url for row in await store.pending_pictures(10)} == done
    assert len(await store.pending_pictures(1)) == 1
    assert await store.named_blobs([url_of(90), url_of(91)]) == {url_of(90)}
    await store.tally([tally], {"mark": b"1"})
    sums = await store.tallies("2026-03-04")
    assert [(row.kind, row.count, row.bytes, row.saved, row.seconds) for row in sums] == [
        ("", 2, 20, 8, 1.0),
        ("x", 1, 10, 4, 0.5),
    ]
    assert await store.load_state("mark") == b"1"
    assert await store.tallies("2026-03-05") == []
    await store.settle_pictures(sorted(done))
    assert await store.pending_pictures(10) == []
    assert await store.picture(url_of(1)) == replace(rows[0], pending=False, drop=())
    assert await store.picture(url_of(2)) == replace(rows[1], pending=False, drop=())  # its job still names it
    gone = replace(rows[0], state="gone", kept={}, drop=(url_of(90),))
    await store.change_pictures([gone], always)
    assert await store.named_blobs([url_of(90)]) == set()


async def test_what_is_erased_takes_items_alerts_and_pictures_along(store: ResultStore) -> None:
    made = await recorded(store, 1, 2)
    item, alone = make_item(1), make_item(2)
    sightings = [(item.id, made[0].id), (item.id, made[1].id), (alone.id, made[0].id)]
    await store.commit_items(
        state={},
        items=[replace(item, result_id=made[0].id), alone],
        sightings=[SightingRow(item_id=i, result_id=r, detection=0) for i, r in sightings],
    )
    alert = AlertRow(
        id=uuid7(), rule="r", cause="{}", site="north", severity="info", state="open", opened_at=NOON, last_at=NOON,
        count=1, result_id=made[0].id, body={},
    )  # fmt: skip
    other = replace(alert, id=uuid7(), result_id=made[1].id)
    told = DeliveryRow(id=uuid7(), alert_id=alert.id, channel="log", payload=b"x", captured_at=NOON, next_at=NOON)
    await store.commit_alerts(state={}, alerts=[alert, other], deliveries=[told])
    await store.tail(0, 100)
    counted = Tally(day="2026-03-04", what="result")
    erased = await store.erase([made[0].id], tallies=lambda gone: [replace(counted, count=len(gone))])
    assert erased == {made[0].id}
    assert [(each.id, each.result_id) for each in (await store.find_items(ItemQuery()))[0]] == [(item.id, made[1].id)]
    assert (await store.find_items(ItemQuery(code="code-2")))[0] == []
    assert [each.id for each in (await store.find_alerts(AlertQuery()))[0]] == [other.id]
    assert await store.list_deliveries(alert.id) == []
    told_of = [event.body["id"] for event in await store.tail(0, 100) if event.kind == "alert"]
    assert told_of == [other.id]
    assert [row.url for row in await store.pending_pictures(9)] == [url_of(1)]
    assert await store.named_blobs([url_of(1), url_of(2)]) == {url_of(2)}
    assert [row.count for row in await store.tallies("")] == [1]
    await store.settle_pictures([url_of(1)])
    assert await store.picture(url_of(1)) is None
    assert await store.erase([made[1].id], jobs=True) == {made[1].id}
    assert await store.get_job(made[1].id) is None
    assert await store.get_job(made[0].id) is not None


async def test_a_picture_that_another_job_names_is_not_marked(store: ResultStore) -> None:
    first, _ = await recorded(store, 1, 1)
    await store.erase([first.id])
    assert await store.pending_pictures(9) == []
    assert await store.named_blobs([url_of(1)]) == {url_of(1)}


async def test_what_is_held_is_not_erased_and_holds_are_actions(store: ResultStore) -> None:
    made = await recorded(store, 1, 2)
    hold = Hold(
        id=uuid7(), placed_at=NOON, by="mia", reason="claim", camera="c", since=NOON - timedelta(days=1), until=NOON
    )
    await store.place_hold(hold)
    assert await store.holds() == [hold]
    assert await store.erase([result.id for result in made]) == set()
    await store.tally((), {"retention/x": b"5", "retentionless": b"6"})
    assert await store.lift_hold(hold.id, by="mia", reason="settled")
    assert not await store.lift_hold(hold.id)
    assert await store.load_state("retention/x") is None
    assert await store.load_state("retentionless") == b"6"
    assert await store.holds() == []
    assert [each.lifted_at is not None for each in await store.holds(lifted=True)] == [True]
    said = [record.body or b"" for record in await store.unsealed(10, bodies=True) if record.kind == "action"]
    assert [b'"hold"' in said[0], b'"lift hold"' in said[1], b"claim" in said[0], b"settled" in said[1]] == [True] * 4


async def test_the_oldest_events_go_as_far_as_they_are_old(store: ResultStore) -> None:
    await recorded(store, 1, 2, 3)
    events = await store.tail(0, 10)
    assert await store.forget_events(events[0].at - timedelta(seconds=1), 2) == 0
    assert await store.forget_events(events[-1].at + timedelta(seconds=1), 2) == 2
    assert [event.seq for event in await store.tail(0, 10)] == [events[-1].seq]


async def test_a_turn_is_one_holders_until_it_ends(store: ResultStore) -> None:
    assert await store.take_turn("t", "a", 60.0)
    assert await store.take_turn("t", "a", 60.0)
    assert not await store.take_turn("t", "b", 60.0)
    assert await store.take_turn("other", "b", 60.0)
    assert await store.take_turn("t", "a", -1.0)
    assert await store.take_turn("t", "b", 60.0)


async def test_the_database_knows_its_size(store: ResultStore) -> None:
    assert await store.size() > 10_000
