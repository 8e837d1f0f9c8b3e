"""Deliveries as people look after them, silences, and what people did."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eyeline.core.cases import Decision, Timed
from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.stores.results import open_results
from eyeline.stores.results.base import (
    Action,
    AlertRow,
    ChannelState,
    DeliveryQuery,
    DeliveryRow,
    HistoryRow,
    ResultStore,
    SilenceRow,
)

NOON = datetime(2026, 3, 4, 12, 0, 0, 250_000, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


async def opened(store: ResultStore, site: str = "north", **changes: Any) -> AlertRow:
    values: dict[str, Any] = {
        "id": uuid7(),
        "rule": "dents",
        "cause": "belt-1",
        "site": site,
        "severity": "warning",
        "state": "open",
        "opened_at": NOON,
        "last_at": NOON,
        "count": 1,
        "result_id": uuid7(),
        "body": {"camera": "belt-1"},
    }
    alert = AlertRow(**(values | changes))
    await store.commit_alerts(state={}, alerts=[alert], deliveries=[])
    return alert


async def owed(store: ResultStore, alert_id: str = "", **changes: Any) -> DeliveryRow:
    values: dict[str, Any] = {
        "id": uuid7(),
        "alert_id": alert_id,
        "channel": "ops",
        "payload": b"told",
        "captured_at": NOON,
        "next_at": NOON,
    }
    row = DeliveryRow(**(values | changes))
    await store.commit_alerts(state={}, alerts=[], deliveries=[row])
    return row


def entry(alert: AlertRow, what: Timed = "escalate") -> HistoryRow:
    return HistoryRow(
        id=uuid7(), alert_id=alert.id, at=LATER, by="", what=what, version=alert.version, body={"tier": 1}
    )


async def test_the_clock_steps_only_where_the_alert_is_as_it_was(store: ResultStore) -> None:
    alert = await opened(store)
    row = DeliveryRow(
        id=uuid7(), alert_id=alert.id, channel="boss", payload=b"", captured_at=NOON, next_at=NOON, kind="escalation"
    )
    assert await store.step_alert(alert, entry(alert), [row], tier=1)
    assert not await store.step_alert(alert, entry(alert), [replace(row, id=uuid7())], tier=1)
    found = await store.get_alert(alert.id)
    assert found is not None
    assert found.tier == 1
    assert [each.channel for each in await store.list_deliveries(alert.id)] == ["boss"]
    assert len(await store.history(alert.id)) == 1
    assert (await store.tail(0, 10))[-1].body["tier"] == 1
    acknowledged = Decision(what="acknowledge", by="ana", at=LATER)
    await store.decide(acknowledged, {alert.id: None})
    assert not await store.step_alert(found, entry(alert), [replace(row, id=uuid7())], tier=2)


async def test_alerts_wake_when_their_snooze_is_over_unless_resolved(store: ResultStore) -> None:
    alerts = [await opened(store) for _ in range(2)]
    for alert in alerts:
        await store.decide(Decision(what="snooze", by="ana", at=NOON, until=LATER), {alert.id: None})
    await store.decide(Decision(what="resolve", by="ana", at=NOON, disposition="real"), {alerts[1].id: None})
    assert await store.waking(NOON, 10) == []
    [awake] = await store.waking(LATER, 10)
    assert awake.id == alerts[0].id
    assert await store.step_alert(awake, entry(awake, "wake"), [], tier=0)
    assert await store.waking(LATER, 10) == []


async def test_deliveries_are_found_with_the_site_of_their_alert_and_without_what_they_say(store: ResultStore) -> None:
    north, south = await opened(store), await opened(store, "south")
    first = await owed(store, north.id)
    second = await owed(store, south.id, channel="boss", state="failed")
    third = await owed(store, kind="output", site="south", state="delivered", answer="HTTP 204")

    async def found(**filters: Any) -> list[str]:
        return [row.id for row in (await store.find_deliveries(DeliveryQuery(**filters)))[0]]

    assert await found() == [third.id, second.id, first.id]
    assert await found(sites=["south"]) == [third.id, second.id]
    assert await found(channel="boss") == await found(state="failed") == [second.id]
    assert await found(kind="output") == [third.id]
    page, cursor = await store.find_deliveries(DeliveryQuery(limit=2))
    assert [row.payload for row in page] == [b"", b""]
    assert await found(cursor=cursor) == [first.id]
    one = await store.get_delivery(second.id)
    assert one is not None
    assert (one.site, one.payload) == ("south", b"told")


async def test_only_what_has_failed_is_due_again_under_its_id_from_the_first_attempt_on(store: ResultStore) -> None:
    row = await owed(store, state="failed", attempts=10, last_error="HTTP 500")
    action = Action(what="delivery.retry", by="ana")
    assert await store.retry_delivery(row.id, LATER, action)
    assert not await store.retry_delivery(row.id, LATER, action)
    [due] = await store.due_deliveries(LATER, 10)
    assert (due.id, due.attempts, due.payload, due.last_error) == (row.id, 0, b"told", "HTTP 500")
    assert len(await store.unsealed(10)) == 1


async def test_each_channel_has_its_own_line(store: ResultStore) -> None:
    for channel in ("slow", "slow", "fast", "gone"):
        await owed(store, channel=channel)
    assert [row.channel for row in await store.due_deliveries(LATER, 10, "fast")] == ["fast"]
    assert [row.channel for row in await store.due_deliveries(LATER, 10, but=["slow", "fast"])] == ["gone"]


async def test_a_summary_takes_the_place_of_what_was_held(store: ResultStore) -> None:
    held = [await owed(store, state="held", next_at=LATER) for _ in range(2)]
    assert await store.held_deliveries(NOON, 10) == []
    assert [row.id for row in await store.held_deliveries(LATER, 10)] == [row.id for row in held]
    summary = replace(held[0], id=uuid7(), state="pending", kind="summary")
    for _ in range(2):
        await store.summarise([row.id for row in held], summary)
    assert await store.held_deliveries(LATER, 10) == []
    assert [row.id for row in await store.due_deliveries(LATER, 10)] == [summary.id]


async def test_old_deliveries_of_a_kind_are_forgotten_but_not_what_failed(store: ResultStore) -> None:
    await owed(store, kind="output", state="delivered")
    kept = [await owed(store, kind="output", state="failed"), await owed(store, state="delivered")]
    kept.append(await owed(store, kind="output", state="delivered", next_at=LATER))
    assert await store.forget_deliveries("output", LATER) == 1
    left = (await store.find_deliveries(DeliveryQuery()))[0]
    assert {row.id for row in left} == {row.id for row in kept}


async def test_a_silence_lasts_until_it_is_over_or_ended_and_both_are_recorded(store: ResultStore) -> None:
    mute = SilenceRow(id=uuid7(), reason="lamp", by="ana", since=NOON, rule="dents", camera="belt-1", until=LATER)
    weekly = SilenceRow(id=uuid7(), reason="cleaning", by="ana", since=NOON, site="north", weekly=("Sat 06:00-14:00",))
    before = utcnow()
    for silence in (mute, weekly):
        await store.add_silence(silence, Action(what="silence", by="ana", body={"id": silence.id}))
    assert await store.silences(NOON) == [mute, weekly]
    assert await store.silences(LATER) == [weekly]
    assert await store.end_silence(weekly.id, LATER, Action(what="silence.end", by="ben"))
    assert not await store.end_silence(weekly.id, LATER + timedelta(hours=1), Action(what="silence.end", by="ben"))
    assert await store.silences(LATER) == []
    done = await store.actions(before - timedelta(seconds=1), utcnow() + timedelta(seconds=1), 10)
    assert [(each["what"], each["by"]) for each in done] == [("silence", "ana")] * 2 + [("silence.end", "ben")]
    assert await store.actions(before - timedelta(days=2), before - timedelta(days=1), 10) == []


async def test_the_history_of_a_site_is_that_of_its_alerts_in_that_time(store: ResultStore) -> None:
    north, south = await opened(store), await opened(store, "south")
    for alert in (north, south):
        await store.decide(Decision(what="note", by="ana", at=NOON, note="seen"), {alert.id: None})
    now = utcnow()
    found = await store.site_history("north", now - timedelta(minutes=5), now + timedelta(minutes=5), 10)
    assert [each.alert_id for each in found] == [north.id]
    assert await store.site_history("north", now + timedelta(hours=1), now + timedelta(hours=2), 10) == []


async def test_how_a_channel_does_is_told_by_what_waits_failed_and_arrived_last(store: ResultStore) -> None:
    north, south = await opened(store), await opened(store, site="south")
    await owed(store, north.id, state="delivered", delivered_at=LATER)
    await owed(store, south.id, state="failed", last_error="HTTP 500", attempts=10)
    await owed(store, north.id, captured_at=NOON - timedelta(minutes=1))
    await owed(store, north.id, last_error="not reached", attempts=1)
    await owed(store, south.id, state="held", captured_at=NOON - timedelta(hours=1))
    await owed(store, north.id, channel="mail", state="failed", last_error="451")
    await owed(store, north.id, channel="mail", state="delivered", delivered_at=LATER)
    told = await store.channel_states(["ops", "mail", "new"])
    assert told["ops"] == ChannelState(
        waiting=2, held=1, failed=1, since=NOON - timedelta(minutes=1), delivered_at=LATER, error="not reached"
    )
    assert told["mail"] == ChannelState(failed=1, delivered_at=LATER)
    assert told["new"] == ChannelState()
    [south_only] = (await store.channel_states(["ops"], sites=["south"])).values()
    assert (south_only.waiting, south_only.held, south_only.error) == (0, 1, "HTTP 500")
    found, _ = await store.find_deliveries(DeliveryQuery(state="failed", sites=["south"]))
    assert [row.last_error for row in found] == ["HTTP 500"]
