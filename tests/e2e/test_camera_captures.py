"""Triggered capture through a real gateway and a real agent: the next frame, its job, and honest refusals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eyeline.cameras.agent import CameraAgent
from eyeline.core.clock import utcnow
from eyeline.core.settings import CameraSettings
from eyeline.core.types import Event
from tests.gateways import Running, running
from tests.unit.cameras.agents import until

CAMERA = {"name": "line", "url": "synthetic://160x120?seed=4", "fps": 10.0}


@pytest.fixture(autouse=True)
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.agent.REPORT_EVERY", 0.1)


@asynccontextmanager
async def line(folder: Path, **camera: Any) -> AsyncIterator[tuple[Running, CameraAgent]]:
    """A gateway and the agent of a camera that takes frames only when asked to."""
    settings = {**CAMERA, "only_triggered": True, **camera}
    async with running(folder / "data", cameras=[settings]) as here, agent_of(here, folder, settings) as agent:
        yield here, agent


@asynccontextmanager
async def agent_of(here: Running, folder: Path, camera: dict[str, Any]) -> AsyncIterator[CameraAgent]:
    agent = CameraAgent(CameraSettings(**camera), here.gateway.url, folder / "spool", None)
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    try:
        await until_state(here, "live")
        yield agent
    finally:
        stop.set()
        await task


async def until_state(here: Running, state: str) -> None:
    async with asyncio.timeout(30):
        while (await told(here))["state"] != state:
            await asyncio.sleep(0.05)


async def told(here: Running) -> dict[str, Any]:
    camera: dict[str, Any] = (await here.client.get("/v1/cameras")).json()["cameras"][0]
    return camera


async def test_a_capture_takes_the_next_frame_and_returns_its_job(tmp_path: Path) -> None:
    async with line(tmp_path) as (here, _):
        asked_at = utcnow()
        answer = await here.client.post("/v1/cameras/line/capture", params={"ref": "order 7"})
        assert answer.status_code == 202, answer.text
        job = await here.take()
        assert answer.json()["id"] == job.id
        assert answer.headers["Location"] == f"/v1/jobs/{job.id}"
        assert (job.camera, job.ref, job.lane) == ("line", "order 7", "live")
        assert job.captured_at >= asked_at
        frames = (await told(here))["frames"]
        assert frames["balance"] == 0


async def test_everyone_who_asks_gets_a_job_of_his_own_and_nothing_else_is_taken(tmp_path: Path) -> None:
    async with line(tmp_path) as (here, agent):
        refs = [f"board {number}" for number in range(8)]
        answers = await asyncio.gather(
            *(here.client.post("/v1/cameras/line/capture", params={"ref": ref}) for ref in refs)
        )
        assert {answer.status_code for answer in answers} == {202}
        jobs = [await here.take() for _ in refs]
        told_jobs = {answer.json()["ref"]: answer.json()["id"] for answer in answers}
        assert {job.ref: job.id for job in jobs} == told_jobs
        await until(lambda: not agent._spool.in_hand, 10)
        counts = agent._spool.counts()
        assert (counts.captured, counts.accepted, counts.dropped) == (8, 8, {})


async def test_between_triggers_an_ordinary_camera_goes_on(tmp_path: Path) -> None:
    async with line(tmp_path, only_triggered=False) as (here, agent):
        answer = await here.client.post("/v1/cameras/line/capture", params={"ref": "x"})
        assert answer.status_code == 202
        await until(lambda: agent._spool.counts().captured >= 5, 20)
        jobs = [await here.take() for _ in range(5)]
        assert [job.ref for job in jobs].count("x") <= 1


async def test_a_camera_without_an_agent_is_409_with_the_way_out(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=[CAMERA]) as here:
        answer = await here.client.post("/v1/cameras/line/capture")
        assert (answer.status_code, answer.json()["code"]) == (409, "camera_away")
        assert "eyeline camera line" in answer.json()["detail"]
        await here.client.put("/v1/cameras/line/status", json={"state": "offline"})
        answer = await here.client.post("/v1/cameras/line/capture")
        assert (answer.status_code, answer.json()["code"]) == (409, "camera_away")
        assert "'offline'" in answer.json()["detail"]
        assert (await here.client.post("/v1/cameras/other/capture")).status_code == 404


async def test_an_agent_that_is_gone_meanwhile_is_504(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=[CAMERA]) as here:
        await here.client.put("/v1/cameras/line/status", json={"state": "live"})
        answer = await here.client.post("/v1/cameras/line/capture", params={"wait": 0.3, "ref": "late"})
        assert (answer.status_code, answer.json()["code"]) == (504, "capture_timeout")
        assert "'late'" in answer.json()["detail"]
        # whoever comes too late is not given the request any more
        assert (await here.client.get("/v1/cameras/line/captures")).json()["captures"] == []


async def test_a_request_waits_for_an_agent_that_starts_within_its_time(tmp_path: Path) -> None:
    async with running(tmp_path / "data", cameras=[{**CAMERA, "only_triggered": True}]) as here:
        await here.client.put("/v1/cameras/line/status", json={"state": "live"})
        asking = asyncio.create_task(here.client.post("/v1/cameras/line/capture", params={"wait": 20}))
        await asyncio.sleep(0.3)
        async with agent_of(here, tmp_path, {**CAMERA, "only_triggered": True}):
            assert (await asking).status_code == 202


async def test_an_agent_that_restarts_does_not_answer_a_trigger_twice(tmp_path: Path) -> None:
    camera = {**CAMERA, "only_triggered": True}
    async with running(tmp_path / "data", cameras=[camera]) as here:
        async with agent_of(here, tmp_path, camera):
            assert (await here.client.post("/v1/cameras/line/capture", params={"wait": 20})).status_code == 202
        async with agent_of(here, tmp_path, camera) as agent:
            await asyncio.sleep(0.5)
            assert agent._spool.counts().captured == 1


async def test_two_gateways_over_one_store_find_each_other(tmp_path: Path) -> None:
    """The agent asks at one, the caller at the other: as behind a load balancer."""
    camera = {**CAMERA, "only_triggered": True}
    async with (
        running(tmp_path / "data", cameras=[camera]) as one,
        running(tmp_path / "data", cameras=[camera]) as two,
        agent_of(one, tmp_path, camera),
    ):
        answer = await two.client.post("/v1/cameras/line/capture", params={"ref": "far"})
        assert answer.status_code == 202
        assert answer.json()["id"] == (await two.take()).id


async def system_events(here: Running) -> list[Event]:
    return [event for event in await here.results.tail(0, 1000) if event.kind == "system"]


async def test_health_is_shown_and_what_begins_and_ends_is_an_event(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=[CAMERA]) as here:

        async def report(health: dict[str, Any] | None) -> None:
            answer = await here.client.put("/v1/cameras/line/status", json={"state": "live", "health": health})
            assert answer.status_code == 204, answer.text

        dark: dict[str, Any] = {"conditions": {"dark": "brightness 3"}, "brightness": 3.0, "clocks": {"camera": -1.5}}
        reports: list[dict[str, Any] | None] = [{"conditions": {}}, dark, dark, None, dark]
        for health in reports:
            await report(health)
        health = (await told(here))["health"]
        assert (health["conditions"], health["clocks"]) == ({"dark": "brightness 3"}, {"camera": -1.5})
        await report({"conditions": {"frozen": "the same"}})
        seen = [(event.body["health"], event.body["state"]) for event in await system_events(here)]
        assert seen == [("dark", "began"), ("dark", "ended"), ("frozen", "began")]
        first = (await system_events(here))[0].body
        assert (first["type"], first["camera"], first["detail"]) == ("camera.health", "line", "brightness 3")
        assert first["pipeline"] == "parcels"


async def test_a_second_gateway_does_not_tell_it_again(tmp_path: Path) -> None:
    frozen = {"state": "live", "health": {"conditions": {"frozen": "the same"}}}
    async with running(tmp_path, cameras=[CAMERA]) as one, running(tmp_path, cameras=[CAMERA]) as two:
        for here in (one, two, one, two):
            await here.client.put("/v1/cameras/line/status", json=frozen)
        assert len(await system_events(one)) == 1
