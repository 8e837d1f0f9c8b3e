"""The engine on a real event log: nothing missed, nothing under a second id, whatever line it dies on."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyeline.alerts import agents as agents_module
from eyeline.alerts import engine as engine_module
from eyeline.alerts.engine import AlertEngine
from eyeline.alerts.rules import Rule, compile_rule
from eyeline.core.cases import Decision
from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.errors import StoreError
from eyeline.core.ids import derived_id, is_uuid, uuid7
from eyeline.core.settings import RuleSettings, rule_of
from eyeline.core.types import Classification, Detection, Result
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ENGINE_CHECKED, AlertQuery, AlertRow, DeliveryRow, ResultStore, RuleRow

BOX = (0.0, 0.0, 10.0, 10.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    results = open_results(f"sqlite:///{tmp_path}/results.db")
    await results.upgrade()
    yield results
    await results.close()


def a_rule(**fields: Any) -> Rule:
    known = {"name": "damaged parcel", "when": "label == 'damaged'", "notify": ["ops"]}
    return compile_rule(RuleSettings(**{**known, **fields}))


def a_result(captured_at: datetime | None = None, label: str = "damaged", **fields: Any) -> Result:
    moment = captured_at or utcnow()
    known: dict[str, Any] = {
        "id": uuid7(),
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "captured_at": moment,
        "received_at": moment,
        "completed_at": moment,
        "classifications": [Classification(label, 0.93, "damage")],
    }
    return Result(**{**known, **fields})


async def an_engine(store: ResultStore, *rules: Rule) -> AlertEngine:
    engine = AlertEngine(rules or [a_rule()], store)
    await engine.load()
    return engine


async def read_all(engine: AlertEngine) -> None:
    while (await engine.step())[0]:
        pass
    await engine.keep()


async def alerts(store: ResultStore) -> list[AlertRow]:
    return (await store.find_alerts(AlertQuery(limit=100)))[0]


async def due(store: ResultStore) -> list[DeliveryRow]:
    return await store.due_deliveries(utcnow() + timedelta(seconds=1), 100)


async def test_a_matching_result_opens_an_alert_and_owes_a_notification(store: ResultStore) -> None:
    engine = await an_engine(store)
    result = a_result()
    await store.save_many([a_result(label="fine"), result])
    await read_all(engine)
    [alert] = await alerts(store)
    assert (alert.rule, alert.cause, alert.site, alert.severity) == (
        "damaged parcel",
        '{"site":"north","camera":"belt-1","label":"damaged"}',
        "north",
        "warning",
    )
    assert (alert.state, alert.count, alert.result_id) == ("open", 1, result.id)
    assert alert.opened_at == result.captured_at
    [delivery] = await due(store)
    assert (delivery.alert_id, delivery.channel, delivery.captured_at) == (alert.id, "ops", result.captured_at)


async def test_the_notification_tells_the_alert_and_the_result(store: ResultStore) -> None:
    engine = await an_engine(store)
    result = a_result(ref="order 7")
    await store.save_many([result])
    await read_all(engine)
    [delivery] = await due(store)
    told = msgspec.json.decode(delivery.payload)
    assert told["type"] == "alert.opened"
    assert told["timestamp"] == isoformat(result.captured_at)
    assert told["text"] == "warning: damaged parcel (camera belt-1, damaged 0.93), site north"
    assert told["data"]["alert"]["cause"] == {"site": "north", "camera": "belt-1", "label": "damaged"}
    assert told["data"]["alert"]["hit"]["label"] == "damaged"
    assert msgspec.convert(told["data"]["result"], Result).ref == "order 7"


async def test_a_notification_stays_under_20_kb_with_the_best_boxes(store: ResultStore) -> None:
    engine = await an_engine(store)
    boxes = [Detection("damaged", n / 1000, BOX, "find", {"note": "x" * 50}) for n in range(1000)]
    await store.save_many([a_result(detections=boxes, classifications=[])])
    await read_all(engine)
    [delivery] = await due(store)
    assert len(delivery.payload) <= 20_000
    told = msgspec.json.decode(delivery.payload)["data"]["result"]
    assert told["detections"][0]["score"] == 0.999
    assert told["detections_omitted"] + len(told["detections"]) == 1000


async def test_a_failed_result_can_raise_an_alert(store: ResultStore) -> None:
    engine = await an_engine(store, a_rule(when="status == 'failed'"))
    await store.save_many([a_result(status="failed", reason="bad_image: cut off", classifications=[])])
    await read_all(engine)
    assert len(await alerts(store)) == 1


async def test_repeated_hits_update_one_alert_and_tell_nobody_again(store: ResultStore) -> None:
    engine = await an_engine(store)
    start = utcnow()
    for second in range(5):
        await store.save_many([a_result(start + timedelta(seconds=second))])
        await read_all(engine)
    [alert] = await alerts(store)
    assert alert.count == 5
    assert alert.last_at == start + timedelta(seconds=4)
    assert len(await due(store)) == 1


async def test_another_camera_is_another_alert(store: ResultStore) -> None:
    engine = await an_engine(store)
    await store.save_many([a_result(camera="belt-1"), a_result(camera="belt-2")])
    await read_all(engine)
    assert {alert.body["group"]["camera"] for alert in await alerts(store)} == {"belt-1", "belt-2"}


async def test_a_frame_that_comes_over_a_minute_late_calls_nobody(store: ResultStore) -> None:
    engine = await an_engine(store)
    now = utcnow()
    await store.save_many([a_result(now - timedelta(seconds=61), received_at=now)])
    await read_all(engine)
    assert await alerts(store) == []
    await store.save_many([a_result(now - timedelta(seconds=59), received_at=now)])
    await read_all(engine)
    assert len(await alerts(store)) == 1


async def test_a_camera_clock_that_is_ahead_does_not_end_windows(store: ResultStore) -> None:
    engine = await an_engine(store, a_rule(count=2, by=["site"]))
    now = utcnow()
    await store.save_many([a_result(now), a_result(now + timedelta(days=1), received_at=now)])
    await read_all(engine)
    [alert] = await alerts(store)
    assert alert.last_at == now


async def test_a_restart_goes_on_within_the_window_and_the_cool_down(store: ResultStore) -> None:
    rule, now = a_rule(count=2), utcnow()
    for _ in range(4):
        engine = await an_engine(store, rule)
        await store.save_many([a_result(now)])
        await read_all(engine)
    [alert] = await alerts(store)
    assert alert.count == 4
    assert len(await due(store)) == 1


async def test_a_rule_that_is_new_does_not_call_for_the_past(store: ResultStore) -> None:
    await read_all(await an_engine(store, a_rule()))
    await store.save_many([a_result(label="dent")])
    fresh = a_rule(name="dent", when="label == 'dent'")
    engine = await an_engine(store, a_rule(), fresh)
    await read_all(engine)
    assert await alerts(store) == []
    await store.save_many([a_result(label="dent")])
    await read_all(engine)
    assert [alert.rule for alert in await alerts(store)] == ["dent"]


async def test_what_is_recorded_before_the_very_first_start_ends_counts(store: ResultStore) -> None:
    await store.save_many([a_result()])
    await read_all(await an_engine(store))
    assert len(await alerts(store)) == 1


class Killed(Exception):
    """The process ended here."""


class Dying:
    """The store of a process that dies at its n-th commit, before it or right after it."""

    def __init__(self, store: ResultStore, commits: int, *, after: bool) -> None:
        self._store = store
        self._left = commits
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit_alerts(self, **what: Any) -> None:
        self._left -= 1
        if self._left <= 0 and not self._after:
            raise Killed
        await self._store.commit_alerts(**what)
        if self._left <= 0:
            raise Killed


async def live(engine: AlertEngine) -> None:
    """Work as the role does, without an end."""
    await engine.load()
    while True:
        await engine.step()
        await engine.keep()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("commits", [1, 2, 3])
async def test_a_death_at_any_commit_misses_nothing_and_doubles_nothing(
    store: ResultStore, commits: int, after: bool
) -> None:
    rules = [a_rule(notify=["ops", "log"]), a_rule(name="twice", count=2, notify=["ops"])]
    await an_engine(store, *rules)
    start = utcnow()
    results = [a_result(start + timedelta(seconds=n), camera=f"belt-{n % 3}") for n in range(9)]
    for first in range(0, 9, 3):
        await store.save_many(results[first : first + 3])
        dying = AlertEngine(rules, Dying(store, commits, after=after))
        with pytest.raises(Killed):
            await live(dying)
    await read_all(await an_engine(store, *rules))
    told = [(alert.rule, alert.cause, alert.count) for alert in await alerts(store)]
    expected = [
        (rule, f'{{"site":"north","camera":"belt-{n}","label":"damaged"}}')
        for rule in ("damaged parcel", "twice")
        for n in range(3)
    ]
    assert sorted(entry[:2] for entry in told) == sorted(expected)
    assert {count for _, _, count in told} == {3}
    assert len(await due(store)) == 3 * 2 + 3


async def test_two_engines_at_once_give_one_alert(store: ResultStore) -> None:
    one, two = await an_engine(store), await an_engine(store)
    await store.save_many([a_result()])
    await read_all(one)
    await read_all(two)
    assert len(await alerts(store)) == 1
    assert len(await due(store)) == 1


async def test_what_failed_to_commit_is_committed_next_time(store: ResultStore) -> None:
    engine = await an_engine(store)
    await store.save_many([a_result()])
    commit = store.commit_alerts

    async def fails(**_: Any) -> None:
        raise StoreError("down")

    store.commit_alerts = fails  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await engine.step()
    store.commit_alerts = commit  # type: ignore[method-assign]
    await engine.step()
    assert len(await alerts(store)) == 1
    assert len(await due(store)) == 1


def test_a_derived_id_is_a_uuid_that_sorts_by_its_moment() -> None:
    now = utcnow()
    first, again = derived_id(now, "rule", "cause"), derived_id(now, "rule", "cause")
    assert first == again
    assert is_uuid(first)
    assert first[14] == "7"
    assert derived_id(now, "rule", "other") != first
    assert derived_id(now + timedelta(seconds=1), "rule", "cause") > first


def health(condition: str = "frozen", state: str = "began", **fields: Any) -> dict[str, Any]:
    """What the gateway writes when a camera's agent reports a change."""
    known = {
        "type": "camera.health",
        "id": uuid7(),
        "site": "north",
        "camera": "belt-1",
        "pipeline": "parcels",
        "health": condition,
        "state": state,
        "detail": "the same picture for 12 s",
    }
    return {**known, **fields}


async def test_a_rule_about_health_is_asked_of_cameras_that_begin_to_be_ill(store: ResultStore) -> None:
    engine = await an_engine(store, a_rule(name="frozen camera", when="health == 'frozen' and camera == 'belt-1'"))
    for body in (health("dark"), health(state="ended"), health(camera="belt-2"), health()):
        await store.add_event("system", "north", body)
    await store.add_event("system", "north", {"type": "camera.capture", "camera": "belt-1"})
    await read_all(engine)
    [alert] = await alerts(store)
    assert (alert.rule, alert.cause, alert.site, alert.count) == (
        "frozen camera",
        '{"site":"north","camera":"belt-1","label":"frozen"}',
        "north",
        1,
    )
    [delivery] = await due(store)
    told = msgspec.json.decode(delivery.payload)
    assert told["text"] == "warning: frozen camera (camera belt-1, frozen), site north"
    assert told["data"]["alert"]["hit"]["detail"] == "frozen: the same picture for 12 s"


@pytest.mark.parametrize("when", ["label != 'intact'", "camera == 'belt-1'", "status == 'completed'", "not duplicate"])
async def test_a_rule_that_does_not_name_health_is_not_asked_of_it(store: ResultStore, when: str) -> None:
    engine = await an_engine(store, a_rule(when=when))
    await store.add_event("system", "north", health())
    await read_all(engine)
    assert await alerts(store) == []


async def test_a_rule_about_health_is_not_asked_of_results(store: ResultStore) -> None:
    engine = await an_engine(store, a_rule(when="health != 'dark'"))
    await store.save_many([a_result()])
    await read_all(engine)
    assert await alerts(store) == []


async def test_a_system_event_without_its_fields_stops_nothing(store: ResultStore) -> None:
    engine = await an_engine(store, a_rule(when="health == 'frozen'"))
    await store.add_event("system", "north", {"type": "camera.health", "state": "began"})
    await store.add_event("system", "north", health())
    await read_all(engine)
    assert len(await alerts(store)) == 1


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = utcnow()

    def __call__(self) -> datetime:
        return self.now

    def go(self, **time: float) -> None:
        self.now += timedelta(**time)


async def test_what_is_missing_is_told_by_the_clock_after_a_restart_too(store: ResultStore) -> None:
    rule, clock = a_rule(name="no parcel", when="label == 'parcel'", absent="10m"), Clock()
    engine = AlertEngine([rule], store, clock=clock)
    await engine.load()
    await store.save_many([a_result(clock.now, "parcel")])
    await read_all(engine)
    clock.go(minutes=5)
    engine = AlertEngine([rule], store, clock=clock)
    await engine.load()
    clock.go(minutes=4, seconds=59)
    await read_all(engine)
    assert await alerts(store) == []
    clock.go(seconds=2)
    await read_all(engine)
    [alert] = await alerts(store)
    assert alert.body["hit"]["detail"].startswith("nothing matched for 10 min")
    [delivery] = await store.list_deliveries(alert.id)
    told = msgspec.json.decode(delivery.payload)
    assert told["text"].startswith("warning: no parcel (camera belt-1, nothing matched for 10 min")
    assert told["data"]["result"]["camera"] == "belt-1"


async def test_nothing_is_missing_in_the_first_minute_after_a_start(store: ResultStore) -> None:
    rule, clock = a_rule(when="label == 'parcel'", absent="1m"), Clock()
    engine = AlertEngine([rule], store, clock=clock)
    await engine.load()
    await store.save_many([a_result(clock.now, "parcel")])
    await read_all(engine)
    clock.go(hours=8)  # the whole system was off
    engine = AlertEngine([rule], store, clock=clock)
    await engine.load()
    clock.go(seconds=59)
    await read_all(engine)
    assert await alerts(store) == []
    clock.go(seconds=2)
    await read_all(engine)
    assert len(await alerts(store)) == 1


async def test_an_agent_that_falls_silent_raises_an_alert_and_its_return_clears_it(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(agents_module, "SILENT", 0.0)
    engine = AlertEngine([a_rule(when="health == 'silent'")], store, cameras={"belt-1"})
    await engine.load()
    await store.report_camera("belt-1", "north", {"state": "live"})
    await read_all(engine)
    await read_all(engine)
    await read_all(engine)
    [alert] = await alerts(store)
    assert alert.body["camera"] == "belt-1"
    assert "cleared_at" not in alert.body
    monkeypatch.setattr(agents_module, "SILENT", 1e9)
    await store.report_camera("belt-1", "north", {"state": "live"})
    await read_all(engine)
    await read_all(engine)
    [alert] = await alerts(store)
    assert alert.body["cleared"] == "silent ended"


async def test_rules_are_taken_over_without_forgetting_what_stays(store: ResultStore) -> None:
    kept, gone = a_rule(name="kept", count=2), a_rule(name="gone", count=2)
    engine = await an_engine(store, kept, gone)
    start = utcnow()
    await store.save_many([a_result(start)])
    await read_all(engine)
    fresh = a_rule(name="fresh", count=2)
    await engine.take([a_rule(name="kept", count=2, severity="critical"), fresh])
    assert await store.load_state(f"alerts/rule/{gone.digest}") == b""
    await store.save_many([a_result(start + timedelta(seconds=1))])
    await read_all(engine)
    [alert] = await alerts(store)
    assert (alert.rule, alert.severity, alert.count) == ("kept", "critical", 2)  # the fresh one saw only the second
    await engine.take([gone])
    await store.save_many([a_result(start + timedelta(seconds=2))])
    await read_all(engine)
    assert [alert.rule for alert in await alerts(store)] == ["kept"]


async def test_a_rule_holds_from_the_event_on_that_says_it_was_made(store: ResultStore) -> None:
    """Read in one page: what was recorded before the saving is not judged by it, what came after is."""

    async def made() -> list[Rule]:
        return [
            compile_rule(rule_of({**row.body, "name": row.name}), since=row.at.timestamp())
            for row in await store.rules()
            if row.body is not None
        ]

    engine = AlertEngine([], store, reload=made)
    await engine.load()
    await store.save_many([a_result(camera="before")])
    await store.add_rule(RuleRow(name="r", version=1, at=utcnow(), by="", body={"when": "label == 'damaged'"}))
    await store.save_many([a_result(camera="after")])
    await read_all(engine)
    assert [alert.body["camera"] for alert in await alerts(store)] == ["after"]
    await store.add_rule(RuleRow(name="r", version=2, at=utcnow(), by="", body=None))
    await store.save_many([a_result(camera="later")])
    await read_all(engine)
    assert len(await alerts(store)) == 1


async def test_a_rule_that_was_made_while_the_engine_was_down_misses_nothing(store: ResultStore) -> None:
    await read_all(await an_engine(store, a_rule(name="other", when="label == 'none'")))
    made_at = utcnow().timestamp()
    await store.save_many([a_result()])
    rule = compile_rule(RuleSettings(name="made", when="label == 'damaged'"), since=made_at)
    await read_all(await an_engine(store, rule))
    assert [alert.rule for alert in await alerts(store)] == ["made"]


async def test_what_people_resolve_is_learned_from_the_log(store: ResultStore) -> None:
    """The store's own event of the decision ends the case; its cool-down would have covered the next hit for an hour."""
    engine = await an_engine(store, a_rule(cooldown="1h"))
    start = utcnow()
    await store.save_many([a_result(start)])
    await read_all(engine)
    [alert] = await alerts(store)
    decision = Decision(what="resolve", by="ana", at=utcnow(), disposition="real")
    await store.decide(decision, {alert.id: None})
    await read_all(engine)
    later = start + timedelta(minutes=2)
    await store.save_many([a_result(later)])
    await read_all(engine)
    assert len(await alerts(store)) == 2


async def test_an_engine_that_finds_nothing_says_that_it_looked(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await an_engine(store)
    await store.commit_alerts(state={ENGINE_CHECKED: b""}, alerts=[], deliveries=[])
    await engine.step()
    assert await store.load_state(ENGINE_CHECKED) == b"", "it is not written at each step"
    monkeypatch.setattr(engine_module, "CHECK_EVERY", 0.0)
    before = utcnow()
    await engine.step()
    assert parse_time((await store.load_state(ENGINE_CHECKED) or b"").decode()) >= before.replace(microsecond=0)
