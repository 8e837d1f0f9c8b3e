"""`eyeline up` on the stores of a cluster: PostgreSQL, S3 and Redis, each the real server."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.contract.servers import new_database, redis_cache_url, s3_url
from tests.fake_models import write_brightness_bundle
from tests.gateways import jpeg, running
from tests.pictures import unique_jpeg
from tests.system import RunningSystem, running_system, settings_for, until

IMAGES = 100


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    folder = tmp_path_factory.mktemp("cluster")
    write_brightness_bundle(folder / "models")
    stores = {
        "results": {"url": new_database()},
        "blobs": {"url": s3_url()},
        "cache": {"url": redis_cache_url()},
        "worker": {"replicas": 2},
        "pipelines": [{"name": "brightness", "steps": [{"name": "b", "model": "brightness"}]}],
    }
    with running_system(folder, settings_for(folder / "data", folder / "models", stores)) as running:
        yield running


def events(client: httpx.Client, count: int) -> list[dict[str, object]]:
    """The first `count` events of the log, as a reader gets them who comes back after the very first."""
    told: list[dict[str, object]] = []
    with client.stream("GET", "/v1/events", headers={"Last-Event-ID": "0"}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:") and '"completed"' in line:
                told.append(json.loads(line.removeprefix("data:")))
            if len(told) == count:
                break
    return told


def test_a_hundred_images_have_one_result_each_and_the_event_log_shows_them_all(system: RunningSystem) -> None:
    with system.client() as client:
        sent = [client.post("/v1/images", content=unique_jpeg(number)).json()["id"] for number in range(IMAGES)]
        until(lambda: system.unfinished() == 0, 60, "all have a result")
        found: list[dict[str, object]] = []
        cursor = None
        while cursor is not None or not found:
            page = client.get("/v1/results", params={"limit": 30, **({"cursor": cursor} if cursor else {})}).json()
            found, cursor = found + page["results"], page["next"]
        assert [result["id"] for result in found] == sorted(sent, reverse=True)
        assert {result["status"] for result in found} == {"completed"}
        assert sorted(str(event["id"]) for event in events(client, IMAGES)) == sorted(sent)


def test_the_same_bytes_again_are_answered_from_the_cache(system: RunningSystem) -> None:
    with system.client() as client:
        image = unique_jpeg(IMAGES + 1)
        first, second = (client.post("/v1/images", params={"wait": 20}, content=image).json() for _ in range(2))
        first, second = first.get("result", first), second.get("result", second)
        assert second["duplicate_of"] == first["id"]


def test_the_picture_comes_back_from_the_bucket(system: RunningSystem) -> None:
    with system.client() as client:
        answer = client.post("/v1/images", params={"wait": 20}, content=unique_jpeg(IMAGES + 2)).json()
        kept = client.get(f"/v1/results/{answer.get('result', answer)['id']}/image")
        assert kept.status_code == 200
        assert Image.open(io.BytesIO(kept.content)).size == (64, 48)


def test_nothing_of_it_lies_on_this_machine(system: RunningSystem) -> None:
    names = {path.name for path in Path(system.data_dir).iterdir()}
    assert "queue.db" in names  # the one store that is still embedded here
    assert not {"results.db", "cache.db", "blobs"} & names


async def test_a_whole_picture_is_a_link_to_where_it_lies_for_who_may_see_it(tmp_path: Path) -> None:
    keys = [{"name": "n", "sha256": hashlib.sha256(b"eye_secret").hexdigest(), "role": "admin"}]
    async with running(tmp_path, key="eye_secret", keys=keys, blobs={"url": s3_url(), "links": 30}) as here:
        await here.send(5)
        result = await here.work()
        place = f"/v1/results/{result.id}/image"
        answer = await here.client.get(place)
        assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
        assert (await httpx.AsyncClient().get(answer.headers["location"])).content == jpeg(5)
        for words in ({"width": 16}, {"overlay": 1}):
            assert (await here.client.get(place, params=words)).headers["content-type"] == "image/jpeg"
        nobody = await here.client.get(place, headers={"Authorization": "Bearer eye_other"})
        assert nobody.status_code == 401
