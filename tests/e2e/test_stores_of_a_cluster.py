"""`eyeline up` on the stores of a cluster: PostgreSQL, S3 and Redis, each the real server."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image
from prometheus_client.mmap_dict import MmapedDict

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


@pytest.mark.soak
def test_all_images_go_through_the_other_worker_while_one_is_drained(system: RunningSystem) -> None:
    def worker(role: str) -> dict[str, Any] | None:
        """As it says of itself, once it has."""
        processes = client.get("/v1/operations").json()["replicas"]["processes"]
        pid = system.pids()[role]
        return next((one for one in processes if (one["role"], one["pid"]) == (role, pid)), None)

    def drain(role: str, end: str = "") -> dict[str, Any]:
        found = worker(role)
        assert found is not None
        answer = client.post(f"/v1/operations/replicas/{quote(found['id'])}/drain{end}")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def until_it_is(role: str, state: str) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            found = worker(role)
            return found if found is not None and found["state"] == state else None

        found: dict[str, Any] = until(there, 20, f"{role} is {state}")
        return found

    def send(numbers: range) -> None:
        for number in numbers:
            assert client.post("/v1/images", content=unique_jpeg(number)).status_code == 202

    with system.client() as client:
        for role in ("worker-1", "worker-2"):
            until_it_is(role, "running")
        send(range(1000, 1040))
        assert drain("worker-1") | {"id": ""} == {"id": "", "state": "draining", "others": 1}
        assert until_it_is("worker-1", "drained")["in_hand"] == 0
        until(lambda: system.unfinished() == 0, 60, "all have a result")
        before = [recorded(system, role) for role in ("worker-1", "worker-2")]
        send(range(1040, 1080))
        until(lambda: system.unfinished() == 0, 60, "all have a result")
        assert [recorded(system, role) for role in ("worker-1", "worker-2")] == [before[0], before[1] + 40]
        assert drain("worker-2")["others"] == 0
        until_it_is("worker-2", "drained")
        send(range(1080, 1083))
        assert drain("worker-1", "/end")["state"] == "running"
        until(lambda: system.unfinished() == 0, 60, "the one that is put back works again")
        assert recorded(system, "worker-1") == before[0] + 3
        drain("worker-2", "/end")


def recorded(system: RunningSystem, role: str) -> float:
    """How many results this process has recorded."""
    path = system.data_dir / "run" / "metrics" / f"counter_{system.pids()[role]}.db"
    values = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    return float(sum(value for key, value, *_ in values if "eyeline_images_total" in key))


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
