"""What people decide on alerts: kept beside what the engine says, once, in order, and told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eyeline.core.cases import Decision, Decisive
from eyeline.core.ids import uuid7
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertHour, AlertQuery, AlertRow, Decided, ResultStore

NOON = datetime(2026, 3, 4, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


async def opened(store: ResultStore, **changes: Any) -> AlertRow:
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
        "body": {"label": "dent", "camera": "belt-1"},
    }
    alert = AlertRow(**(values | changes))
    await store.commit_alerts(state={}, alerts=[alert], deliveries=[])
    return alert


def decision(what: Decisive, by: str = "ana", **more: Any) -> Decision:
    return Decision(**{"what": what, "by": by, "at": NOON + timedelta(minutes=1), **more})


async def decide(
    store: ResultStore, alert: AlertRow, what: Decisive, by: str = "ana", version: int | None = None, **more: Any
) -> Decided:
    [done] = await store.decide(decision(what, by, **more), {alert.id: version})
    return done


async def now(store: ResultStore, alert: AlertRow) -> AlertRow:
    found = await store.get_alert(alert.id)
    assert found is not None
    return found


async def test_a_decision_is_kept_with_who_and_when_told_and_audited(store: ResultStore) -> None:
    alert = await opened(store)
    done = await decide(store, alert, "acknowledge", note="on my way")
    assert done.outcome == "changed"
    after = await now(store, alert)
    assert after == done.alert
    assert (after.state, after.version, after.changed_by) == ("acknowledged", 1, "ana")
    [entry] = await store.history(alert.id)
    assert (entry.what, entry.by, entry.at, entry.version) == ("acknowledge", "ana", NOON + timedelta(minutes=1), 1)
    assert entry.body["note"] == "on my way"
    assert entry.body["before"]["state"] == "open"
    events = await store.tail(0, 10)
    assert [event.body["state"] for event in events] == ["open", "acknowledged"]
    [record] = await store.unsealed(10, bodies=True)
    assert record.kind == "action"
    assert b'"alert.acknowledge"' in (record.body or b"")


async def test_the_engine_overwrites_nothing_that_people_decided(store: ResultStore) -> None:
    alert = await opened(store)
    await decide(store, alert, "assign", to="ben")
    await decide(store, alert, "acknowledge")
    later = replace(alert, count=7, last_at=NOON + timedelta(hours=1))
    await store.commit_alerts(state={}, alerts=[later], deliveries=[])
    after = await now(store, alert)
    assert (after.state, after.assignee, after.version) == ("acknowledged", "ben", 2)
    assert (after.count, after.last_at) == (7, NOON + timedelta(hours=1))
    told = (await store.tail(0, 10))[-1].body
    assert (told["state"], told["assignee"], told["count"]) == ("acknowledged", "ben", 7)


async def test_the_engine_may_say_that_an_alert_is_over(store: ResultStore) -> None:
    alert = await opened(store)
    await decide(store, alert, "acknowledge")
    await store.commit_alerts(state={}, alerts=[replace(alert, state="resolved")], deliveries=[])
    assert ((await now(store, alert)).state, (await now(store, alert)).disposition) == ("resolved", None)


async def test_what_is_so_already_changes_nothing_however_old_the_version(store: ResultStore) -> None:
    alert = await opened(store)
    await decide(store, alert, "acknowledge", version=0)
    again = await decide(store, alert, "acknowledge", version=0)
    assert again.outcome == "unchanged"
    assert len(await store.history(alert.id)) == 1


async def test_a_newer_state_is_a_conflict_and_stays(store: ResultStore) -> None:
    alert = await opened(store)
    await decide(store, alert, "resolve", disposition="false")
    late = await decide(store, alert, "acknowledge", "ben", version=0)
    assert late.outcome == "conflict"
    assert late.alert is not None
    assert late.alert.state == "resolved"
    stale = await decide(store, alert, "reopen", "ben", version=0)
    assert (stale.outcome, "ana" in stale.why) == ("conflict", True)
    assert len(await store.history(alert.id)) == 1


async def test_undo_brings_back_what_stood_before_as_one_more_entry(store: ResultStore) -> None:
    alert = await opened(store)
    await decide(store, alert, "snooze", until=NOON + timedelta(hours=1))
    await decide(store, alert, "resolve", disposition="real")
    undone = await decide(store, alert, "undo", version=2)
    assert undone.alert is not None
    assert (undone.alert.state, undone.alert.disposition) == ("open", None)
    assert undone.alert.snoozed_until == NOON + timedelta(hours=1)
    assert (await decide(store, alert, "undo", version=2)).outcome == "unchanged"  # its answer was lost
    assert [entry.what for entry in await store.history(alert.id)] == ["snooze", "resolve", "undo"]
    assert (await decide(store, await opened(store), "undo")).outcome == "conflict"


async def test_a_note_is_kept_once_and_changes_no_version(store: ResultStore) -> None:
    alert = await opened(store)
    for _ in range(2):
        await decide(store, alert, "note", note="glue on the belt")
    await decide(store, alert, "note", "ben", note="glue on the belt")
    assert [(entry.by, entry.version) for entry in await store.history(alert.id)] == [("ana", 0), ("ben", 0)]
    assert (await now(store, alert)).version == 0
    assert len(await store.tail(0, 10)) == 3


async def test_many_are_decided_at_once_and_one_conflict_stops_no_other(store: ResultStore) -> None:
    alerts = [await opened(store, site=site) for site in ("north", "north", "south")]
    await decide(store, alerts[0], "resolve", disposition="test")
    asked: dict[str, int | None] = dict.fromkeys([*(alert.id for alert in reversed(alerts)), "nobody"])
    done = await store.decide(decision("acknowledge"), asked, sites=["north"])
    assert [one.id for one in done] == list(asked)
    assert [one.outcome for one in done] == ["unknown", "changed", "conflict", "unknown"]


async def test_of_many_who_decide_at_once_one_wins(store: ResultStore) -> None:
    alert = await opened(store)
    names = [f"p{number}" for number in range(8)]
    done = await asyncio.gather(*(decide(store, alert, "assign", name, version=0, to=name) for name in names))
    assert sorted(one.outcome for one in done) == ["changed"] + ["conflict"] * 7
    assert (await now(store, alert)).version == 1


async def test_alerts_are_found_by_what_is_asked(store: ResultStore) -> None:
    later = NOON + timedelta(hours=1)
    first = await opened(store)
    other = {"site": "south", "rule": "holes", "severity": "critical", "body": {"camera": "dock"}, "opened_at": later}
    second = await opened(store, **other)
    await decide(store, first, "assign", to="ben")
    await decide(store, second, "snooze", until=NOON + timedelta(hours=2))

    async def found(**filters: Any) -> list[str]:
        return [row.id for row in (await store.find_alerts(AlertQuery(**filters)))[0]]

    for name, value in {"severity": "critical", "site": "south", "camera": "dock", "rule": "holes"}.items():
        assert await found(**{name: value}) == [second.id], name
    assert await found(assignee="ben") == await found(until=later) == [first.id]
    assert await found(since=later) == [second.id]
    assert await found(snoozed=True, now=NOON) == [second.id]
    assert await found(snoozed=False, now=NOON) == [first.id]
    assert await found(snoozed=False, now=NOON + timedelta(hours=3)) == [second.id, first.id]
    await decide(store, first, "resolve", disposition="false")
    assert await found(states=["resolved"]) == await found(disposition="false") == [first.id]
    assert await found(states=["open", "acknowledged"]) == [second.id]


async def test_alerts_are_counted_by_the_hour_in_which_they_were_opened(store: ResultStore) -> None:
    for minutes in (0, 59, 60, -61):
        await opened(store, opened_at=NOON + timedelta(minutes=minutes))
    await opened(store, site="south", body={"label": "dent"})
    noon = AlertHour(rule="dents", camera="belt-1", site="north", start=NOON.replace(microsecond=0), count=2)
    later = replace(noon, start=noon.start + timedelta(hours=1), count=1)
    since = NOON + timedelta(minutes=40)  # the whole of its hour counts
    found = await store.alert_hours(since=since, sites=["north"])
    assert sorted(found, key=lambda hour: hour.start) == [noon, later]
    everywhere = await store.alert_hours(since=since)
    assert replace(noon, site="south", camera=None, count=1) in everywhere
    assert len(everywhere) == 3
