"""Retention: what goes when, what stays, and that nothing is lost or done twice whenever it dies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from eyeline.core.clock import isoformat
from eyeline.core.dedupe import answer_key
from eyeline.core.errors import BlobError, StoreError
from eyeline.core.ids import uuid7
from eyeline.core.settings import RetentionRuleSettings, RetentionSettings
from eyeline.core.types import BlobRef, Result
from eyeline.ops.audit import trail
from eyeline.ops.storage.keeper import BATCH, FEWEST, MOST, STEP, resized, together
from eyeline.pipeline.decode import decode
from eyeline.stores.results.base import AlertQuery, AlertRow, DeliveryRow, ItemQuery, ItemRow, SightingRow
from eyeline.stores.results.retaining import Hold, PictureRow, crop_name
from tests.unit.ops.storage.site import DAY, FOUND, START, Site, after, opened, run


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path) as made:
        yield made


def url_of(result: Result) -> str:
    assert result.image is not None
    return f"{result.site}/{result.image.sha256}"


async def row_of(site: Site, result: Result) -> PictureRow | None:
    return await site.results.picture(url_of(result))


async def test_nothing_goes_unless_it_was_said(site: Site) -> None:
    result = await site.take()
    site.now = after(5000)
    await run(site.keeper())
    assert await site.has(result)
    assert await site.results.get(result.id) is not None


async def test_an_original_goes_in_its_time_and_leaves_thumbnail_and_crops_until_theirs(site: Site) -> None:
    keeper = site.keeper(originals="30d", evidence="90d")
    old = await site.take()
    site.now = after(10)
    young = await site.take()
    site.now = after(30)
    await run(keeper)
    assert not await site.has(old)
    assert await site.has(young)
    row = await row_of(site, old)
    assert row is not None
    assert (row.state, row.pending, set(row.kept)) == ("evidence", False, {"thumbnail", crop_name(FOUND.box)})
    shown = decode(await site.picture(row.kept[crop_name(FOUND.box)].url)).pixels
    assert shown.shape[:2] == (72, 96)  # the box of 80 x 60 and a tenth around it
    site.now = after(90)
    await run(keeper)
    assert not await site.urls() & {blob.url for blob in row.kept.values()}
    assert await site.results.get(old.id) is not None


async def test_the_first_rule_that_fits_decides(site: Site) -> None:
    rules = [
        RetentionRuleSettings(label="damaged", min_score=0.5, originals="1y"),
        RetentionRuleSettings(site="south", originals="1d"),
    ]
    keeper = site.keeper(RetentionSettings(originals="30d", rules=rules))
    damaged, plain = await site.take(label="damaged"), await site.take(label="whole")
    south, both = await site.take(site="south"), await site.take(site="south", label="damaged")
    site.now = after(2)
    await run(keeper)
    assert [await site.has(each) for each in (damaged, plain, south, both)] == [True, True, False, True]
    site.now = after(31)
    await run(keeper)
    assert [await site.has(each) for each in (damaged, plain, south, both)] == [True, False, False, True]
    site.now = after(366)
    await run(keeper)
    assert [await site.has(each) for each in (damaged, both)] == [False, False]


async def test_a_picture_goes_only_when_nothing_needs_it(site: Site) -> None:
    keeper = site.keeper(originals="30d")
    first = await site.take()
    data = await site.picture(url_of(first))
    site.now = after(20)
    second = await site.take(picture=data, duplicate_of=first.id)
    site.now = after(31)
    await run(keeper)
    assert await site.has(first)
    site.now = after(51)
    waiting = await site.take(picture=data, unfinished=True)
    await run(keeper)
    assert await site.has(second)
    await site.results.save_many([waiting])
    site.now = after(82)
    await run(keeper)
    assert not await site.has(waiting)


async def test_a_picture_that_comes_again_between_mark_and_deletion_stays(site: Site) -> None:
    keeper = site.keeper(originals="30d", evidence="0d")
    result = await site.take()
    data = await site.picture(url_of(result))
    site.now = after(30)
    walk = keeper.works()[2]
    await walk()
    assert await site.has(result)
    site.now += DAY / 24
    again = await site.take(picture=data, unfinished=True)
    await keeper.drop()
    assert await site.has(again)


async def test_results_go_with_everything_that_tells_of_them(site: Site) -> None:
    keeper = site.keeper(results="90d")
    one = await site.take(camera="belt", ref="order-7")
    two = await site.take(camera="belt")
    assert one.image is not None
    await site.cache.set(answer_key("north", one.image.sha256, "f"), b"answer", ttl=1e6)
    item = ItemRow(
        id=uuid7(), site="north", camera="belt", pipeline="p", label="carton", first_at=START, last_at=START, frames=2,
        score=0.9, result_id=one.id, labels={"carton": 0.9}, codes=("4711",),
    )  # fmt: skip
    alone = ItemRow(**{**vars(item), "id": uuid7(), "codes": ("4712",)})
    sightings = [(item.id, one.id), (item.id, two.id), (alone.id, one.id)]
    await site.results.commit_items(
        state={},
        items=[item, alone],
        sightings=[SightingRow(item_id=i, result_id=r, detection=0) for i, r in sightings],
    )
    alert = AlertRow(
        id=uuid7(), rule="damage", cause="{}", site="north", severity="warning", state="open", opened_at=START,
        last_at=START, count=1, result_id=one.id, body={"ref": "order-7"},
    )  # fmt: skip
    told = DeliveryRow(
        id=uuid7(), alert_id=alert.id, channel="log", payload=b"order-7", captured_at=START, next_at=START
    )
    await site.results.commit_alerts(state={}, alerts=[alert], deliveries=[told])
    await site.seal()
    site.now = after(90)
    await site.results.erase([two.id])
    await run(keeper)
    assert await site.results.get(one.id) is None
    assert await site.results.get_job(one.id) is None
    assert await site.urls() == set()
    assert await site.cache.get(answer_key("north", one.image.sha256, "f")) is None
    assert (await site.results.find_items(ItemQuery()))[0] == []
    assert (await site.results.find_items(ItemQuery(code="4712")))[0] == []
    assert (await site.results.find_alerts(AlertQuery()))[0] == []
    assert await site.results.list_deliveries(alert.id) == []
    events = await site.results.tail(0, 100)
    assert b"order-7" not in b"".join(repr(event.body).encode() for event in events)
    await site.seal()
    report = await trail.verify(site.results)
    assert (report.good, report.erased) == (True, 2)


async def test_an_item_that_another_result_shows_stays_and_points_there(site: Site) -> None:
    old = await site.take(camera="belt")
    site.now = after(30)
    young = await site.take(camera="belt")
    item = ItemRow(
        id=uuid7(), site="north", camera="belt", pipeline="p", label="carton", first_at=START, last_at=START, frames=2,
        score=0.9, result_id=old.id,
    )  # fmt: skip
    seen = [SightingRow(item_id=item.id, result_id=each.id, detection=0) for each in (old, young)]
    await site.results.commit_items(state={}, items=[item], sightings=seen)
    site.now = after(90)
    await run(site.keeper(results="90d"))
    found, _ = await site.results.find_items(ItemQuery())
    assert [each.result_id for each in found] == [young.id]
    assert await site.results.sightings([item.id]) == seen[1:]


@pytest.mark.parametrize("by", ["ref", "result", "item", "camera"])
async def test_what_is_held_stays_until_the_hold_is_lifted(site: Site, by: str) -> None:
    keeper = site.keeper(originals="30d", results="90d", reencode="webp:30")
    kept, other = await site.take(camera="belt", ref="order-7"), await site.take(camera="dock", ref="order-8")
    await site.seal()
    item = ItemRow(
        id=uuid7(), site="north", camera="belt", pipeline="p", label="carton", first_at=START, last_at=START, frames=1,
        score=0.9, result_id=kept.id,
    )  # fmt: skip
    seen = [SightingRow(item_id=item.id, result_id=kept.id, detection=0)]
    await site.results.commit_items(state={}, items=[item], sightings=seen)
    scope = {
        "ref": {"ref": "order-7"},
        "result": {"result": kept.id},
        "item": {"item": item.id},
        "camera": {"camera": "belt", "since": START, "until": START + DAY},
    }[by]
    hold = Hold(id=uuid7(), placed_at=START, by="mia", reason="claim 12", **scope)  # type: ignore[arg-type]
    await site.results.place_hold(hold)
    assert await site.results.holds() == [hold]
    site.now = after(91)
    await run(keeper)
    assert (await site.has(kept), await site.has(other)) == (True, False)
    assert await site.results.get(kept.id) is not None
    assert await site.results.get(other.id) is None
    assert await site.results.erase([kept.id]) == set()
    assert await site.results.lift_hold(hold.id, by="mia")
    assert not await site.results.lift_hold(hold.id)
    await run(keeper)
    assert await site.urls() == set()
    assert await site.results.get(kept.id) is None
    await site.seal()
    assert (await trail.verify(site.results)).good


async def test_a_hold_placed_after_the_mark_still_saves_the_original(site: Site) -> None:
    keeper = site.keeper(originals="30d")
    result = await site.take(ref="order-7")
    site.now = after(30)
    await keeper.works()[2]()
    await site.results.place_hold(Hold(id=uuid7(), placed_at=site.now, ref="order-7"))
    await keeper.drop()
    assert await site.has(result)


async def test_encoding_anew_waits_for_the_seal_and_keeps_the_digest_of_the_original(site: Site) -> None:
    keeper = site.keeper(reencode="webp:30", reencode_after="7d", originals="90d")
    result = await site.take()
    site.now = after(8)
    await run(keeper)
    assert await site.has(result)
    await site.results.lift_hold("none")
    await site.seal()
    await site.results.place_hold(hold := Hold(id=uuid7(), placed_at=START, ref="other"))
    await site.results.lift_hold(hold.id)  # looks at everything anew
    await run(keeper)
    row = await row_of(site, result)
    assert row is not None
    assert row.state == "reencoded"
    small = row.kept["reencoded"]
    assert await site.urls() == {small.url}
    assert decode(await site.picture(small.url)).format == "webp"
    found = await site.results.get(result.id)
    assert found is not None
    assert found.image == result.image
    counted = [each for each in await site.results.tallies("2026") if each.what == "reencoded"]
    assert result.image is not None
    assert [(each.kind, each.bytes, each.saved) for each in counted] == [
        ("jpeg from uploads", result.image.bytes, result.image.bytes - small.size)
    ]
    await site.seal()
    assert (await trail.verify(site.results)).good
    site.now = after(91)
    await run(keeper)
    row = await row_of(site, result)
    assert row is not None
    assert row.state == "evidence"
    assert await site.urls() == {blob.url for blob in row.kept.values()}


async def test_a_picture_that_would_not_shrink_is_left_alone(site: Site) -> None:
    result = await site.take()
    await site.seal()
    site.now = after(8)
    await run(site.keeper(reencode="jpeg:100"))
    assert await site.has(result)
    assert await row_of(site, result) is None


async def test_above_the_limit_the_oldest_go_first_and_what_rules_keep_longer_last(site: Site) -> None:
    damaged = await site.take(label="damaged")
    plain = []
    for _ in range(4):
        site.now += DAY
        plain.append(await site.take())
    site.now += DAY
    sizes = [each.image.bytes for each in (damaged, *plain) if each.image is not None]
    rules = [RetentionRuleSettings(label="damaged", originals="2y")]
    settings = RetentionSettings(originals="1y", evidence="0d", max_bytes=sum(sizes[:2]) + sizes[4] + 100, rules=rules)
    await run(site.keeper(settings))
    assert [await site.has(each) for each in (damaged, *plain)] == [True, False, False, False, False]
    settings = settings.model_copy(update={"max_bytes": 1})
    await run(site.keeper(settings))
    assert not await site.has(damaged)


async def test_what_is_young_stays_whatever_is_full(site: Site) -> None:
    result = await site.take()
    await run(site.keeper(originals="1y", max_bytes=1))
    assert await site.has(result)


async def test_a_death_on_any_line_leaves_nothing_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies at its first write, the next time at its second …, before that is done or after, and begins anew each time."""
    made = [await site.take(camera="belt") for _ in range(3)]
    await site.seal()
    settings = RetentionSettings(originals="30d", evidence="60d", results="90d", reencode="webp:30")
    deaths = writes = base = 0

    def dying(name: str, owner: object) -> None:
        real = getattr(owner, name)

        async def call(*args: object, **words: object) -> object:
            nonlocal deaths, writes
            writes += 1
            dies = writes == 1 + (deaths - base) // 2
            if dies and deaths % 2:
                deaths += 1
                raise BlobError("died before")
            done = await real(*args, **words)
            if dies:
                deaths += 1
                raise BlobError("died after")
            return done

        monkeypatch.setattr(owner, name, call)

    for name in ("change_pictures", "erase", "settle_pictures", "tally"):
        dying(name, site.results)
    for name in ("put", "delete"):
        dying(name, site.blobs)
    for days in (10, 31, 61, 91):
        site.now, before, base = after(days), -1, deaths
        while deaths != before:
            before, writes = deaths, 0
            with contextlib.suppress(BlobError):
                await run(site.keeper(settings))
    assert deaths > 30
    assert await site.urls() == set()
    assert await site.results.get_many([each.id for each in made]) == {}
    await site.seal()
    assert (await trail.verify(site.results)).good
    counts = {(each.what, each.count) for each in await site.results.tallies("2026") if each.what == "result"}
    assert counts == {("result", 3)}


async def test_each_result_is_counted_once_on_the_day_it_came(site: Site) -> None:
    keeper = site.keeper(RetentionSettings(rules=[RetentionRuleSettings(label="damaged", originals="1y")]))
    first = await site.take(timings={"infer": 0.25, "queue": 9.0})
    await site.take(label="damaged", duplicate_of=first.id)
    await run(keeper)
    site.now = after(1)
    await site.take()
    await run(keeper)
    await run(site.keeper())
    counted = [
        (each.day, each.what, each.kind, each.count, each.seconds) for each in await site.results.tallies("2026")
    ]
    assert counted == [
        ("2026-03-01", "duplicate", "damaged", 1, 0.0),
        ("2026-03-01", "received", "other", 1, 0.25),
        ("2026-03-02", "received", "other", 1, 0.0),
    ]


async def test_old_events_go_when_no_rule_keeps_what_they_tell_of(site: Site) -> None:
    await site.take()
    real = (await site.results.tail(0, 10))[0].at
    site.now = real + 20 * DAY
    await run(site.keeper(results="30d"))
    assert len(await site.results.tail(0, 10)) == 1
    site.now = real + 31 * DAY
    await run(site.keeper(results="30d"))
    assert await site.results.tail(0, 10) == []


async def test_what_was_made_of_a_picture_is_no_orphan(site: Site) -> None:
    result = await site.take()
    site.now = after(30)
    await run(site.keeper(originals="30d"))
    row = await row_of(site, result)
    assert row is not None
    made = {blob.url for blob in row.kept.values()}
    assert await site.results.named_blobs([*made, url_of(result), "north/" + "0" * 64]) == made | {url_of(result)}


async def test_a_missing_original_stops_nothing(site: Site) -> None:
    gone, there = await site.take(), await site.take()
    await site.blobs.delete(url_of(gone))
    site.now = after(30)
    await run(site.keeper(originals="30d"))
    assert [(await row_of(site, each)) is not None for each in (gone, there)] == [True, True]
    with pytest.raises(BlobError):
        await site.blobs.get(BlobRef(url_of(gone), 1, url_of(gone).rpartition("/")[2]))
    assert isoformat(site.now)


def test_a_step_grows_where_it_is_quick_and_shrinks_where_it_would_be_in_the_way() -> None:
    assert [resized(BATCH, seconds) for seconds in (0.0, 0.75 * STEP, 2 * STEP)] == [2 * BATCH, BATCH, BATCH // 2]
    assert (resized(MOST, 0.0), resized(FEWEST, 9.0)) == (MOST, FEWEST)


async def test_what_is_done_together_is_all_over_when_one_of_it_fails() -> None:
    over = []

    async def one(number: int) -> int:
        await asyncio.sleep(0)
        over.append(number)
        if number == 3:
            raise BlobError("away")
        return number

    assert await together(one(number) for number in (0, 1, 2)) == [0, 1, 2]
    with pytest.raises(BlobError):
        await together(one(number) for number in range(20))
    assert len(over) == 3 + 20


async def test_the_same_picture_at_two_sites_is_two_pictures(site: Site) -> None:
    north = await site.take()
    south = await site.take(site="south", picture=await site.picture(url_of(north)), label="damaged")
    rules = [RetentionRuleSettings(site="south", originals="90d")]
    site.now = after(31)
    await run(site.keeper(RetentionSettings(originals="30d", evidence="0d", rules=rules)))
    assert (await site.has(north), await site.has(south)) == (False, True)


async def test_the_database_is_asked_now_and_then_to_make_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[datetime] = []

    async def make_room(now: datetime) -> None:
        asked.append(now)
        raise StoreError("somebody has the table")

    monkeypatch.setattr(site.results, "make_room", make_room)
    *_, work = site.keeper().works()
    with pytest.raises(StoreError):
        await work()
    assert not await work()  # not again at once
    assert asked == [site.now]
