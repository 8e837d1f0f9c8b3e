"""A stream with known answers, and an engine that dies at every commit: nothing is missed, nothing has two ids."""

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eyeline.alerts import engine as engine_module
from eyeline.alerts.engine import AlertEngine
from eyeline.alerts.rules import Rule, compile_rule
from eyeline.alerts.sender import Sender
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.ids import uuid7
from eyeline.core.settings import rule_of
from eyeline.core.types import Classification, Result
from eyeline.stores.results import open_results, rows
from eyeline.stores.results.base import AlertQuery, AlertRow, DeliveryRow, ResultStore
from eyeline.stores.results.sql import SqlResults

CAMERAS, FRAMES, EVERY = 4, 500, 100  # 2,000 results; each camera has a burst of three in a hundred frames
IDENTICAL = 10_000
RULES: list[dict[str, Any]] = [
    {"name": "instant", "when": "label == 'damaged'", "cooldown": "5s"},
    {"name": "two of five", "when": "label == 'damaged'", "count": 2, "of": 5, "cooldown": "5s"},
    {"name": "within", "when": "label == 'damaged'", "count": 3, "within": "10s", "cooldown": "5s"},
    {"name": "clears", "when": "label == 'damaged'", "clear_after": "20s", "cooldown": "5s"},
    {"name": "share", "when": "label == 'damaged'", "share": 0.2, "of": 10, "cooldown": "5s"},
]


class Killed(Exception):
    """The process ended here."""


class Mortal:
    """The store of an engine that dies at its first commit after the start: before it is done, or right after. What it was to
    commit is noted.
    """

    def __init__(self, store: ResultStore, noted: dict[Any, set[str]], *, after: bool) -> None:
        self._store = store
        self._noted = noted
        self._after = after
        self._commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit_alerts(self, **what: Any) -> None:
        self._commits += 1
        for alert in what["alerts"]:
            self._noted[alert.rule, alert.cause, alert.opened_at].add(alert.id)
        for delivery in what["deliveries"]:
            self._noted[delivery.alert_id, delivery.channel].add(delivery.id)
        if self._commits > 1 and not self._after:
            raise Killed
        await self._store.commit_alerts(**what)
        if self._commits > 1:
            raise Killed


def the_rules() -> list[Rule]:
    return [compile_rule(rule_of({**rule, "notify": ["ops", "log"]})) for rule in RULES]


def the_stream(start: datetime) -> list[Result]:
    """One frame a second and camera; frames 50 to 52 of every hundred show damage."""
    results = []
    for number in range(FRAMES):
        for camera in range(CAMERAS):
            moment = start + timedelta(seconds=number)
            label = "damaged" if number % EVERY in {50, 51, 52} else "intact"
            found = [Classification(label, 0.9, "find")]
            results.append(
                Result(
                    id=uuid7(),
                    status="completed",
                    site="north",
                    pipeline="parcels",
                    camera=f"belt-{camera}",
                    captured_at=moment,
                    received_at=moment,
                    completed_at=moment,
                    classifications=found,
                )
            )
    return results


async def live(engine: AlertEngine) -> None:
    """Work as the role does, without an end."""
    while True:
        await engine.step()
        await engine.keep()


async def every_alert(store: ResultStore) -> list[AlertRow]:
    return (await store.find_alerts(AlertQuery(limit=500)))[0]


async def test_an_engine_that_dies_at_every_commit_misses_nothing_and_gives_no_second_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PAGE", 100)
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    rules = the_rules()
    await AlertEngine(rules, store).load()
    start = utcnow()
    stream = the_stream(start)
    for first in range(0, len(stream), 500):
        await store.save_many(stream[first : first + 500])
    noted: dict[Any, set[str]] = defaultdict(set)
    end, deaths = await store.last_seq(), 0
    while int((await store.load_state(engine_module.CURSOR)) or 0) < end:
        deaths += 1
        assert deaths < 500, "it gets nowhere"
        mortal = AlertEngine(rules, Mortal(store, noted, after=deaths % 2 == 0))
        await mortal.load()
        with pytest.raises(Killed):
            await live(mortal)
    last = AlertEngine(rules, store)
    await last.load()
    while (await last.step())[0]:
        pass
    await last.keep()
    bursts = [start + timedelta(seconds=first) for first in range(50, FRAMES, EVERY)]
    first_frame = {"instant": 0, "two of five": 1, "within": 2, "clears": 0, "share": 2}
    expected = {
        (rule, f"belt-{camera}", burst + timedelta(seconds=frame))
        for rule, frame in first_frame.items()
        for camera in range(CAMERAS)
        for burst in bursts
    }
    alerts = await every_alert(store)
    told = [(alert.rule, str(alert.body["camera"]), alert.opened_at) for alert in alerts]
    assert (len(told), set(told)) == (len(expected), expected)  # missed 0, repeated 0
    assert {alert.count for alert in alerts} == {3}
    assert {alert.rule for alert in alerts if "cleared_at" in alert.body} == {"clears", "share"}
    assert [ids for ids in noted.values() if len(ids) != 1] == []  # no second id, though most were made more than once
    owed = await store.due_deliveries(utcnow() + timedelta(hours=1), 1000)
    assert len(owed) == 2 * len(alerts)
    assert {(row.alert_id, row.channel) for row in owed} == {
        (alert.id, to) for alert in alerts for to in ("ops", "log")
    }
    assert deaths >= 40
    await store.close()


class Deaf:
    """A channel whose answers come when they are let go; it got what it got."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answers = asyncio.Event()

    async def send(self, delivery: DeliveryRow) -> str:
        self.got.append(delivery.id)
        await self.answers.wait()
        return "200"

    async def close(self) -> None:
        """Nothing is held."""


async def died(sender: Sender, channel: Deaf) -> None:
    """It sends, and its process ends before an answer comes."""
    await sender.look()
    async with asyncio.timeout(20):
        while not channel.got:
            await asyncio.sleep(0)
    attempts = sender._under_way()
    for attempt in attempts:
        attempt.cancel()
    await asyncio.gather(*attempts, return_exceptions=True)


async def test_ten_thousand_identical_events_are_one_case_and_one_notification_whoever_takes_over(
    tmp_path: Path,
) -> None:
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    assert isinstance(store, SqlResults)
    await store.upgrade()
    now = utcnow()
    rule = compile_rule(rule_of({"name": "damaged", "when": "label == 'damaged'", "notify": ["ops"]}))
    first = AlertEngine([rule], store, clock=lambda: now)
    await first.load()
    hit = next(result for result in the_stream(now) if result.classifications[0].label == "damaged")
    await store.save_many([hit])
    same, add = [rows.event_row(hit, isoformat(now))] * (IDENTICAL - 1), store._statements.add_event
    await store._writer.write(lambda cursor: add.many(cursor, same))
    due = [(await first.step())[1] for _ in range(10)]
    assert due == [True] + [False] * 9  # one notification is owed, and it was said once
    # the first one is stopped after its commit, and has sent nothing
    second = AlertEngine([rule], store, clock=lambda: now)
    await second.load()
    while (await second.step())[0]:
        pass
    await second.keep()
    [alert] = await every_alert(store)
    assert alert.count == IDENTICAL
    channel = Deaf()
    await died(Sender({"ops": channel}, store, clock=lambda: now), channel)
    channel.answers.set()
    last = Sender({"ops": channel}, store, clock=lambda: now)
    for _ in range(3):
        await last.look()
        await last.settled()
    [delivery] = await store.list_deliveries(alert.id)
    assert delivery.state == "delivered"
    assert channel.got == [delivery.id] * 2  # once more, for it died while it sent, and under the same id
    await store.close()
