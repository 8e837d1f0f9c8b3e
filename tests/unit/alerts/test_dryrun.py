"""What a rule would have done: the same as it does, over the same events; within limits, and against what people said."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eyeline.alerts import dryrun
from eyeline.alerts.book import RuleBook, verdicts
from eyeline.alerts.dryrun import dry_run
from eyeline.alerts.engine import AlertEngine
from eyeline.alerts.rules import compile_rule
from eyeline.core.access import NOBODY, Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import Overloaded
from eyeline.core.ids import uuid7
from eyeline.core.settings import AlertSettings, rule_of
from eyeline.core.types import Classification, Result
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertQuery, AlertRow, ResultStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    results = open_results(f"sqlite:///{tmp_path}/results.db")
    await results.upgrade()
    yield results
    await results.close()


def a_result(moment: datetime, score: float, **fields: Any) -> Result:
    known: dict[str, Any] = {
        "id": uuid7(),
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "captured_at": moment,
        "received_at": moment,
        "completed_at": moment,
        "classifications": [Classification("damaged", score, "find")],
    }
    return Result(**{**known, **fields})


def a_rule(**words: Any) -> dict[str, Any]:
    return {"name": "damaged", "when": "label == 'damaged' and score >= 0.6", **words}


async def tried(store: ResultStore, since: datetime, who: Principal = NOBODY, **words: Any) -> dict[str, Any]:
    book = RuleBook(AlertSettings(), store)
    return await book.try_out(book.read(a_rule(**words)), since, who)


async def test_it_says_what_the_engine_does(store: ResultStore) -> None:
    """A stream with bursts; the engine first, the trial afterwards: the same cases with the same counts."""
    words = a_rule(count=2, of=5, cooldown="10s", clear_after="5s")
    engine = AlertEngine([compile_rule(rule_of(words))], store)
    await engine.load()
    start = utcnow()
    await store.save_many(
        [a_result(start + timedelta(seconds=number), 0.9 if number % 40 < 4 else 0.1) for number in range(300)]
    )
    while (await engine.step())[0]:
        pass
    await engine.keep()
    alerts, _ = await store.find_alerts(AlertQuery(limit=500))
    trial, told = await dry_run(
        compile_rule(rule_of(words)), store, since=start - timedelta(minutes=1), until=utcnow(), sites=None
    )
    assert {case.id: case.count for case in trial.cases.values()} == {alert.id: alert.count for alert in alerts}
    assert (told["fired"], len(told["first"]), told["peak_per_hour"]) == (8, 8, 8)


async def test_at_086_eleven_of_fourteen_false_alarms_are_gone_and_no_real_one_is_lost(store: ResultStore) -> None:
    start = utcnow() - timedelta(minutes=30)
    scores = [0.91, 0.95, 0.99] + [0.62 + number * 0.02 for number in range(11)] + [0.88, 0.89, 0.9]
    rows = []
    for number, score in enumerate(scores):
        moment = start + timedelta(minutes=number)
        camera = f"belt-{number % 3}"
        result = a_result(moment, score, camera=camera)
        await store.save_many([result])
        rows.append(
            AlertRow(
                id=uuid7(),
                rule="damaged",
                cause="{}",
                site="north",
                severity="warning",
                state="open",
                opened_at=moment,
                last_at=moment,
                count=1,
                result_id=result.id,
                body={"camera": camera},
                disposition="real" if number < 3 else "false",
            )
        )
    rule = compile_rule(rule_of(a_rule(when="label == 'damaged' and score >= 0.86", cooldown="10s")))
    trial, told = await dry_run(rule, store, since=start - timedelta(hours=1), until=utcnow(), sites=None)
    assert told["fired"] == 6
    assert verdicts(rule, trial, rows)["sentence"] == "at 0.86: 11 of 14 false alarms gone, 0 of 3 real ones lost"
    harsh = compile_rule(rule_of(a_rule(when="score >= 0.93", cooldown="10s")))
    trial, _ = await dry_run(harsh, store, since=start - timedelta(hours=1), until=utcnow(), sites=None)
    assert verdicts(harsh, trial, rows)["real_lost"] == 1
    assert verdicts(harsh, trial, [])["sentence"] == "no alert of this rule was judged in that time"


async def test_it_looks_at_the_newest_events_where_there_are_too_many(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = utcnow()
    await store.save_many([a_result(start, 0.9, camera=f"belt-{number:03}") for number in range(120)])
    monkeypatch.setattr(dryrun, "MOST_EVENTS", 50)
    monkeypatch.setattr(dryrun, "PAGE", 20)
    told = await tried(store, start - timedelta(minutes=1))
    assert (told["events"], told["fired"], told["complete"]) == (50, 50, False)
    assert len(told["first"]) == 14
    monkeypatch.setattr(dryrun, "MOST_EVENTS", 500)
    monkeypatch.setattr(dryrun, "LONGEST", 0.0)
    assert (await tried(store, start - timedelta(minutes=1)))["complete"] is False


async def test_it_begins_where_it_is_told_to_and_sees_what_the_caller_may(store: ResultStore) -> None:
    await store.save_many([a_result(utcnow(), 0.9, camera="old")])
    since = utcnow()
    for site in ("north", "south"):
        await store.save_many([a_result(utcnow(), 0.9, camera="new", site=site)])
    told = await tried(store, since)
    assert [case["cause"]["site"] for case in told["first"]] == ["north", "south"]
    north = await tried(store, since, Principal("n", "operator", ("north",)))
    assert [case["cause"]["site"] for case in north["first"]] == ["north"]


async def test_what_was_missing_is_found_by_the_time_of_events(store: ResultStore) -> None:
    since = utcnow()
    await store.save_many([a_result(since, 0.9)])
    rule = compile_rule(rule_of({"name": "r", "when": "label == 'damaged'", "absent": "10m"}))
    _, told = await dry_run(rule, store, since=since, until=since + timedelta(minutes=9), sites=None)
    assert told["fired"] == 0
    _, told = await dry_run(rule, store, since=since, until=since + timedelta(hours=1), sites=None)
    assert told["fired"] == 1


async def test_one_trial_at_a_time(store: ResultStore) -> None:
    book = RuleBook(AlertSettings(), store)
    rule = book.read(a_rule())
    async with book._trying:
        with pytest.raises(Overloaded, match="another rule is being tried"):
            await book.try_out(rule, None, NOBODY)
    assert (await book.try_out(rule, None, NOBODY))["fired"] == 0
