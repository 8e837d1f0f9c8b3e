"""The worker with real queue, stores, decoder children and a real inference server over models whose answer is the brightness."""

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from eyeline.core.clock import utcnow
from eyeline.core.dedupe import plan_key
from eyeline.core.errors import BlobError, QueueError, StoreError
from eyeline.core.ids import uuid7
from eyeline.core.types import BlobRef, Delivery, Message, Result, Reuse
from eyeline.inference.client import InferenceClient
from eyeline.queues.base import Queue
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache.definitions import Definitions
from eyeline.worker import images
from eyeline.worker.worker import WAIT
from tests.fake_models import write_box_bundle, write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process
from tests.pictures import jpeg, unique_jpeg
from tests.plant import Plant, open_plant, plant_settings, worker_process


def grey(level: int, width: int = 96, height: int = 64, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(out, kind)
    return out.getvalue()


def brightness(result: Result) -> float:
    """What the model said of it, 0..255."""
    assert result.status == "completed", result.reason
    return 255 * next(each.score for each in result.classifications if each.label == "bright")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_brightness_bundle(folder)
    write_box_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[InferenceProcess]:
    with inference_process(models) as running:
        yield running


@pytest.fixture
async def plant(tmp_path: Path, server: InferenceProcess, models: Path) -> AsyncIterator[Plant]:
    async with open_plant(plant_settings(tmp_path / "data", server.url, models)) as opened:
        yield opened


# ---------------------------------------------------------------- the way of an image
async def test_a_result_says_what_was_found_in_which_image_by_which_model(plant: Plant) -> None:
    async with plant.worker():
        job = await plant.submit(grey(200), camera="belt-1", ref="order 7", meta={"shift": "early"})
        result = await plant.result(job)
        await plant.empty()
    assert brightness(result) == pytest.approx(200, abs=1)
    assert [each.step for each in result.classifications] == ["light", "light"]
    assert result.image is not None
    assert (result.image.width, result.image.height, result.image.format) == (96, 64, "png")
    assert result.image.sha256 == hashlib.sha256(grey(200)).hexdigest()
    assert [(model.name, model.runtime) for model in result.models] == [("brightness", "onnxruntime")]
    assert result.environment
    assert (result.camera, result.ref, result.meta) == ("belt-1", "order 7", {"shift": "early"})
    assert set(result.timings) == {"queue", "fetch", "decode", "preprocess", "infer", "postprocess"}


async def test_many_images_at_once_each_get_their_own_answer(plant: Plant) -> None:
    levels = [(step * 37) % 256 for step in range(60)]
    async with plant.worker():
        jobs = [await plant.submit(grey(level, 64 + step), camera="c") for step, level in enumerate(levels)]
        answers = [brightness(await plant.result(job)) for job in jobs]
        await plant.empty()
    assert answers == pytest.approx(levels, abs=1)


async def test_boxes_come_back_in_pixels_of_the_upright_original(plant: Plant) -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter: 300 × 200 is shown as 200 × 300
    Image.fromarray(np.full((200, 300, 3), 255, np.uint8)).save(out, "JPEG", exif=exif)
    async with plant.worker():
        result = await plant.result(await plant.submit(out.getvalue(), pipeline="box"))
    assert result.image is not None
    assert (result.image.width, result.image.height) == (200, 300)
    assert result.detections[0].box == pytest.approx((50, 75, 150, 225), abs=1)
    assert (result.detections[0].label, result.detections[0].step) == ("thing", "find")


async def test_a_model_on_crops_describes_the_box_it_was_shown(plant: Plant) -> None:
    picture = np.full((480, 640, 3), 90, np.uint8)
    picture[120:360, 160:480] = 250  # the middle quarter, where the detector puts its box
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    async with plant.worker():
        result = await plant.result(await plant.submit(out.getvalue(), pipeline="both"))
    assert len(result.detections) == 1
    labels = result.detections[0].attributes["classifications"]
    assert [entry["step"] for entry in labels] == ["light", "light"]
    bright = next(entry["score"] for entry in labels if entry["label"] == "bright")
    assert bright > 0.85  # the crop, not the picture, whose mean is 130
    assert not result.classifications
    assert [model.name for model in result.models] == ["box", "brightness"]


async def test_the_fingerprint_of_each_pipeline_is_published(plant: Plant) -> None:
    async with plant.worker():
        found = await plant.until(lambda: plant.cache.get(plan_key("both")), 10, "a published fingerprint")
    assert len(found) == 64


# ---------------------------------------------------------------- bad input
def invalid_files() -> dict[str, bytes]:
    good = jpeg()
    png = grey(50)
    return {
        "empty": b"",
        "text": b"this is no picture at all",
        "cut JPEG": good[: len(good) // 2],
        "cut PNG": png[: len(png) // 2],
        "wrong CRC": png[:40] + bytes([png[40] ^ 1]) + png[41:],
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "ZIP": b"PK\x03\x04" + bytes(100),
        "PNG of 60000 × 60000": png[:16] + (60000).to_bytes(4, "big") * 2 + png[24:],
    }


async def test_every_kind_of_invalid_file_fails_alone(plant: Plant) -> None:
    bad, good = invalid_files(), {level: unique_jpeg(level) for level in range(16)}
    async with plant.worker() as worker:
        failing = {name: await plant.submit(data) for name, data in bad.items()}
        passing = {level: await plant.submit(data) for level, data in good.items()}
        failed = {name: await plant.result(job) for name, job in failing.items()}
        passed = {level: await plant.result(job) for level, job in passing.items()}
        pids = worker.decoder_pids
        await plant.empty()
    for name, result in failed.items():
        assert result.status == "failed", name
        assert result.reason, name
        assert ": " in result.reason, name
        assert await plant.attempts(result.id) == 0, name
    assert failed["PNG of 60000 × 60000"].reason is not None
    assert failed["PNG of 60000 × 60000"].reason.startswith("too_large: ")
    assert all(brightness(result) == pytest.approx(20 + 30 * (level % 8), abs=3) for level, result in passed.items())
    assert len(pids) == 1


async def test_a_poison_image_fails_after_its_attempts_and_charges_nobody_else(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = grey(66)
    monkeypatch.setenv("EYELINE_FAULT", f"decoder_abort={hashlib.sha256(poison).hexdigest()}")
    async with plant.worker() as worker:
        bad = await plant.submit(poison)
        jobs = [await plant.submit(unique_jpeg(number)) for number in range(50)]
        good = [await plant.result(job, 60) for job in jobs]
        result = await plant.result(bad, 60)
        await plant.until(lambda: _is(len(worker.decoder_pids) == 1), 10, "a full pool")
        await plant.empty()
    assert all(each.status == "completed" for each in good)
    assert result.status == "failed"
    assert (result.reason or "").startswith("decoder_crashed: ")
    assert await plant.attempts(bad) == 5
    assert [await plant.attempts(job) for job in jobs] == [0] * 50


async def _is(value: bool) -> bool:
    return value


async def test_an_image_whose_bytes_are_gone_fails_with_that_reason(plant: Plant) -> None:
    nowhere = BlobRef(f"default/{'0' * 64}", 10, "0" * 64)
    async with plant.worker():
        job = await plant.enqueue(nowhere, site="default", pipeline="brightness")
        result = await plant.result(job)
    assert (result.reason or "").startswith("image_missing: ")


async def test_an_expired_job_fails_before_it_is_decoded(plant: Plant) -> None:
    job = await plant.submit(b"never looked at", deadline=utcnow() - timedelta(seconds=1))
    async with plant.worker():
        result = await plant.result(job)
    assert (result.reason or "").startswith("expired: ")


async def test_a_job_for_an_unknown_pipeline_is_handed_back_not_failed(plant: Plant) -> None:
    other = plant_settings(
        plant.settings.data_dir,
        plant.settings.inference.url,
        plant.settings.inference.models,
        pipelines=[{"name": "box", "steps": [{"name": "find", "model": "box"}]}],
    )
    stranger = Plant(other)
    stranger.queue = plant.queue
    job = await plant.submit(grey(10))
    async with stranger.worker():
        known = await plant.submit(grey(11, 128), pipeline="box")
        await plant.result(known)
        assert await plant.results.get(job) is None
    assert await plant.attempts(job) == 0
    async with plant.worker():
        assert brightness(await plant.result(job)) == pytest.approx(10, abs=1)


async def test_a_message_that_is_no_job_becomes_a_failed_result(plant: Plant) -> None:
    message = Message(id=uuid7(), topic="brightness.live", group="north", body=b'{"id": 7}')
    async with plant.worker():
        await plant.queue.put_many([message])
        result = await plant.result(message.id)
        await plant.empty()
    assert (result.reason or "").startswith("unreadable_job: ")
    assert (result.site, result.pipeline) == ("north", "brightness")


async def test_a_job_for_newer_workers_is_left_to_them(plant: Plant) -> None:
    async with plant.worker():
        job = await plant.submit(grey(8), min_reader=99)
        await plant.result(await plant.submit(grey(9)))
        assert await plant.results.get(job) is None
        stats = await plant.queue.stats()
    assert stats.depth + stats.in_flight == 1
    assert await plant.attempts(job) == 0


async def test_a_job_for_another_definition_waits_while_somebody_has_it(plant: Plant) -> None:
    await Definitions(plant.cache, {"brightness": "f" * 64}).tell()
    async with plant.worker():
        other = await plant.submit(grey(11), pipeline_digest="f" * 64)
        mine = await plant.submit(grey(12), pipeline_digest=plant.settings.pipelines[0].digest)
        gone = await plant.submit(grey(13), pipeline_digest="e" * 64)
        assert [(await plant.result(job)).status for job in (mine, gone)] == ["completed", "completed"]
        assert await plant.results.get(other) is None
        stats = await plant.queue.stats()
    assert stats.depth + stats.in_flight == 1
    assert await plant.attempts(other) == 0


async def test_one_that_is_drained_finishes_what_it_has_takes_nothing_new_and_comes_back(plant: Plant) -> None:
    async with plant.worker() as worker:
        jobs = [await plant.submit(unique_jpeg(number)) for number in range(40)]
        await plant.result(jobs[0])
        worker.drain(wanted=True)

        async def drained() -> bool:
            return worker.state == "drained"

        assert not await drained()
        await plant.until(drained, 20, "nothing is in hand any more")
        assert worker.in_hand == 0
        done = [job for job in jobs if await plant.results.get(job) is not None]
        jobs += [await plant.submit(unique_jpeg(number)) for number in (40, 41)]
        await asyncio.sleep(2 * WAIT)  # a receive would have come back with it
        stats = await plant.queue.stats()
        assert (stats.depth, stats.in_flight) == (len(jobs) - len(done), 0)
        assert stats.depth > 1
        worker.drain(wanted=False)
        assert {(await plant.result(job)).status for job in jobs} == {"completed"}
        assert not await drained()
        assert [await plant.attempts(job) for job in jobs] == [0] * len(jobs)


class Unshared:
    """A real client of a server that cannot map our memory."""

    def __init__(self, behind: InferenceClient) -> None:
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    async def register(self, segment: str, size: int) -> bool:
        return False


async def test_without_shared_memory_tensors_are_sent_and_answers_are_the_same(plant: Plant) -> None:
    client = InferenceClient(plant.settings.inference.url, plant.settings.inference.models)
    async with plant.worker(predictor=Unshared(client)):
        jobs = {level: await plant.submit(grey(level)) for level in range(0, 250, 50)}
        for level, job in jobs.items():
            assert brightness(await plant.result(job)) == pytest.approx(level, abs=1)
    await client.close()


async def test_each_result_names_the_very_version_that_answered_also_during_a_swap(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_brightness_bundle(folder)
    with inference_process(folder) as server:
        settings = plant_settings(
            tmp_path / "data",
            server.url,
            folder,
            pipelines=[{"name": "brightness", "steps": [{"name": "light", "model": "brightness"}]}],
        )
        async with open_plant(settings) as plant, plant.worker():
            jobs = [await plant.submit(grey(100, 64 + number)) for number in range(10)]
            await plant.result(jobs[-1])
            shutil.rmtree(folder / "brightness")
            write_brightness_bundle(folder, version="2.0.0", offset=0.2)
            swap = asyncio.create_task(
                asyncio.to_thread(server.request, "/v2/repository/models/brightness/load", b"{}")
            )
            number = 0
            while not swap.done() or number < 40:
                jobs.append(await plant.submit(grey(100, 200 + number)))
                number += 1
                await asyncio.sleep(0.02)
            assert (await swap)[0] == 200
            jobs += [await plant.submit(grey(100, 1000 + number)) for number in range(5)]  # after it, for certain
            found = [await plant.result(job) for job in jobs]
            assert [await plant.attempts(job) for job in jobs] == [0] * len(jobs)
        expected = {"1.0.0": 100.0, "2.0.0": 100 + 0.2 * 255}
        versions = [result.models[0].version.partition("+")[0] for result in found]
        assert set(versions) == {"1.0.0", "2.0.0"}
        for result, version in zip(found, versions, strict=True):
            assert brightness(result) == pytest.approx(expected[version], abs=1.5)


# ---------------------------------------------------------------- once
async def test_a_message_delivered_twice_gives_one_result(plant: Plant) -> None:
    async with plant.worker():
        jobs = [await plant.submit(unique_jpeg(number), times=2 + number % 2) for number in range(20)]
        for job in jobs:
            await plant.result(job)
        await plant.empty()
    assert sorted(await plant.events()) == sorted(jobs)


async def test_the_same_bytes_are_inferred_once_and_the_others_name_the_first(plant: Plant) -> None:
    async with plant.worker():
        jobs = [await plant.submit(grey(180), camera=f"c{number}") for number in range(12)]
        found = [await plant.result(job) for job in jobs]
        late = await plant.result(await plant.submit(grey(180), camera="later"))
        elsewhere = await plant.result(await plant.submit(grey(180), site="north"))
        await plant.empty()
    firsts = [each for each in found if each.duplicate_of is None]
    assert len(firsts) == 1
    assert {each.duplicate_of for each in [*found, late]} == {None, firsts[0].id}
    assert late.camera == "later"
    assert {round(brightness(each)) for each in [*found, late]} == {180}
    assert elsewhere.duplicate_of is None  # dedupe never crosses sites


async def test_a_cameras_repeated_frame_reuses_the_answer_and_one_with_a_mark_does_not(
    tmp_path: Path, server: InferenceProcess, models: Path
) -> None:
    near = [{"name": "belt", "url": "synthetic://", "near_duplicates": 48}, {"name": "dock", "url": "synthetic://"}]
    settings = plant_settings(tmp_path / "data", server.url, models, cameras=near)
    async with open_plant(settings) as plant, plant.worker():
        first = await plant.result(await plant.submit(grey(180), camera="belt"))
        again = await plant.result(await plant.submit(marked(180, 3), camera="belt", ref="later"))
        elsewhere = await plant.result(await plant.submit(marked(180, 4), camera="dock"))
        other = await plant.result(await plant.submit(marked(180, 48), camera="belt"))
    assert (first.reuse, other.reuse, elsewhere.reuse) == (None, None, None)
    assert other.duplicate_of is None
    assert (again.duplicate_of, again.ref, again.reuse) == (first.id, "later", Reuse("near", 1.5, 5.0))
    assert again.classifications == first.classifications
    assert again.image is not None
    assert again.image.sha256 == hashlib.sha256(marked(180, 3)).hexdigest()
    assert again.timings.get("infer") is None


def marked(level: int, change: int) -> bytes:
    """A grey picture with ten pixels that differ."""
    pixels = np.full((64, 96, 3), level, np.uint8)
    pixels[20:22, 30:35] -= change
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


async def test_a_replay_computes_anew(plant: Plant) -> None:
    async with plant.worker():
        first = await plant.result(await plant.submit(grey(33)))
        again = await plant.result(await plant.submit(grey(33), replay_of=first.id))
    assert (again.duplicate_of, again.replay_of) == (None, first.id)


async def test_failures_are_never_answers_for_others(plant: Plant) -> None:
    async with plant.worker():
        jobs = [await plant.submit(b"no picture") for _ in range(3)]
        found = [await plant.result(job) for job in jobs]
    assert [(each.status, each.duplicate_of) for each in found] == [("failed", None)] * 3


# ---------------------------------------------------------------- ends
def children_of(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(pid).children()
    return found


async def test_the_jobs_of_a_killed_worker_are_taken_over_once_each(
    tmp_path: Path, server: InferenceProcess, models: Path
) -> None:
    settings = plant_settings(tmp_path / "data", server.url, models, queue={"lease": 1.5})
    async with open_plant(settings) as plant:
        jobs = [await plant.submit(unique_jpeg(number)) for number in range(80)]
        with worker_process(settings) as process:
            await plant.until(plant.events, 60, "first results")
            orphans = children_of(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        assert orphans
        async with plant.worker():
            for job in jobs:
                assert (await plant.result(job)).status == "completed"
            await plant.empty()
        assert sorted(await plant.events()) == sorted(jobs)
        assert [await plant.attempts(job) for job in jobs] == [0] * 80
        assert await asyncio.to_thread(_all_ended, orphans)


def _stop_between_transactions(process: subprocess.Popen[bytes], data: Path) -> None:
    """SIGSTOP, but not while it holds a write lock: an embedded database waits for a stopped writer for ever."""
    for _ in range(200):
        process.send_signal(signal.SIGSTOP)
        if all(_writable(path) for path in data.glob("*.db")):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.003)
    raise AssertionError("the worker was always within a transaction")


def _writable(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True


def _all_ended(processes: Sequence[psutil.Process]) -> bool:
    """Within ten seconds; one that only waits for this machine's init to notice its end has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(_alive(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_sigterm_finishes_what_is_in_hand_and_leaves_the_rest(
    tmp_path: Path, server: InferenceProcess, models: Path
) -> None:
    settings = plant_settings(tmp_path / "data", server.url, models)
    async with open_plant(settings) as plant:
        with worker_process(settings) as process:
            jobs = [await plant.submit(unique_jpeg(number)) for number in range(200)]
            await plant.until(plant.events, 60, "first results")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
        stats = await plant.queue.stats()
        done = await plant.events()
        assert stats.in_flight == 0
        assert stats.depth + len(done) == 200
        async with plant.worker():
            for job in jobs:
                await plant.result(job)


async def test_what_cannot_be_finished_in_time_is_handed_back_at_once(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    slow = tmp_path_factory.mktemp("slow")
    write_brightness_bundle(slow, work=300, max_batch=1)  # some tenths of a second for each image
    with inference_process(slow, instances=1) as server:
        settings = plant_settings(
            tmp_path / "data",
            server.url,
            slow,
            pipelines=[{"name": "brightness", "steps": [{"name": "light", "model": "brightness"}]}],
            worker={"drain_seconds": 0.1, "concurrency": 8},
        )
        async with open_plant(settings) as plant:
            jobs = [await plant.submit(unique_jpeg(number)) for number in range(8)]
            async with plant.worker():
                await plant.until(lambda: _in_flight(plant), 30, "jobs in hand")
                await asyncio.sleep(0.2)
            stats = await plant.queue.stats()
            assert stats.in_flight == 0
            assert stats.depth >= 1
            assert stats.depth + len(await plant.events()) == 8
            again = await plant.queue.receive(8, 1.0, 30.0)  # visible without a delay
            assert len(again) == stats.depth
            assert [await plant.attempts(job) for job in jobs] == [0] * 8


async def _in_flight(plant: Plant) -> int:
    return (await plant.queue.stats()).in_flight


async def test_a_worker_that_wakes_up_too_late_changes_nothing(
    tmp_path: Path, server: InferenceProcess, models: Path
) -> None:
    settings = plant_settings(tmp_path / "data", server.url, models, queue={"lease": 1.0})
    async with open_plant(settings) as plant:
        jobs = [await plant.submit(unique_jpeg(number)) for number in range(60)]
        with worker_process(settings) as zombie:
            await plant.until(plant.events, 60, "first results")
            await asyncio.to_thread(_stop_between_transactions, zombie, tmp_path / "data")
            async with plant.worker():
                first = {job: await plant.result(job) for job in jobs}
                await plant.empty()
            zombie.send_signal(signal.SIGCONT)
            probe = await plant.submit(unique_jpeg(999))  # answered by the one that woke up
            await plant.result(probe, 60)
            zombie.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(zombie.wait, 30) == 0
        assert {job: await plant.results.get(job) for job in jobs} == first
        assert sorted(await plant.events()) == sorted([*jobs, probe])


class Forgetful:
    """A real queue that does not hear the first acknowledgements: a crash between recording and acknowledging."""

    def __init__(self, behind: Queue, times: int) -> None:
        self._behind = behind
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        if self.times > 0:
            self.times -= 1
            raise QueueError("nothing heard")
        return await self._behind.ack_many(deliveries)


async def test_what_was_recorded_but_not_acknowledged_is_only_acknowledged_when_it_comes_again(
    tmp_path: Path, server: InferenceProcess, models: Path
) -> None:
    settings = plant_settings(tmp_path / "data", server.url, models, queue={"lease": 1.0})
    async with open_plant(settings) as plant:
        forgetful = Forgetful(plant.queue, 3)
        late = REGISTRY.get_sample_value("eyeline_late_results_total")
        async with plant.worker(queue=forgetful):
            jobs = [await plant.submit(unique_jpeg(number)) for number in range(10)]
            first = {job: await plant.result(job) for job in jobs}
            await plant.empty()
        assert forgetful.times == 0
        assert REGISTRY.get_sample_value("eyeline_late_results_total") == late  # nothing was computed twice
        assert {job: await plant.results.get(job) for job in jobs} == first
        assert sorted(await plant.events()) == sorted(jobs)


# ---------------------------------------------------------------- outages
async def test_an_inference_outage_charges_nobody_and_ends_by_itself(tmp_path: Path, models: Path) -> None:
    with inference_process(models) as first:
        settings = plant_settings(tmp_path / "data", first.url, models)
        async with open_plant(settings) as plant, plant.worker():
            await plant.result(await plant.submit(grey(1)))
            first.process.kill()
            first.process.wait(10)
            jobs = [await plant.submit(unique_jpeg(number)) for number in range(30)]
            await asyncio.sleep(1.5)
            assert not [job for job in jobs if await plant.results.get(job) is not None]
            with inference_process(models, port=first.port):
                found = [await plant.result(job, 60) for job in jobs]
                await plant.empty()
            assert all(each.status == "completed" for each in found)
            assert [await plant.attempts(job) for job in jobs] == [0] * 30


class Flaky:
    """A real result store behind a switch."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self.down = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._behind, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.down:
                raise StoreError("the switch is off", transient=True)
            return await method(*args, **kwargs)

        return call


async def test_a_database_outage_charges_nobody_and_ends_by_itself(plant: Plant) -> None:
    flaky = Flaky(plant.results)
    async with plant.worker(results=flaky):
        await plant.result(await plant.submit(grey(1)))
        flaky.down = True
        jobs = [await plant.submit(unique_jpeg(number)) for number in range(12)]
        broken = await plant.submit(b"no picture, to be recorded as such")
        await asyncio.sleep(1.0)
        flaky.down = False
        found = [await plant.result(job, 60) for job in jobs]
        assert all(each.status == "completed" for each in found)
        assert (await plant.result(broken, 60)).status == "failed"
        await plant.empty()
    assert [await plant.attempts(job) for job in [*jobs, broken]] == [0] * 13
    assert len(await plant.events()) == 14


class Silent:
    """A real blob store that answers for nothing, or for all but some, and knows what it was asked for."""

    def __init__(self, behind: BlobStore) -> None:
        self._behind = behind
        self.down = False
        self.unreadable: set[str] = set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    async def get(self, ref: BlobRef) -> bytes:
        self.asked.append(ref.url)
        if self.down or ref.url in self.unreadable:
            raise BlobError("no answer")
        return await self._behind.get(ref)


async def test_a_silent_blob_store_is_not_tried_with_one_image_after_the_other_and_one_unreadable_image_holds_up_no_other(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ALONE", 0.0)
    silent = Silent(plant.blobs)
    silent.down = True
    async with plant.worker(blobs=silent):
        first, late = unique_jpeg(1), unique_jpeg(2)
        name_of = {data: f"default/{hashlib.sha256(data).hexdigest()}" for data in (first, late)}
        unread = await plant.submit(first)
        await plant.until(lambda: _asked_for_others(silent, set(name_of.values())), 30, "a look for another image")
        await asyncio.sleep(2 * WAIT)  # whatever was being received has come
        second = await plant.submit(late)
        await asyncio.sleep(1.0)
        assert name_of[late] not in silent.asked
        silent.down, silent.unreadable = False, {name_of[first]}
        assert (await plant.result(second)).status == "completed"
        assert await plant.results.get(unread) is None
        silent.unreadable = set()
        assert (await plant.result(unread, 60)).status == "completed"
        await plant.empty()
    assert [await plant.attempts(job) for job in (unread, second)] == [0, 0]


async def _asked_for_others(silent: Silent, names: set[str]) -> bool:
    return bool(set(silent.asked) - names)
