"""What the clock does: escalations, snoozes, silences and quiet hours, each once, whatever dies in between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyeline.alerts.policy import Policy
from eyeline.alerts.sender import Sender
from eyeline.alerts.upkeep import Upkeep
from eyeline.core.cases import Decision, Decisive
from eyeline.core.errors import ChannelError, StoreError
from eyeline.core.ids import uuid7
from eyeline.core.settings import ChannelSettings, EscalationSettings, SilenceSettings, SiteSettings
from eyeline.stores.results.base import Action, AlertRow, DeliveryRow, ResultStore, SilenceRow
from tests.migrated import migrated

NIGHT = datetime(2026, 1, 5, 23, tzinfo=UTC)
SITES = [SiteSettings(name="north", timezone="Europe/Berlin")]
CHANNELS = [
    ChannelSettings(name="ops", url="https://example.com", quiet=["22:00-06:00"]),
    ChannelSettings(name="boss", url="https://b"),
]


class Clock:
    now = NIGHT

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time: float) -> None:
        self.now += timedelta(**time)


class Phone:
    """A channel that keeps what it is told, unless it is out of order."""

    def __init__(self) -> None:
        self.got: list[DeliveryRow] = []
        self.dead = False

    async def send(self, delivery: DeliveryRow) -> str:
        if self.dead:
            raise ChannelError("nobody answers")
        self.got.append(delivery)
        return "ok"

    async def close(self) -> None:
        pass

    @property
    def kinds(self) -> list[str]:
        return [row.kind for row in self.got]


class House:
    """A store, two channels, and a clock that the test sets."""

    def __init__(self, store: ResultStore, **settings: Any) -> None:
        self.store = store
        self.clock = Clock()
        self.phones = {"ops": Phone(), "boss": Phone()}
        policy = Policy(SITES, CHANNELS, **settings)
        self.upkeep = Upkeep(policy, store, lambda: None, clock=self.clock)
        self.sender = Sender(self.phones, store, gate=self.upkeep.gate, clock=self.clock)

    async def alert(self, channel: str = "boss", **changes: Any) -> AlertRow:
        values: dict[str, Any] = {
            "id": uuid7(),
            "rule": "dents",
            "cause": "belt-1",
            "site": "north",
            "severity": "warning",
            "state": "open",
            "opened_at": self.clock.now,
            "last_at": self.clock.now,
            "count": 1,
            "result_id": uuid7(),
            "body": {"camera": "belt-1"},
        }
        alert = AlertRow(**(values | changes))
        row = DeliveryRow(
            id=uuid7(),
            alert_id=alert.id,
            channel=channel,
            payload=b'{"text":"x"}',
            captured_at=alert.opened_at,
            next_at=self.clock.now,
        )
        await self.store.commit_alerts(state={}, alerts=[alert], deliveries=[row])
        return alert

    async def decide(self, alert: AlertRow, what: Decisive, **more: Any) -> None:
        await self.store.decide(Decision(what=what, by="ana", at=self.clock.now, **more), {alert.id: None})

    async def go_on(self, **time: float) -> None:
        self.clock.pass_by(**time)
        await self.upkeep.round()
        await self.sender.look()
        await self.sender.settled()

    async def states(self, alert: AlertRow) -> list[str]:
        return [row.state for row in await self.store.list_deliveries(alert.id)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    results = await migrated(tmp_path)
    yield results
    await results.close()


TIERS = [
    EscalationSettings(after=1200, notify=["boss", "ops"], severity=["critical"]),
    EscalationSettings(after=600, notify=["boss"]),
]


async def test_an_alert_that_nobody_acknowledges_goes_up_once_a_tier(store: ResultStore) -> None:
    house = House(store, escalations=TIERS)
    alert = await house.alert("ops", severity="critical")
    await house.go_on(seconds=599)
    assert house.phones["boss"].got == []
    for _ in range(3):
        await house.go_on(seconds=1)
    assert house.phones["boss"].kinds == ["escalation"]
    assert "nobody acknowledged" in msgspec.json.decode(house.phones["boss"].got[0].payload)["text"]
    for _ in range(3):
        await house.go_on(seconds=600)
    assert house.phones["boss"].kinds == ["escalation", "escalation"]
    assert house.phones["ops"].kinds == ["alert", "escalation"]
    assert [entry.what for entry in await store.history(alert.id)] == ["escalate", "escalate"]
    found = await store.get_alert(alert.id)
    assert found is not None
    assert (found.tier, found.version) == (2, 0)


async def test_who_acknowledges_or_resolves_in_time_is_left_in_peace(store: ResultStore) -> None:
    house = House(store, escalations=TIERS)
    for what, more in (
        ("acknowledge", {}),
        ("resolve", {"disposition": "real"}),
        ("snooze", {"until": NIGHT + timedelta(days=1)}),
    ):
        await house.decide(await house.alert("boss"), what, **more)  # type: ignore[arg-type]
    await house.alert("boss", opened_at=NIGHT - timedelta(days=3))  # before there were escalations
    await house.go_on(seconds=4000)
    assert "escalation" not in house.phones["boss"].kinds


async def test_a_snooze_is_silent_and_then_tells_again_those_who_were_told(store: ResultStore) -> None:
    house = House(store, escalations=TIERS)
    alert = await house.alert()
    await house.go_on()
    await house.decide(alert, "snooze", until=house.clock.now + timedelta(minutes=15))
    await house.go_on(minutes=14)
    assert house.phones["boss"].kinds == ["alert"]
    for _ in range(2):
        await house.go_on(minutes=1)
    assert sorted(house.phones["boss"].kinds) == ["alert", "escalation", "reminder"]
    assert (await store.get_alert(alert.id)).snoozed_until is None  # type: ignore[union-attr]
    other = await house.alert()
    await house.decide(other, "snooze", until=house.clock.now + timedelta(minutes=5))
    await house.decide(other, "resolve", disposition="false")
    await house.go_on(minutes=6)
    assert [row.kind for row in house.phones["boss"].got if row.alert_id == other.id] == ["alert"]


async def test_quiet_hours_hold_back_and_end_in_one_summary(store: ResultStore) -> None:
    house = House(store)
    held = [await house.alert("ops") for _ in range(3)]
    critical = await house.alert("ops", severity="critical")
    await house.go_on()
    assert [row.alert_id for row in house.phones["ops"].got] == [critical.id]
    assert await house.states(held[0]) == ["held"]
    await house.decide(held[0], "resolve", disposition="false")
    for _ in range(3):
        await house.go_on(hours=3)
    assert house.phones["ops"].kinds == ["alert", "summary"]
    told = msgspec.json.decode(house.phones["ops"].got[1].payload)
    assert told["text"].startswith("3 alerts in quiet hours, 2 of them not resolved")
    assert {each["id"] for each in told["data"]["alerts"]} == {alert.id for alert in held}
    assert [await house.states(alert) for alert in held] == [["summarised"]] * 3
    await house.alert("ops")
    await house.go_on()
    assert house.phones["ops"].kinds == ["alert", "summary", "alert"]


async def test_what_is_silenced_is_recorded_with_the_reason_and_never_sent(store: ResultStore) -> None:
    window = SilenceSettings(reason="belt is cleaned", site="north", weekly=["Tue 00:00-02:00"])
    house = House(store, silences=[window])
    during = await house.alert()
    mute = SilenceRow(
        id=uuid7(),
        reason="lamp flickers",
        by="ana",
        since=NIGHT,
        camera="dock",
        rule="dents",
        until=NIGHT + timedelta(hours=5),
    )
    await store.add_silence(mute, Action(what="silence"))
    house.clock.pass_by(hours=3)
    muted = await house.alert(body={"camera": "dock"}, severity="critical")
    other = await house.alert()
    await house.go_on()
    [row] = await store.list_deliveries(during.id)
    assert (row.state, row.last_error) == ("silenced", "not sent: silenced, belt is cleaned")
    assert await house.states(muted) == ["silenced"]
    assert [got.alert_id for got in house.phones["boss"].got] == [other.id]
    house.clock.pass_by(hours=3)
    later = await house.alert(body={"camera": "dock"})
    await house.go_on()
    assert await house.states(later) == ["delivered"]


async def test_an_attempt_that_ends_while_the_table_is_read_is_not_made_again(store: ResultStore) -> None:
    house = House(store)
    answers = asyncio.Event()
    phone = house.phones["boss"]

    class Slow:
        """Reads, and answers only when what was under way has ended."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def due_deliveries(self, *asked: Any, **more: Any) -> list[DeliveryRow]:
            found = await store.due_deliveries(*asked, **more)
            answers.set()
            await house.sender.settled()
            return found

    async def send(delivery: DeliveryRow) -> str:
        await answers.wait()
        phone.got.append(delivery)
        return "ok"

    phone.send = send  # type: ignore[method-assign]
    await house.alert()
    await house.sender.look()
    house.sender._results = Slow()
    await house.sender.look()
    await house.sender.settled()
    assert phone.kinds == ["alert"]


class Dying:
    """A store that fails once: before what it is asked, or after it was done and before it could say so."""

    def __init__(self, store: ResultStore, method: str, after: bool) -> None:
        self._store, self._method, self._after, self._failed = store, method, after, False

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._store, name)
        if name != self._method or self._failed:
            return asked

        async def dies(*args: Any, **kwargs: Any) -> Any:
            self._failed = True
            if self._after:
                await asked(*args, **kwargs)
            raise StoreError("the power is gone")

        return dies


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["step_alert", "summarise", "get_alert", "held_deliveries", "waking"])
async def test_a_death_at_any_commit_misses_nothing_and_repeats_nothing_under_a_new_id(
    store: ResultStore, method: str, after: bool
) -> None:
    """Once the escalation, once the reminder, once the summary: what is told twice has one id."""
    house = House(store, escalations=TIERS[1:])
    dying: Any = Dying(store, method, after)
    await house.alert()
    snoozed = await house.alert()
    await house.decide(snoozed, "snooze", until=NIGHT + timedelta(minutes=5))
    await house.decide(snoozed, "acknowledge")
    await house.alert("ops")
    for minutes in (0, 6, 6, 0, 400, 0):
        house.clock.pass_by(minutes=minutes)
        victim = Upkeep(house.upkeep._policy, dying, lambda: None, clock=house.clock)
        try:
            await victim.round()
        except StoreError:
            continue  # killed; the next one starts anew
        house.sender._gate = victim.gate
        await house.sender.look()
        await house.sender.settled()
    await house.go_on()
    boss, ops = house.phones["boss"].got, house.phones["ops"].got
    assert sorted({(row.kind, row.id) for row in boss}) == sorted((row.kind, row.id) for row in boss)
    told = Counter(row.kind for row in boss)
    assert (told["escalation"], told["reminder"]) == (2, 1)
    assert 1 <= told["alert"] <= 2  # the snoozed one, too, where nobody was there to send it before the snooze was over
    assert [row.kind for row in ops] == ["summary"]


class Fickle(Phone):
    """Answers with an error, not in time, or with a bug, before it takes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.moods: list[Exception] = [
            ChannelError("HTTP 500"),
            TimeoutError(),
            ValueError("a bug"),
            ChannelError("HTTP 503"),
        ]

    async def send(self, delivery: DeliveryRow) -> str:
        if self.moods:
            raise self.moods.pop()
        return await super().send(delivery)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["due_deliveries", "get_alert", "update_delivery"])
async def test_a_sender_killed_on_any_line_misses_nothing_and_repeats_under_the_same_id(
    store: ResultStore, method: str, after: bool
) -> None:
    house = House(store)
    phone = house.phones["boss"] = Fickle()
    alerts = [await house.alert() for _ in range(8)]
    dying: Any = Dying(store, method, after)
    killed = False
    while await store.due_deliveries(house.clock.now, 10):
        gate = Upkeep(house.upkeep._policy, dying, lambda: None, clock=house.clock).gate
        sender = Sender(house.phones, dying, gate=gate, clock=house.clock)
        try:
            await sender.look()
            while sender._under_way() and (killed or not dying._failed):
                await asyncio.sleep(0.002)
        except StoreError:
            pass
        killed = dying._failed
        for task in sender._under_way():
            task.cancel()  # the next one starts anew
        await asyncio.gather(*sender._under_way(), return_exceptions=True)
        house.clock.pass_by(minutes=10)
    assert killed
    assert {row.alert_id for row in phone.got} == {alert.id for alert in alerts}
    assert len({row.id for row in phone.got}) == len(alerts)
    assert len(phone.got) <= len(alerts) + 4  # at most what was under way at the death comes twice
    assert {tuple(await house.states(alert)) for alert in alerts} == {("delivered",)}
