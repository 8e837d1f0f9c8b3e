"""Figures over time by the API: counted once whoever counts, by site, also what came while no gateway ran."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.telemetry import UTILISATION
from eyeline.gateway.auth import new_key
from eyeline.gateway.limits import Admission
from eyeline.gateway.recorder import MINUTE, Recorder
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ReplicaRow, ResultStore
from tests.gateways import Running, running

SITES = [{"name": "north"}, {"name": "south"}]


def recorder(results: ResultStore) -> Recorder:
    return Recorder(results, Admission(results, max_unfinished=100, max_wait=1.0))


async def finished(here: Running, count: int, site: str, **changes: Any) -> None:
    for number in range(count):
        await here.send(hash((site, number)) % 65_536, site=site)
        await here.work(timings={"queue": 0.02, "infer": 0.1}, **changes)


async def test_results_are_counted_once_by_whichever_gateway_and_told_by_site(tmp_path: Path) -> None:
    UTILISATION.clear()  # a test before this one may have had a device, in this process
    secret, digest = new_key()
    northern, northern_digest = new_key()
    keys = [
        {"name": "root", "sha256": digest, "role": "admin"},
        {"name": "n", "sha256": northern_digest, "role": "viewer", "sites": ["north"]},
    ]
    async with running(tmp_path, key=secret, keys=keys, sites=SITES, cost={"machines_per_hour": 2.5}) as here:
        others = [open_results(here.settings.results.url) for _ in range(2)]
        many = [recorder(results) for results in (here.results, *others)]
        await many[0].add_results()  # begins here
        await finished(here, 3, "north")
        await finished(here, 1, "south", status="failed", reason="corrupt: x")
        await asyncio.gather(*(one.add_results() for one in many))
        await many[1].add_results()
        await many[1].add_measured(time.time())
        answer = await here.client.get("/v1/operations?range=15m")
        assert answer.status_code == 200, answer.text
        operations = answer.json()
        assert (operations["images"], operations["failed"]) == (4, 1)
        assert operations["stages"] == {"infer": 0.1, "queue": 0.02}
        tiles = {tile["name"]: tile for tile in operations["tiles"]}
        assert (tiles["error_rate"]["value"], tiles["error_rate"]["verdict"]) == (0.25, "missed")
        assert tiles["error_rate"]["budget"]["left"] == -24.0
        assert tiles["queue_wait_p95"]["verdict"] == "ok"
        assert tiles["queue_wait_p95"]["budget"]["left"] == 1.0
        assert tiles["utilisation"]["verdict"] == "not measured"
        assert operations["cost"]["per_million"] == 2.5 * 0.25 / 4 * 1e6
        assert operations["cost"]["inputs"] == {"machines_per_hour": 2.5, "hours": 0.25, "images": 4}
        assert tiles["cost_per_million"]["value"] == operations["cost"]["per_million"]
        assert (tiles["latency_p99"]["budget"]["left"], tiles["latency_p99"]["kept"]) == (1.0, 1.0)
        assert (tiles["error_rate"]["kept"], tiles["utilisation"]["kept"]) == (0.0, None)
        sparks = {
            over: (await here.client.get(f"/v1/operations?range={over}")).json()["tiles"] for over in ("15m", "30d")
        }
        for name, tile in enumerate(sparks["15m"]):
            assert len(tile["spark"]) == 60, tile["name"]
            assert [one is None for one in tile["spark"]] == [one is None for one in sparks["30d"][name]["spark"]]
        assert sum(one is not None for one in sparks["30d"][0]["spark"]) in {1, 2}  # the minute in which it was
        assert operations["slowest"]["of"] == 4
        for over in ("15m", "24h", "30d"):
            told = (await here.client.get(f"/v1/series?metric=throughput&range={over}")).json()
            points = told["points"]
            assert 1 <= len(points) <= 2  # one, or two where a minute ended meanwhile
            assert sum(round(point["throughput"] * _seconds(point, told["step"])) for point in points) in range(3, 6)
        errors = (await here.client.get("/v1/series?metric=errors&site=north")).json()
        assert {point["errors"] for point in errors["points"]} == {0.0}
        latency = (await here.client.get("/v1/series?metric=latency")).json()
        assert latency["lines"] == ["end_to_end.p50", "end_to_end.p95", "end_to_end.p99"]
        bearer = {"Authorization": f"Bearer {northern}"}
        mine = (await here.client.get("/v1/operations", headers=bearer)).json()
        assert (mine["images"], mine["failed"]) == (3, 0)
        assert (await here.client.get("/v1/series?site=south", headers=bearer)).status_code == 400
        assert (await here.client.get("/v1/series?metric=nonsense")).status_code == 422
        for store in others:
            await store.close()


def _seconds(point: dict[str, Any], step: int) -> float:
    from eyeline.core.clock import parse_time

    return max(1.0, min(float(step), (utcnow() - parse_time(point["at"])).total_seconds()))


async def test_a_rate_is_kept_for_everyone_recorded_and_taken_back(tmp_path: Path) -> None:
    secret, digest = new_key()
    keys = [{"name": "root", "sha256": digest, "role": "admin"}]
    async with running(tmp_path, key=secret, keys=keys, cost={"machines_per_hour": 2.5}) as here:
        kept = await here.client.post("/v1/operations/cost", json={"machines_per_hour": 4})
        assert (kept.status_code, kept.json()["by"]) == (200, "root")
        cost = (await here.client.get("/v1/operations")).json()["cost"]
        assert (cost["inputs"]["machines_per_hour"], cost["rate"]["settings"]) == (4, 2.5)
        form = await here.client.post("/v1/operations/cost?range=24h", data={"machines_per_hour": ""})
        assert (form.status_code, form.headers["location"]) == (303, "/operations?range=24h#cost")
        cost = (await here.client.get("/v1/operations")).json()["cost"]
        assert (cost["inputs"]["machines_per_hour"], cost["rate"]["by"]) == (2.5, None)
        for wrong in ("nan", "-1", "much"):
            refused = await here.client.post("/v1/operations/cost", data={"machines_per_hour": wrong})
            assert refused.status_code == 400, wrong
        done = await here.results.actions(utcnow() - timedelta(minutes=5), utcnow() + timedelta(minutes=5), 100)
        told = [each["machines_per_hour"] for each in done if each["what"] == "cost.rate"]
        assert sorted(told, key=str) == [4, None]


async def test_what_came_while_no_gateway_ran_is_counted_when_one_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyeline.gateway.recorder.PAGE", 1)  # more than one page of it
    async with running(tmp_path, sites=SITES) as here:
        await recorder(here.results).add_results()
        await finished(here, 2, "north")
    results = open_results(here.settings.results.url)
    await recorder(results).add_results()
    rows = await results.series(MINUTE, 0, None)
    assert sum(row.sums.get("images", 0) for row in rows) == 2
    await results.close()


async def test_processes_that_report_are_listed_and_silent_ones_said_to_be(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for role, ago in (("worker-1", 3), ("worker-2", 300)):
            seen = utcnow() - timedelta(seconds=ago)
            row = ReplicaRow(
                id=f"{role}@line:7",
                role=role,
                host="line",
                pid=7,
                version="1.0",
                started_at=seen,
                seen_at=seen,
                body={"cores": 0.5, "bytes": 1000},
            )
            await here.results.report_replica(row)
        replicas = (await here.client.get("/v1/operations")).json()["replicas"]
        assert [(one["role"], one["state"]) for one in replicas["processes"]] == [
            ("worker-1", "running"),
            ("worker-2", "silent"),
        ]
        assert replicas["inference"] == []


async def test_a_worker_is_drained_for_those_of_all_sites_and_put_back_and_both_are_in_the_audit(
    tmp_path: Path,
) -> None:
    secret, digest = new_key()
    northern, northern_digest = new_key()
    keys = [
        {"name": "root", "sha256": digest, "role": "operator"},
        {"name": "n", "sha256": northern_digest, "role": "operator", "sites": ["north"]},
    ]
    async with running(tmp_path, key=secret, keys=keys, sites=SITES) as here:
        row = ReplicaRow(
            id="worker-1@line:7",
            role="worker-1",
            host="line",
            pid=7,
            version="1.0",
            started_at=utcnow(),
            seen_at=utcnow(),
            body={"cores": 0.5, "bytes": 1000, "in_hand": 3, "doing": "running"},
        )
        other = replace(row, id="worker-2@line:8", role="worker-2")
        older = replace(row, id="worker@old:7", host="old", body={"cores": 0.5, "bytes": 1000})
        ended = replace(row, id="worker@gone:7", seen_at=utcnow() - timedelta(minutes=5))
        for each in (row, other, older, ended):
            await here.results.report_replica(each)

        async def want(name: str, end: str = "", **headers: Any) -> tuple[int, Any]:
            answer = await here.client.post(f"/v1/operations/replicas/{quote(name)}/drain{end}", **headers)
            return answer.status_code, answer.json()

        async def state() -> str:
            processes = (await here.client.get("/v1/operations")).json()["replicas"]["processes"]
            return next(str(one["state"]) for one in processes if one["id"] == row.id)

        mine = {"headers": {"Authorization": f"Bearer {northern}"}}
        assert [(await want(row.id, end, **mine))[0] for end in ("", "/end")] == [403, 403]
        assert (await want("worker@nobody:1"))[0] == 404
        assert [(await want(name))[0] for name in (older.id, ended.id)] == [409, 409]
        assert await state() == "running"
        for _ in range(2):  # to ask twice is to ask once
            assert await want(row.id) == (200, {"id": row.id, "state": "draining", "others": 1})
        await here.results.report_replica(replace(row, body={**row.body, "doing": "drained", "in_hand": 0}))
        assert await state() == "drained"
        assert (await want(other.id))[1]["others"] == 0  # also the last one: whoever asks for it is told
        assert await want(row.id, "/end") == (200, {"id": row.id, "state": "running", "others": 0})
        assert await state() == "running"
        done = await here.results.actions(utcnow() - timedelta(minutes=1), utcnow() + timedelta(minutes=1), 10)
        assert [(each["what"], each["by"], each["replica"]) for each in done] == [
            ("replica.drained", "root", row.id),
            ("replica.drained", "root", other.id),
            ("replica.put_back", "root", row.id),
        ]


async def test_a_hold_is_placed_within_ones_sites_and_lifted_by_an_admin_and_both_are_in_the_audit(
    tmp_path: Path,
) -> None:
    secret, digest = new_key()
    northern, northern_digest = new_key()
    keys = [
        {"name": "root", "sha256": digest, "role": "admin"},
        {"name": "n", "sha256": northern_digest, "role": "operator", "sites": ["north"]},
    ]
    bearer = {"Authorization": f"Bearer {northern}"}
    async with running(tmp_path, key=secret, keys=keys, sites=SITES) as here:
        await here.send(1, site="north", ref="order-7")
        mine = await here.work()
        await here.send(2, site="south")
        other = await here.work()
        said = {"reason": "claim 12", "site": "north", "ref": "order-7", "since": "2026-01-01T00:00:00Z"}
        made = await here.client.post("/v1/holds", json=said, headers=bearer)
        assert made.status_code == 201, made.text
        hold = made.json()
        assert (hold["by"], hold["lifted_at"], hold["camera"]) == ("n", None, None)
        assert await here.results.erase([mine.id]) == set()
        for wrong, status in (
            ({"reason": "everything"}, 400),
            ({"reason": "everywhere", "ref": "order-7"}, 400),
            ({"reason": "elsewhere", "site": "south"}, 400),
            ({"reason": "another's", "site": "north", "result": other.id}, 404),
            ({"reason": "mistyped", "site": "north", "item": "0198"}, 404),
            ({"reason": "backwards", "site": "north", "since": said["since"], "until": said["since"]}, 400),
            ({"reason": "", "site": "north"}, 422),
        ):
            assert (await here.client.post("/v1/holds", json=wrong, headers=bearer)).status_code == status, wrong
        assert (await here.client.get("/v1/holds", headers=bearer)).json() == {"holds": [hold]}
        lift, why = f"/v1/holds/{hold['id']}/lift", {"reason": "settled"}
        assert (await here.client.post(lift, json=why, headers=bearer)).status_code == 403
        lifted = await here.client.post(lift, json=why)
        assert lifted.status_code == 200, lifted.text
        assert lifted.json()["lifted_at"] is not None
        assert (await here.client.post(lift, json=why)).status_code == 404
        assert (await here.client.get("/v1/holds")).json() == {"holds": []}
        assert (await here.client.get("/v1/holds?all=1")).json() == {"holds": [lifted.json()]}
        done = await here.results.actions(utcnow() - timedelta(minutes=5), utcnow() + timedelta(minutes=5), 100)
        told = [(each["what"], each["by"], each.get("reason")) for each in done if "hold" in each["what"]]
        assert sorted(told) == [("hold", "n", "claim 12"), ("lift hold", "root", "settled")]
        assert await here.results.erase([mine.id]) == {mine.id}
