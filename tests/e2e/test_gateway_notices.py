"""Channels, deliveries, silences and shift reports by the API, with the alerts role running beside the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eyeline.alerts.service import AlertService
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.ids import uuid7
from eyeline.gateway.auth import new_key
from eyeline.stores.results import open_results
from eyeline.stores.results.base import DeliveryRow
from tests.gateways import Running, running

SITES = [{"name": "north", "timezone": "Europe/Berlin", "shifts": ["06:00", "18:00"]}, {"name": "south"}]
CHANNELS = [
    {"name": "dead", "url": "http://127.0.0.1:9/services/TOKEN", "allow": ["127.0.0.0/8"]},
    {"name": "chat", "url": "apprise:json://user:TOKEN@127.0.0.1:9/TOKEN", "allow": ["127.0.0.0/8"]},
    {
        "name": "mail",
        "url": "smtp://user:TOKEN@localhost:2525",
        "to": ["a@b.c"],
        "sender": "e@b.c",
        "allow": ["127.0.0.0/8"],
    },
]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # modules of Apprise's plug-ins


@asynccontextmanager
async def house(folder: Path, **tree: Any) -> AsyncIterator[Running]:
    """A gateway, and the alerts role on the same store."""
    async with running(folder, sites=SITES, alerts={"channels": CHANNELS[:1]}, **tree) as here:
        stop = asyncio.Event()
        service = AlertService(here.settings.alerts, open_results(here.settings.results.url))
        role = asyncio.create_task(service.run(stop))
        yield here
        stop.set()
        await role


async def test_a_test_says_what_came_of_it_and_a_failed_delivery_can_be_sent_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        told = (await here.client.post("/v1/channels/log/test")).json()
        assert (told["state"], told["kind"], told["answer"]) == ("delivered", "test", "logged")
        dead = (await here.client.post("/v1/channels/dead/test")).json()
        assert (dead["state"], dead["attempts"]) == ("failed", 1)
        assert "not reached" in dead["last_error"]
        failed = (await here.client.get("/v1/deliveries", params={"state": "failed"})).json()["deliveries"]
        assert [row["id"] for row in failed] == [dead["id"]]
        again = await here.client.post(f"/v1/deliveries/{dead['id']}/retry")
        assert (again.status_code, again.json()["id"]) == (200, dead["id"])
        ok = await here.client.post(f"/v1/deliveries/{told['id']}/retry")
        assert (ok.status_code, ok.json()["code"]) == (409, "conflict")
        assert (await here.client.post("/v1/channels/nobody/test")).status_code == 404


async def test_no_secret_of_a_channel_is_shown_anywhere(tmp_path: Path) -> None:
    async with running(tmp_path, sites=SITES, alerts={"channels": CHANNELS}) as here:
        for path in ("/v1/channels", "/v1/system"):
            answer = await here.client.get(path)
            assert answer.status_code == 200
            assert "TOKEN" not in answer.text, path
        told = (await here.client.get("/v1/channels")).json()["channels"]
        assert [each["where"] for each in told] == [
            "log:", "http://127.0.0.1:9", "apprise:json://***", "smtp://localhost:2525",
        ]  # fmt: skip


async def test_a_silence_is_made_listed_and_ended_within_ones_sites(tmp_path: Path) -> None:
    secret, digest = new_key()
    keys = [{"name": "north-only", "sha256": digest, "role": "operator", "sites": ["north"]}]
    async with running(tmp_path, key=secret, keys=keys, sites=SITES) as here:
        said = {"reason": "lamp flickers", "site": "north", "camera": "belt-1", "rule": "dents", "seconds": 3600}
        made = await here.client.post("/v1/silences", json=said)
        assert made.status_code == 201
        listed = (await here.client.get("/v1/silences")).json()["silences"]
        assert [(each["id"], each["by"]) for each in listed] == [(made.json()["id"], "north-only")]
        for wrong, status in (
            ({"reason": "no end", "site": "north"}, 400),
            ({"reason": "everywhere", "seconds": 60}, 400),
            ({"reason": "elsewhere", "site": "south", "seconds": 60}, 400),
            ({"site": "north", "seconds": 60}, 422),
            ({"reason": "x", "site": "north", "weekly": ["Sunday"]}, 422),
        ):
            assert (await here.client.post("/v1/silences", json=wrong)).status_code == status, wrong
        assert (await here.client.delete(f"/v1/silences/{made.json()['id']}")).status_code == 204
        assert (await here.client.delete(f"/v1/silences/{made.json()['id']}")).status_code == 404
        assert (await here.client.get("/v1/silences")).json()["silences"] == []


async def test_a_shift_report_comes_as_data_page_and_table(tmp_path: Path) -> None:
    async with running(tmp_path, sites=SITES) as here:
        await here.send(1, site="north")
        await here.work()
        now = utcnow()
        times = {"from": isoformat(now - timedelta(hours=2)), "until": isoformat(now + timedelta(minutes=1))}
        report = (await here.client.get("/v1/reports/shift", params={"site": "north"} | times)).json()
        assert (report["site"], report["results"]["completed"]) == ("north", 1)
        assert (await here.client.get("/v1/reports/shift", params={"site": "south"} | times)).json()["results"][
            "completed"
        ] == 0
        page = await here.client.get("/v1/reports/shift?format=html")
        assert page.headers["content-type"].startswith("text/html")
        assert "script" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        table = await here.client.get("/v1/reports/shift?format=csv")
        assert table.text.startswith('"Shift report north')
        wrong = await here.client.get("/v1/reports/shift?site=moon")
        assert (wrong.status_code, "north" in wrong.json()["detail"]) == (400, True)


async def test_a_delivery_of_another_site_is_not_to_be_seen(tmp_path: Path) -> None:
    secret, digest = new_key()
    keys = [{"name": "north-only", "sha256": digest, "role": "operator", "sites": ["north"]}]
    async with running(tmp_path, key=secret, keys=keys, sites=SITES) as here:
        now = utcnow()
        row = DeliveryRow(
            id=uuid7(),
            alert_id="",
            channel="out",
            payload=b"",
            captured_at=now,
            next_at=now,
            state="failed",
            site="south",
        )
        await here.results.commit_alerts(state={}, alerts=[], deliveries=[row])
        assert (await here.client.get("/v1/deliveries")).json()["deliveries"] == []
        assert (await here.client.post(f"/v1/deliveries/{row.id}/retry")).status_code == 404
