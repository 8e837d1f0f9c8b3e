"""Full is said, not suffered: every answer is a 202 or a 429 with Retry-After, and every 202 gets its result."""

import asyncio
from pathlib import Path

import httpx

from tests.fake_models import write_brightness_bundle
from tests.pictures import unique_jpeg
from tests.system import running_system, settings_for, until


async def _flood(url: str, count: int) -> list[httpx.Response]:
    gate = asyncio.Semaphore(100)

    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client:

        async def one(number: int) -> httpx.Response:
            async with gate:
                return await client.post(f"{url}/v1/images", content=unique_jpeg(number), params={"lane": "live"})

        return list(await asyncio.gather(*(one(number) for number in range(count))))


def test_beyond_its_bound_the_gateway_refuses_and_keeps_what_it_accepted(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path / "models", name="brightness")
    more = {
        "gateway": {"max_unfinished": 20},
        "pipelines": [{"name": "b", "steps": [{"name": "b", "model": "brightness"}]}],
    }
    with running_system(tmp_path, settings_for(tmp_path / "data", tmp_path / "models", more)) as system:
        answers = asyncio.run(_flood(system.url, 300))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {202, 429}, statuses
        refused = [answer for answer in answers if answer.status_code == 429]
        assert all(float(answer.headers["Retry-After"]) > 0 for answer in refused)
        assert all("problem+json" in answer.headers["Content-Type"] for answer in refused)
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        until(lambda: system.unfinished() == 0, 30, "the line is empty again")
        with system.client() as client:
            jobs = [client.get(f"/v1/jobs/{identity}").json()["status"] for identity in accepted]
            assert set(jobs) == {"completed"}
            assert client.post("/v1/images", content=unique_jpeg(10_000)).status_code in (200, 202)
