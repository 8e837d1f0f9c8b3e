"""One holder at a time on every result store, and nothing kept of one that was replaced."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from eyeline.core.errors import Superseded
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action, Holding, NewJob, ResultStore
from tests.contract.test_results import make_alert, make_job, make_result


@pytest.fixture
async def stores(results_url: str) -> AsyncIterator[list[ResultStore]]:
    opened = [open_results(results_url) for _ in range(3)]
    await opened[0].upgrade()
    yield opened
    for store in opened:
        await store.close()


async def test_the_first_has_it_and_its_beat_rises(stores: list[ResultStore]) -> None:
    one, two, _ = stores
    assert await one.hold("alerts", "one") == Holding(holder="one", beat=1)
    assert await two.hold("alerts", "two") == Holding(holder="one", beat=1)
    assert (await one.hold("alerts", "one")).beat > 1
    assert await two.hold("items", "two") == Holding(holder="two", beat=1)


async def test_what_has_not_changed_is_taken_over_and_what_has_is_not(stores: list[ResultStore]) -> None:
    one, two, _ = stores
    seen = await one.hold("alerts", "one")
    await one.hold("alerts", "one")
    assert (await two.hold("alerts", "two", seen)).holder == "one"
    seen = await two.hold("alerts", "two")
    assert (await two.hold("alerts", "two", seen)).holder == "two"


async def test_every_write_of_the_holder_is_a_sign_of_life(stores: list[ResultStore]) -> None:
    one, two, _ = stores
    seen = await one.hold("alerts", "one")
    await one.add_event("system", "north", {"what": "drift"})
    assert (await two.hold("alerts", "two", seen)).holder == "one"


async def test_of_two_who_take_over_at_once_one_has_it(stores: list[ResultStore]) -> None:
    seen = await stores[0].hold("alerts", "dead")
    found = await asyncio.gather(*(store.hold("alerts", f"new-{n}", seen) for n, store in enumerate(stores[1:])))
    assert len({one.holder for one in found}) == 1
    assert found[0].holder != "dead"


async def test_who_was_replaced_commits_nothing_more(stores: list[ResultStore]) -> None:
    old, new, reader = stores
    seen = await old.hold("alerts", "old")
    assert (await new.hold("alerts", "new", seen)).holder == "new"
    alert, job = make_alert(), make_job()
    for refused in (
        old.commit_alerts(state={"alerts/cursor": b"7"}, alerts=[alert], deliveries=[]),
        old.commit_items(state={"items/state": b"7"}, items=[], sightings=[]),
        old.save_many([make_result(job)]),
        old.keep_jobs([NewJob(job=job)]),
        old.record_action(Action(what="note")),
        old.hold("alerts", "old"),
    ):
        with pytest.raises(Superseded, match="another process took over 'alerts'"):
            await refused
    assert await reader.load_state("alerts/cursor") is None
    assert await reader.load_state("items/state") is None
    assert await reader.last_seq() == 0
    await new.commit_alerts(state={"alerts/cursor": b"8"}, alerts=[alert], deliveries=[])
    await reader.save_many([make_result(job)])  # who holds nothing is asked for nothing
    assert await reader.load_state("alerts/cursor") == b"8"


async def test_a_close_gives_it_up_and_a_late_one_takes_nothing_away(results_url: str) -> None:
    one, two, three = (open_results(results_url) for _ in range(3))
    await one.upgrade()
    seen = await one.hold("alerts", "one")
    await two.hold("alerts", "two", seen)
    await one.close()
    assert (await three.hold("alerts", "three")).holder == "two"
    await two.close()
    assert await three.hold("alerts", "three") == Holding(holder="three", beat=1)
    await three.close()
