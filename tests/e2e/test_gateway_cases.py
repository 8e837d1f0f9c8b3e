"""Decisions on alerts by the API: kept, told to everybody who listens, refused where they come too late."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyeline.core.clock import utcnow
from eyeline.core.ids import uuid7
from eyeline.stores.results.base import AlertRow
from tests.gateways import Running, running

SITES = [{"name": "north", "timezone": "Europe/Berlin", "shifts": ["06:00", "14:00", "22:00"]}, {"name": "south"}]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, sites=SITES) as gateway:
        yield gateway


async def an_alert(here: Running, site: str = "north") -> str:
    now = utcnow()
    alert = AlertRow(
        id=uuid7(),
        rule="dents",
        cause="{}",
        site=site,
        severity="critical",
        state="open",
        opened_at=now,
        last_at=now,
        count=1,
        result_id=uuid7(),
        body={"camera": "belt-1", "group": {"camera": "belt-1"}},
    )
    await here.results.commit_alerts(state={}, alerts=[alert], deliveries=[])
    return alert.id


async def act(here: Running, ident: str, what: str, **said: Any) -> tuple[int, dict[str, Any]]:
    answer = await here.client.post(f"/v1/alerts/{ident}/{what}", json=said)
    told: dict[str, Any] = answer.json()
    return answer.status_code, told


async def test_an_alert_goes_its_way_and_its_record_says_all_of_it(here: Running) -> None:
    ident = await an_alert(here)
    status, told = await act(here, ident, "acknowledge", version=0)
    assert (status, told["changed"], told["alert"]["state"]) == (200, True, "acknowledged")
    assert (await act(here, ident, "acknowledge", version=0))[1]["changed"] is False
    await act(here, ident, "assign", to="Ana")
    await act(here, ident, "note", note="glue\non the belt")
    status, told = await act(here, ident, "resolve", disposition="false", version=1)
    assert (status, told["code"], told["alert"]["assignee"]) == (409, "conflict", "Ana")
    status, told = await act(here, ident, "resolve", disposition="false", version=told["alert"]["version"])
    assert (status, told["alert"]["disposition"]) == (200, "false")
    assert (await act(here, ident, "acknowledge"))[0] == 409
    one = (await here.client.get(f"/v1/alerts/{ident}")).json()
    assert [entry["what"] for entry in one["history"]] == ["acknowledge", "assign", "note", "resolve"]
    assert [line["what"] for line in one["timeline"]][:2] == ["opened", "acknowledge"]
    assert (await act(here, ident, "undo"))[1]["alert"]["state"] == "acknowledged"
    assert (await act(here, ident, "reopen"))[1]["alert"]["state"] == "open"


async def test_every_change_is_told_on_the_live_stream(here: Running) -> None:
    ident = await an_alert(here)
    await act(here, ident, "acknowledge")
    told: dict[str, Any] = {}
    async with asyncio.timeout(20), here.client.stream("GET", "/v1/events?after=0&kinds=alert") as stream:
        async for line in stream.aiter_lines():
            told = msgspec.json.decode(line.removeprefix("data:")) if line.startswith("data:") else told
            if told.get("version") == 1:
                break
    assert (told["id"], told["state"], told["version"]) == (ident, "acknowledged", 1)


async def test_many_at_once_answer_one_by_one(here: Running) -> None:
    ids = [await an_alert(here) for _ in range(3)]
    await act(here, ids[0], "resolve", disposition="test")
    said = {"ids": [*ids, "nobody"], "action": "snooze", "seconds": 900, "versions": {ids[1]: 7}}
    results = (await here.client.post("/v1/alerts/actions", json=said)).json()["results"]
    assert [one["status"] for one in results] == [409, 409, 200, 404]
    assert "version 0, not 7" in results[1]["detail"]
    listed = (await here.client.get("/v1/alerts", params={"snoozed": "true"})).json()["alerts"]
    assert [alert["id"] for alert in listed] == [ids[2]]


async def test_a_snooze_ends_at_a_time_or_with_the_shift(here: Running) -> None:
    north, south = await an_alert(here), await an_alert(here, "south")
    _, told = await act(here, north, "snooze", shift=True)
    until = msgspec.convert(told["alert"]["snoozed_until"], type=type(utcnow()))
    assert utcnow() < until <= utcnow() + timedelta(hours=9)
    status, told = await act(here, south, "snooze", shift=True)
    assert (status, "has no shifts" in told["detail"]) == (400, True)
    assert (await act(here, south, "snooze", until="2020-01-01T00:00:00Z"))[0] == 400
    assert (await act(here, south, "snooze", seconds=5, shift=True))[0] == 400
    assert (await act(here, south, "resolve", disposition="maybe"))[0] == 422
    assert (await act(here, south, "note", note="a\x00b"))[0] == 422


async def test_lists_are_narrowed_and_wrong_filters_are_named(here: Running) -> None:
    ident = await an_alert(here)
    await an_alert(here, "south")

    async def listed(**params: str) -> list[str]:
        return [alert["id"] for alert in (await here.client.get("/v1/alerts", params=params)).json()["alerts"]]

    assert await listed(site="north", camera="belt-1", severity="critical", state="open,acknowledged") == [ident]
    assert await listed(site="north", state="resolved") == []
    wrong = await here.client.get("/v1/alerts", params={"state": "closed"})
    assert (wrong.status_code, "acknowledged" in wrong.json()["detail"]) == (400, True)


async def test_the_page_about_cases_says_what_works(here: Running) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/cases.md").read_text()
    calls = re.findall(r"^POST (\S+) +(\{.*\})$", page, re.MULTILINE)
    assert len(calls) == 8
    ident = await an_alert(here)
    for path, body in calls:
        said = msgspec.json.decode(body.replace("{id}", ident))
        answer = await here.client.post(path.replace("{id}", ident), json=said)
        assert answer.status_code == 200, (path, answer.text)
    assert (await here.client.get(f"/v1/alerts/{ident}")).json()["disposition"] == "test"
