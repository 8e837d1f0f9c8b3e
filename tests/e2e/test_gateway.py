"""The way in and the way out, through real HTTP and real embedded stores."""

import asyncio
import base64
import csv
import io
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from PIL import Image

from eyeline.core.dedupe import answer_key, plan_key
from eyeline.core.types import Detection, ImageInfo
from eyeline.gateway.follow import Follower
from eyeline.stores.cache.definitions import Definitions
from eyeline.stores.results.sql import SqlResults
from tests.fake_models import write_brightness_bundle
from tests.gateways import Running, jpeg, result_of, running

CAMERAS = [
    {"name": "belt-1", "url": "file:///belt.mp4", "site": "north", "pipeline": "parcels"},
    {"name": "gate", "url": "rtsp://user:secret@10.0.0.7/one?token=x", "site": "south"},
]
SITES = [
    {"name": "north", "timezone": "Europe/Berlin", "shifts": ["06:00", "14:00", "22:00"]},
    {"name": "south"},
]


async def test_a_picture_is_kept_then_answered_202_then_enqueued(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        answer = await here.send(1, ref="order 7", **{"meta.line": "3"})
        assert answer.status_code == 202
        told = answer.json()
        assert answer.headers["location"] == f"/v1/jobs/{told['id']}"
        job = await here.take()
        assert (job.id, job.ref, job.meta, job.lane) == (told["id"], "order 7", {"line": "3"}, "live")
        assert job.pipeline_digest == here.settings.pipelines[0].digest
        async with asyncio.timeout(10):  # a worker that has another one asks whether somebody has this
            while not await Definitions(here.cache, {}).lives(job.pipeline, job.pipeline_digest or ""):
                await asyncio.sleep(0.02)
        assert await here.blobs.get(job.blob) == jpeg(1)


async def test_wait_brings_the_result_as_soon_as_it_is_recorded(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        sending = asyncio.create_task(here.send(2, wait=10))
        result = await here.work()
        answer = await sending
        assert answer.status_code == 200
        assert answer.json()["id"] == result.id
        assert answer.json()["detections"][0]["label"] == "parcel"


async def test_a_wait_that_is_too_short_answers_202(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        answer = await here.send(2, wait=0.1)
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")


async def test_one_hundred_pictures_at_once_are_one_hundred_jobs(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        answers = await asyncio.gather(*(here.send(seed) for seed in range(100)))
        assert {answer.status_code for answer in answers} == {202}
        jobs = {(await here.take()).id for _ in range(100)}
        assert jobs == {answer.json()["id"] for answer in answers}


async def test_several_parts_of_one_request_are_several_jobs(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        files = [("file", ("../../etc/passwd", jpeg(seed), "text/html")) for seed in range(3)]
        answer = await here.client.post("/v1/images", files=files)
        assert answer.status_code == 202
        told = answer.json()["images"]
        jobs = [await here.take() for _ in range(3)]
        assert [each["id"] for each in told] == [job.id for job in jobs]
        assert [await here.blobs.get(job.blob) for job in jobs] == [jpeg(0), jpeg(1), jpeg(2)]


async def test_one_broken_part_refuses_the_whole_request_and_names_it(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        files = [("file", ("a", jpeg(1))), ("file", ("b", b"no picture"))]
        answer = await here.client.post("/v1/images", files=files)
        assert answer.status_code == 422
        assert "part 2 of 2" in answer.json()["detail"]
        assert (await here.results.unfinished()).count == 0


async def test_eleven_parts_are_too_many(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        answer = await here.client.post("/v1/images", files=[("file", ("a", jpeg(seed))) for seed in range(11)])
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_parts")


async def test_base64_in_json_is_a_picture_too(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        text = base64.b64encode(jpeg(3)).decode()
        for image in (text, f"data:image/jpeg;base64,{text}"):
            assert (await here.client.post("/v1/images", json={"image": image})).status_code == 202
            assert await here.blobs.get((await here.take()).blob) == jpeg(3)


WRONG_JSON = [
    (b"{", "JSON"),
    (b"{}", "exactly one"),
    (b'{"image": "@@"}', "base64"),
    (b'{"url": "http://example.com/", "image": "aaaa"}', "exactly one"),
    (b'{"picture": "x"}', "picture"),
    (b"\xff\xfe", "JSON"),
]


async def test_json_that_is_wrong_is_refused_with_what_would_do(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        headers = {"Content-Type": "application/json"}
        for content, word in WRONG_JSON:
            answer = await here.client.post("/v1/images", content=content, headers=headers)
            assert answer.status_code in {400, 422}, content
            assert word in answer.json()["detail"], content


async def test_what_is_no_picture_is_refused_at_once_and_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for content in (b"", b"hello", b"%PDF-1.4", jpeg(1)[:20], b"\x89PNG\r\n\x1a\n" + b"x" * 40):
            answer = await here.client.post("/v1/images", content=content)
            assert 400 <= answer.status_code < 500, content
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await here.results.unfinished()).count == 0
        assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


WRONG_QUERIES = [
    ("camera=belt-9", "belt-1"),
    ("site=west", "north"),
    ("pipeline=parcel", "did you mean 'parcels'"),
    ("lane=fast", "bulk"),
    ("wait=31", "30"),
    ("wait=nan", "30"),
    ("wait=-1", "30"),
    ("captured_at=yesterday", "captured_at"),
    ("captured_at=2026-01-01T00:00:00", "offset"),
    ("captured_at=2999-01-01T00:00:00Z", "ahead"),
    ("camara=belt-1", "did you mean 'camera'"),
    ("ref=" + "x" * 201, "200"),
    ("site=north&site=south", "twice"),
    ("camera=belt-1&site=south", "north"),
    ("&".join(f"meta.k{n}=v" for n in range(17)), "16"),
    ("meta.=v", "meta key"),
    ("ref=a%00b", "control characters"),
    ("meta.k=%1b[31m", "control characters"),
    ("meta.k=" + "x" * 257, "256"),
    ("deadline=0.2x", "deadline"),
    ("%zz=%ff", "query"),
    ("ref=%ff", "query"),
]


async def test_a_wrong_parameter_is_named_with_what_would_do(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=CAMERAS, sites=SITES) as here:
        for query, word in WRONG_QUERIES:
            answer = await here.client.post(f"/v1/images?{query}", content=jpeg())
            assert answer.status_code in {400, 413}, query
            assert word in answer.json()["detail"], query


async def test_a_camera_brings_its_site_and_pipeline(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=CAMERAS, sites=SITES) as here:
        captured = "2026-01-31T12:00:00+01:00"
        assert (await here.send(camera="belt-1", captured_at=captured, lane="bulk")).status_code == 202
        job = await here.take()
        assert (job.camera, job.site, job.pipeline, job.lane) == ("belt-1", "north", "parcels", "bulk")
        assert job.captured_at == datetime(2026, 1, 31, 11, tzinfo=UTC)


async def test_a_body_over_the_limit_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"max_bytes": 1000}) as here:
        answer = await here.client.post("/v1/images", content=b"x" * 1001)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_chunked_body_is_cut_at_the_limit(tmp_path: Path) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b"x" * 100_000

    async with running(tmp_path, gateway={"max_bytes": 1_000_000}) as here:
        answer = await here.client.post("/v1/images", content=endless())
        assert answer.status_code == 413


async def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"max_pixels": 1000}) as here:
        assert (await here.send()).status_code == 413


# ---------------------------------------------------------------- idempotency
def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_one_key_and_one_body_sent_a_hundred_times_at_once_are_one_job(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        posts = [here.client.post("/v1/images", content=jpeg(1), headers=keyed("k")) for _ in range(100)]
        answers = await asyncio.gather(*posts)
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert (await here.results.unfinished()).count == 1


async def test_one_key_with_another_body_or_other_words_is_a_conflict(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await here.client.post("/v1/images", content=jpeg(1), headers=keyed("k"))
        for query, seed in (("", 2), ("?ref=other", 1)):
            answer = await here.client.post(f"/v1/images{query}", content=jpeg(seed), headers=keyed("k"))
            assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
        assert (await here.results.unfinished()).count == 1


async def test_a_key_is_remembered_over_a_restart_and_gives_the_result_by_then(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        first = await here.client.post("/v1/images", content=jpeg(1), headers=keyed("k"))
        await here.work()
    async with running(tmp_path) as here:
        again = await here.client.post("/v1/images?wait=1", content=jpeg(1), headers=keyed("k"))
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


async def test_several_pictures_under_one_key_are_the_same_jobs_again(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        files = [("file", ("a", jpeg(seed))) for seed in range(3)]
        first = await here.client.post("/v1/images", files=files, headers=keyed("k"))
        again = await here.client.post("/v1/images", files=files, headers=keyed("k"))
        fewer = await here.client.post("/v1/images", files=files[:2], headers=keyed("k"))
        assert first.json()["images"] == again.json()["images"]
        assert fewer.status_code == 409
        assert (await here.results.unfinished()).count == 3


async def test_an_unreadable_key_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        answer = await here.client.post("/v1/images", content=jpeg(), headers=keyed("k" * 256))
        assert answer.status_code == 400


# ---------------------------------------------------------------- duplicates
async def known_answer(here: Running, seed: int) -> str:
    """Send a picture, have it answered, and publish plan and answer as a worker does."""
    await here.cache.set(plan_key("parcels"), b"plan-1", ttl=60)
    await here.send(seed)
    result = await here.work()
    assert result.image is not None
    key = answer_key(result.site, result.image.sha256, "plan-1")
    await here.cache.set(key, msgspec.json.encode(result), ttl=60)
    await asyncio.sleep(1.1)  # the gateway believes a plan for a second
    return result.id


async def test_bytes_that_were_answered_before_are_answered_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        first = await known_answer(here, 5)
        answer = await here.send(5, ref="second")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["duplicate_of"], told["ref"]) == (first, "second")
        assert told["id"] != first
        kept = await here.results.get(told["id"])
        assert kept is not None
        assert kept.duplicate_of == first
        assert (await here.results.unfinished()).count == 0


async def test_an_answer_never_crosses_sites(tmp_path: Path) -> None:
    async with running(tmp_path, sites=SITES) as here:
        await known_answer(here, 5)
        assert (await here.send(5, site="south")).status_code == 202


async def test_another_plan_needs_another_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await known_answer(here, 5)
        await here.cache.set(plan_key("parcels"), b"plan-2", ttl=60)
        await asyncio.sleep(1.1)
        assert (await here.send(5)).status_code == 202


# ---------------------------------------------------------------- jobs and results
async def test_a_job_is_queued_until_it_has_a_result(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        id_ = (await here.send(1)).json()["id"]
        assert (await here.client.get(f"/v1/jobs/{id_}")).json() == {"id": id_, "status": "queued"}
        await here.work(status="failed", reason="bad_image: broken")
        told = (await here.client.get(f"/v1/jobs/{id_}")).json()
        assert (told["status"], told["result"]["reason"]) == ("failed", "bad_image: broken")


async def test_a_long_poll_returns_when_the_result_comes(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        id_ = (await here.send(1)).json()["id"]
        polling = asyncio.create_task(here.client.get(f"/v1/jobs/{id_}", params={"wait": 20}))
        await asyncio.sleep(0.1)
        await here.work()
        told = (await polling).json()
        assert (told["status"], told["result"]["id"]) == ("completed", id_)


async def test_a_long_poll_of_a_finished_job_returns_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        id_ = (await here.send(1)).json()["id"]
        await here.work()
        assert (await here.client.get(f"/v1/jobs/{id_}", params={"wait": 20})).json()["status"] == "completed"


async def test_an_unknown_id_is_404_whatever_it_looks_like(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for id_ in ("nope", "../../etc/passwd", "%00", str(uuid.uuid4()), "a" * 5000):
            for path in ("/v1/jobs/{}", "/v1/results/{}", "/v1/results/{}/image"):
                assert (await here.client.get(path.format(id_))).status_code == 404, id_


async def test_a_failed_job_can_be_replayed_and_says_what_it_replays(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        id_ = (await here.send(1, ref="r")).json()["id"]
        assert (await here.client.post(f"/v1/jobs/{id_}/replay")).status_code == 409
        await here.work(status="failed", reason="decoder_crashed: x", image=None, detections=[])
        answer = await here.client.post(f"/v1/jobs/{id_}/replay")
        assert (answer.status_code, answer.json()["replay_of"]) == (202, id_)
        job = await here.take()
        assert (job.id, job.replay_of, job.ref) == (answer.json()["id"], id_, "r")
        assert await here.blobs.get(job.blob) == jpeg(1)


async def test_results_are_listed_newest_first_in_pages_and_filtered(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for seed in range(5):
            await here.send(seed, ref=f"r{seed}")
            await here.work()
        first = (await here.client.get("/v1/results?limit=3")).json()
        second = (await here.client.get(f"/v1/results?limit=3&cursor={first['next']}")).json()
        assert [r["ref"] for r in first["results"] + second["results"]] == ["r4", "r3", "r2", "r1", "r0"]
        assert second["next"] is None
        for query, count in {
            "ref=r2": 1,
            "label=parcel": 5,
            "label=cat": 0,
            "min_score=0.95": 0,
            "status=failed": 0,
        }.items():
            assert len((await here.client.get(f"/v1/results?{query}")).json()["results"]) == count, query
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        answer = await here.client.get("/v1/results", params={"since": tomorrow})
        assert answer.json()["results"] == []


WRONG_FILTERS = [
    "limit=0",
    "limit=1001",
    "limit=x",
    "lable=cat",
    "min_score=2",
    "since=noon",
    "status=done",
    "cursor=x",
]


async def test_a_filter_that_is_wrong_is_refused_not_ignored(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for query in WRONG_FILTERS:
            answer = await here.client.get(f"/v1/results?{query}")
            assert answer.status_code in {400, 404, 422}, query
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_picture_comes_back_without_what_was_hidden_in_it(tmp_path: Path) -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "<script>alert(1)</script>"
    exif[0x0112] = 6
    Image.new("RGB", (64, 48), (200, 10, 10)).save(out, "JPEG", exif=exif)
    async with running(tmp_path) as here:
        await here.client.post("/v1/images", content=out.getvalue() + b"PK\x03\x04<?php")
        result = await here.work()
        answer = await here.client.get(f"/v1/results/{result.id}/image")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        for hidden in (b"script", b"Exif", b"PK\x03\x04", b"<?php"):
            assert hidden not in answer.content
        assert Image.open(io.BytesIO(answer.content)).size == (48, 64)  # upright


async def test_an_overlay_draws_what_was_found_and_width_makes_it_small(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await here.client.post("/v1/images", content=jpeg(1, (640, 480)))
        box = Detection("parcel", 0.9, (100.0, 100.0, 500.0, 400.0), "find")
        job = await here.take()
        info = ImageInfo(job.blob.sha256, 640, 480, "jpeg", job.blob.size)
        result = result_of(job, detections=[box], image=info)
        await here.results.save_many([result])
        plain = await here.client.get(f"/v1/results/{result.id}/image?width=320")
        drawn = await here.client.get(f"/v1/results/{result.id}/image?width=320&overlay=1")
        assert Image.open(io.BytesIO(plain.content)).size == (320, 240)
        assert Image.open(io.BytesIO(drawn.content)).size == (320, 240)
        assert plain.content != drawn.content


async def test_the_picture_of_a_failed_job_is_not_decoded_here(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await here.send(1)
        result = await here.work(status="failed", reason="decoder_crashed: x", image=None, detections=[])
        answer = await here.client.get(f"/v1/results/{result.id}/image")
        assert answer.status_code == 404
        assert "decoder_crashed" in answer.json()["detail"]


async def test_exports_hold_every_result_and_no_formula(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for seed in range(3):
            await here.send(seed, ref="=cmd|' /C calc'!A0")
            await here.work()
        lines = (await here.client.get("/v1/results/export")).text.splitlines()
        assert [json.loads(line)["status"] for line in lines] == ["completed"] * 3
        answer = await here.client.get("/v1/results/export?format=csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["ref"] for row in rows] == ["'=cmd|' /C calc'!A0"] * 3
        assert rows[0]["labels"] == "intact parcel"
        refused = await here.client.get("/v1/results/export?format=xml")
        assert refused.status_code == 400
        assert "jsonl, csv" in refused.json()["detail"]


# ---------------------------------------------------------------- events
async def read_events(answer: httpx.Response, count: int) -> list[dict[str, str]]:
    """The first `count` events of a stream."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif not line:
            if "data" in fields and "id" in fields:  # a heartbeat has no number
                found.append(fields)
            fields = {}
        if len(found) == count:
            return found
    return found


async def test_the_live_stream_brings_results_as_they_are_recorded(tmp_path: Path) -> None:
    async with running(tmp_path) as here, here.client.stream("GET", "/v1/events") as stream:
        reading = asyncio.create_task(read_events(stream, 2))
        await asyncio.sleep(0.2)
        ids = []
        for seed in range(2):
            await here.send(seed)
            ids.append((await here.work()).id)
        events = await asyncio.wait_for(reading, 10)
        assert [json.loads(event["data"])["id"] for event in events] == ids
        assert [event["event"] for event in events] == ["result", "result"]


async def test_a_reader_that_comes_back_misses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        ids = []
        for seed in range(4):
            await here.send(seed)
            ids.append((await here.work()).id)
        async with here.client.stream("GET", "/v1/events?after=0") as stream:
            events = await asyncio.wait_for(read_events(stream, 4), 10)
        assert [json.loads(event["data"])["id"] for event in events] == ids
        headers = {"Last-Event-ID": events[1]["id"]}
        async with here.client.stream("GET", "/v1/events?after=0", headers=headers) as stream:
            events = await asyncio.wait_for(read_events(stream, 2), 10)
        assert [json.loads(event["data"])["id"] for event in events] == ids[2:]


async def test_a_page_made_since_the_gateways_last_look_is_not_told_to_load_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_follower: Follower, _wait: float) -> bool:
        await asyncio.sleep(3600)
        return False

    monkeypatch.setattr(Follower, "_look", never)
    async with running(tmp_path) as here:
        await here.send(1)
        await here.work()
        known = await here.results.last_seq()
        for after, told in ((known, False), (known + 1, True)):  # one that is ahead of the log knew another log
            async with here.client.stream("GET", f"/v1/events?after={after}") as stream:
                first = [line async for line in _until_heartbeat(stream.aiter_lines())]
            assert ("event: resync" in first) is told


async def _until_heartbeat(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == "event: heartbeat":
            return


# ---------------------------------------------------------------- cameras, catalogue, system
async def test_every_frame_of_a_camera_is_accounted_for(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=CAMERAS, sites=SITES) as here:
        await here.send(1, camera="belt-1")
        await here.send(2, camera="belt-1")
        await here.work()
        report = {
            "captured": 7,
            "accepted": 1,
            "dropped": {"newest_first": 3},
            "spooled": 1,
            "in_hand": 2,
            "state": "live",
        }
        answer = await here.client.put("/v1/cameras/belt-1/status", json=report)
        assert answer.status_code == 204
        told = (await here.client.get("/v1/cameras")).json()["cameras"][0]
        assert told["state"] == "live"
        assert told["frames"] == {
            "captured": 7,
            "completed": 1,
            "failed": 0,
            "duplicates": 0,
            "dropped": {"newest_first": 3},
            "spooled": 1,
            "in_flight": 2,
            "balance": 0,
        }


async def test_the_catalogue_tells_sites_pipelines_and_models_without_secrets(tmp_path: Path) -> None:
    async with running(tmp_path, cameras=CAMERAS, sites=SITES) as here:
        sites = (await here.client.get("/v1/sites")).json()["sites"]
        assert [site["name"] for site in sites] == ["north", "south"]
        assert sites[0]["shift"]["name"] in {"06:00", "14:00", "22:00"}
        pipelines = (await here.client.get("/v1/pipelines")).json()
        assert (pipelines["default"], pipelines["pipelines"][0]["steps"][0]["model"]) == ("parcels", "finder")
        for path in ("/v1/cameras", "/v1/system"):
            assert "secret" not in (await here.client.get(path)).text


async def test_installed_models_say_what_they_are_and_broken_ones_why(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_brightness_bundle(models)
    broken = write_brightness_bundle(models, "broken")
    (broken / "model.toml").write_text("name = 'broken'")
    async with running(tmp_path / "data", inference={"models": str(models)}) as here:
        told = {model["name"]: model for model in (await here.client.get("/v1/models")).json()["models"]}
        assert told["brightness"]["labels"] == ["dark", "bright"]
        assert "+" in told["brightness"]["version"]
        assert "error" in told["broken"]


async def test_what_breaks_inside_is_problem_json_with_an_id_and_no_detail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a secret of the inside")

    async with running(tmp_path) as here:
        monkeypatch.setattr(SqlResults, "find", broken)
        monkeypatch.setattr(SqlResults, "keep_jobs", broken)
        for answer in (await here.client.get("/v1/results"), await here.send(1)):
            assert (answer.status_code, answer.json()["code"]) == (500, "internal")
            assert "secret" not in answer.text
            assert answer.json()["id"] in answer.json()["detail"]


async def test_health_readiness_metrics_and_docs_are_there(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await here.send(1)
        await asyncio.sleep(0.5)
        assert (await here.client.get("/healthz")).status_code == 200
        ready = (await here.client.get("/readyz")).json()
        waiting = ["parcels"]  # no worker runs beside this gateway
        assert ready == {"ready": True, "not_ready": {}, "models_not_ready": [], "pipelines_not_ready": waiting}
        assert "eyeline_api_request_seconds" in (await here.client.get("/metrics")).text
        assert (await here.client.get("/v1/slo")).status_code == 200
        assert (await here.client.get("/v1/system")).json()["unfinished"]["count"] == 1
        assert "/v1/images" in (await here.client.get("/openapi.json")).json()["paths"]
        assert "POST /v1/images" in (await here.client.get("/docs")).text


async def test_an_unknown_path_and_a_wrong_method_are_problem_json(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for method, path, status in (
            ("GET", "/nope", 404),
            ("DELETE", "/v1/images", 405),
            ("PATCH", "/v1/results", 405),
        ):
            answer = await here.client.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_paths_that_callers_make_up_are_no_series(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for number in range(20):
            await here.client.get(f"/made-up-{number}")
            await here.client.get(f"/v1/jobs/made-up-{number}")
        assert "made-up" not in (await here.client.get("/metrics")).text
