"""Rules by the API: made, changed, refused with the place, tried on what was recorded, removed; all by the book."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from eyeline.alerts.book import RuleBook
from eyeline.alerts.service import AlertService
from eyeline.app import prepare
from eyeline.cli import app
from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError
from eyeline.core.settings import AlertSettings, rule_of
from eyeline.core.types import Classification
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertRow, ResultStore, RuleRow
from tests.gateways import Running, running

FILED = {"name": "filed", "when": "score >= 0.5", "notify": ["ops"]}
ALERTS = {"rules": [FILED], "channels": [{"name": "ops", "url": "https://hooks.example.com/x"}]}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, alerts=ALERTS) as gateway:
        yield gateway


async def put(here: Running, name: str, params: dict[str, Any] | None = None, **rule: Any) -> Any:
    return await here.client.put(f"/v1/rules/{name}", json={"when": "label == 'damaged'", **rule}, params=params)


async def names(here: Running) -> list[str]:
    return [rule["name"] for rule in (await here.client.get("/v1/rules")).json()["rules"]]


async def test_a_rule_is_made_changed_told_and_removed(here: Running) -> None:
    made = (await put(here, "dents/left", severity="critical")).json()
    assert (made["source"], made["version"], made["rule"]["severity"]) == ("page", 1, "critical")
    assert (await put(here, "dents/left", severity="critical")).json()["version"] == 1  # as it was: nothing changed
    assert (await put(here, "dents/left", count=2)).json()["version"] == 2
    told = (await here.client.get("/v1/rules/dents/left")).json()
    assert [version["version"] for version in told["versions"]] == [2, 1]
    assert told["toml"] == '[[alerts.rules]]\nname = "dents/left"\nwhen = "label == \'damaged\'"\ncount = 2\n'
    assert await names(here) == ["filed", "dents/left"]
    assert (await here.client.delete("/v1/rules/dents/left")).status_code == 204
    assert await names(here) == ["filed"]
    assert (await here.client.delete("/v1/rules/dents/left")).status_code == 404
    assert (await put(here, "dents/left")).json()["version"] == 4  # versions go on


async def test_nobody_overwrites_what_they_did_not_see(here: Running) -> None:
    assert (await put(here, "dents", {"version": 0})).status_code == 200
    assert (await put(here, "dents", {"version": 1}, count=2)).status_code == 200
    late = await put(here, "dents", {"version": 1}, count=3)
    assert (late.status_code, late.json()["version"]) == (409, 2)


async def test_a_rule_of_the_settings_is_changed_there_alone(here: Running) -> None:
    told = (await here.client.get("/v1/rules/filed")).json()
    assert (told["source"], told["version"], told["versions"]) == ("eyeline.toml", None, [])
    for answer in (await put(here, "filed"), await here.client.delete("/v1/rules/filed")):
        assert answer.status_code == 409
        assert "eyeline.toml" in answer.json()["detail"]


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"when": "lable == 'x'"}, "when", "no name is called 'lable'; did you mean 'label'?"),
    ({"when": "score > 0.5", "holds": "scor > 0.4", "clear_after": "30s"}, "holds", "did you mean 'score'?"),
    ({"when": "score > 0.5", "notify": ["opps"]}, "notify", "no channel is called 'opps'; defined: log, ops"),
    ({"when": "score > 0.5", "cooldwon": "1m"}, "cooldwon", "did you mean 'cooldown'?"),
    ({"when": "score > 0.5", "count": 3, "of": 2}, None, "3 of 2 images can never match"),
    ({"when": "score > 0.5", "within": "5 minutes"}, "within", "write it as 60s, 5m or 2h"),
]


async def test_a_wrong_rule_is_refused_with_the_word_and_the_place(here: Running) -> None:
    for rule, field, said in REFUSED:
        for answer in (
            await here.client.put("/v1/rules/r", json=rule),
            await here.client.post("/v1/rules/dry-run", json=rule),
        ):
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["field"]) == (422, "bad_rule", field)
            assert said in problem["detail"]
            if field == "when":
                assert problem["place"]["nearest"] == "label"
                assert problem["place"]["pointer"] == "    lable == 'x'\n    ^^^^^"


async def test_bodies_that_are_no_rule_are_refused(here: Running) -> None:
    for body, kind in ((b"{", "application/json"), (b"[]", "application/json"), (b"x =", "application/toml")):
        answer = await here.client.put("/v1/rules/r", content=body, headers={"content-type": kind})
        assert answer.status_code == 422, answer.text
    large = await here.client.put("/v1/rules/r", json={"when": "x" * 20_000})
    assert large.status_code == 413
    assert (await here.client.put("/v1/rules/%20r", json={"when": "score > 0"})).status_code == 422


async def test_a_rule_may_come_as_it_stands_in_the_settings(here: Running) -> None:
    text = "[[alerts.rules]]\nname = 'x'\nwhen = \"score > 0.5\"\nshare = 0.02\nof = 500\n"
    answer = await here.client.put("/v1/rules/rate", content=text, headers={"content-type": "application/toml"})
    assert answer.json()["rule"]["of"] == 500
    assert rule_of({**answer.json()["rule"], "name": "rate"}).share == 0.02


async def test_a_rule_is_tried_on_what_was_recorded_and_on_what_people_said(here: Running) -> None:
    """Five scores; the three low ones were false alarms of the rule as it is."""
    now = utcnow()
    for number, score in enumerate((0.62, 0.7, 0.75, 0.9, 0.95)):
        assert (await here.send(number, ref=str(score))).status_code == 202
        result = await here.work(detections=[], classifications=[Classification(f"dent-{number}", score, "find")])
        disposition: Any = "real" if score > 0.8 else "false"
        alert = AlertRow(
            id=f"alert-{number}",
            rule="dents",
            cause="{}",
            site="default",
            severity="warning",
            state="open",
            opened_at=result.captured_at,
            last_at=result.captured_at,
            count=1,
            result_id=result.id,
            body={"camera": f"camera-{number}"},
            disposition=disposition,
        )
        await here.results.commit_alerts(state={}, alerts=[alert], deliveries=[])
    loose = (await here.client.post("/v1/rules/dry-run", json={"when": "score >= 0.6"})).json()
    assert (loose["fired"], loose["peak_per_hour"], loose["complete"]) == (5, 5, True)
    assert [case["hit"]["score"] for case in loose["first"]] == [0.62, 0.7, 0.75, 0.9, 0.95]
    assert (await here.client.get(f"/v1/results/{loose['first'][0]['result_id']}")).status_code == 200
    tight = (await here.client.post("/v1/rules/dry-run", json={"name": "dents", "when": "score >= 0.86"})).json()
    assert tight["fired"] == 2
    assert tight["verdicts"]["sentence"].startswith("at 0.86: ")
    told = (await here.client.get("/v1/rules")).json()
    assert told["channels"] == ["log", "ops"]
    since = {"since": now.isoformat()}
    assert (await here.client.post("/v1/rules/dry-run", params=since, json={"when": "score > 0"})).json()["fired"] == 5
    long_ago = {"since": "2001-01-01T00:00:00Z"}
    assert (await here.client.post("/v1/rules/dry-run", params=long_ago, json=FILED)).status_code == 400


async def test_the_engine_takes_a_rule_over_within_seconds(here: Running) -> None:
    """And what came between the saving and the taking over counts."""
    engine = AlertService(here.settings.alerts, open_results(here.settings.results.url))
    stop = asyncio.Event()
    running_engine = asyncio.create_task(engine.run(stop))
    await here.send(1)
    await here.work()  # the rule of the settings raises one for this
    await put(here, "parcels", when="label == 'parcel' and score > 0.8", by=["camera"])
    await here.send(2)
    await here.work()

    async def raised() -> set[str]:
        page = (await here.client.get("/v1/alerts")).json()["alerts"]
        return {alert["rule"] for alert in page}

    while "parcels" not in await raised():
        await asyncio.sleep(0.05)
    [told] = [rule for rule in (await here.client.get("/v1/rules")).json()["rules"] if rule["name"] == "parcels"]
    assert told["fired"] == 1
    assert told["last_fired"] is not None
    assert told["precision"] == {"real": 0, "false": 0, "test": 0, "share": None}
    alert = next(a for a in (await here.client.get("/v1/alerts")).json()["alerts"] if a["rule"] == "parcels")
    await here.client.post(f"/v1/alerts/{alert['id']}/resolve", json={"disposition": "real"})
    [told] = [rule for rule in (await here.client.get("/v1/rules")).json()["rules"] if rule["name"] == "parcels"]
    assert told["precision"]["share"] == 1.0
    stop.set()
    await running_engine


def test_a_rule_reads_the_same_written_down() -> None:
    words = {"name": "a\\\"b'ä", "when": "label in ('x', \"y\")", "share": 0.02, "by": ["camera"], "notify": ["log"]}
    text = RuleBook(AlertSettings(), cast("ResultStore", None)).toml(rule_of(words))
    assert tomllib.loads(text)["alerts"]["rules"] == [words]


async def test_the_command_lists_checks_and_tries_rules(here: Running, tmp_path: Path) -> None:
    async def said(*words: str) -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["rules", *words])
        return done.exit_code, done.output if done.exception is None else f"{done.output}{done.exception}"

    await put(here, "parcels", when="label == 'parcel'")
    await here.send(1)
    await here.work()
    url = ("--url", here.gateway.url)
    code, listed = await said("ls", *url)
    assert code == 0
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["filed", "eyeline.toml"], ["parcels", "page"]]
    code, tried = await said("try", "parcels", *url)
    assert code == 0
    assert "would have fired 1 times, 1 in its busiest hour; no alert of this rule was judged" in tried
    code, tried = await said("try", "parcels", "--when", "label == 'none'", "--hours", "1", "--json", *url)
    assert json.loads(tried)["fired"] == 0
    config = tmp_path / "rules.toml"
    config.write_text("[[alerts.rules]]\nname = 'a'\nwhen = \"score > 0.5\"\n")
    assert await said("check", "--config", str(config)) == (0, "ok    a: score > 0.5\n")
    code, wrong = await said("check", "--when", "scor > 0.5")
    assert code != 0
    assert wrong.endswith("    scor > 0.5\n    ^^^^")


async def test_a_rule_in_the_settings_and_on_the_page_refuses_the_start(here: Running) -> None:
    body = {"name": "filed", "when": "score > 0.9"}
    await here.results.add_rule(RuleRow(name="filed", version=1, at=utcnow(), by="", body=body))
    with pytest.raises(ConfigError, match="the rule 'filed' stands in the settings, and people made one of that name"):
        await prepare(here.settings, print)
    await here.results.add_rule(RuleRow(name="filed", version=2, at=utcnow(), by="", body=None))
    await prepare(here.settings, print)
