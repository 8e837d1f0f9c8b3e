"""Several real inference servers behind one predictor: killed, frozen, started again, serving something else."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from eyeline.core.errors import ConfigError, InferenceError, InferenceUnavailable
from eyeline.core.settings import load_settings
from eyeline.inference.base import ModelChanged, Rescued, SharedTensor
from eyeline.inference.client import InferenceClient
from eyeline.inference.replicas import Replicas, open_predictor
from eyeline.inference.servers import Servers, id_of
from eyeline.inference.shm import Segment
from eyeline.ops.doctor import checks
from tests.fake_models import write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process
from tests.pictures import unique_jpeg
from tests.plant import open_plant, plant_settings

PIXELS = np.dtype(np.uint8)
FLOATS = np.dtype(np.float32)


@contextmanager
def two_servers(models: Path, others: Path | None = None) -> Iterator[tuple[InferenceProcess, InferenceProcess]]:
    """Started at the same time; the second over `others`, where they are given."""
    with (
        inference_process(models, ready=False, instances=1) as first,
        inference_process(others or models, ready=False, instances=1) as second,
    ):
        first.wait_ready()
        second.wait_ready()
        yield first, second


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InferenceProcess, InferenceProcess]]:
    """For tests that leave both as they found them."""
    folder = tmp_path_factory.mktemp("models")
    write_brightness_bundle(folder)
    write_brightness_bundle(folder, "fussy", nan_below=0.1)
    with two_servers(folder) as running:
        yield running


@asynccontextmanager
async def replicas(*servers: InferenceProcess) -> AsyncIterator[Replicas]:
    opened = open_predictor(", ".join(server.url for server in servers), servers[0].models)
    assert isinstance(opened, Replicas)
    try:
        yield opened
    finally:
        await opened.close()


async def ask(predictor: Replicas, level: int, seconds: float = 10.0) -> float:
    picture = np.full((1, 32, 32, 3), level, np.uint8)
    outputs = await predictor.predict("brightness", {"images": picture}, timeout=seconds, request_id=f"ask-{level}")
    return float(outputs["scores"][0, 1])


async def ask_all(predictor: Replicas, count: int) -> None:
    answers = await asyncio.gather(*(ask(predictor, number % 256) for number in range(count)))
    assert answers == pytest.approx([number % 256 / 255 for number in range(count)], abs=1e-5)


def count(server: InferenceProcess) -> int:
    rows = server.request("/v2/models/stats")[1]["model_stats"]
    return sum(int(row["inference_count"]) for row in rows)


def kill(server: InferenceProcess) -> None:
    server.process.kill()
    server.process.wait(10)


def test_one_url_is_asked_by_the_plain_client(tmp_path: Path) -> None:
    assert type(open_predictor("http://127.0.0.1:1", tmp_path)) is InferenceClient
    for wrong in ("http://127.0.0.1:1,", "http://127.0.0.1:1,http://127.0.0.1:1"):
        with pytest.raises(ConfigError, match="an empty or a repeated part"):
            open_predictor(wrong, tmp_path)


async def test_kill_9_of_a_replica_under_load_fails_no_job_and_it_is_used_again(tmp_path: Path) -> None:
    """The worker's memory is shared with both, so this is also the test that condemned slots are renewed."""
    models = tmp_path / "models"
    write_brightness_bundle(models, work=4)
    pipelines = [{"name": "brightness", "steps": [{"name": "light", "model": "brightness"}]}]
    with two_servers(models) as (first, second), ExitStack() as later:
        settings = plant_settings(tmp_path / "data", f"{first.url},{second.url}", models, pipelines=pipelines)
        async with open_plant(settings) as plant, plant.worker():
            jobs = [await plant.submit(unique_jpeg(number)) for number in range(60)]
            for job in jobs[:10]:
                await plant.result(job)
            assert await asyncio.to_thread(count, first) > 0
            assert await asyncio.to_thread(count, second) > 0
            kill(first)
            found = [await plant.result(job, 60) for job in jobs]
            assert {result.status for result in found} == {"completed"}
            assert [await plant.attempts(job) for job in jobs] == [0] * len(jobs)

            back = later.enter_context(inference_process(models, port=first.port))
            before = await asyncio.to_thread(count, back)
            for number in range(1000, 1400):
                await plant.result(await plant.submit(unique_jpeg(number)))
                if await asyncio.to_thread(count, back) > before:
                    break
            else:
                pytest.fail("the replica that is back was never asked")
            await plant.empty()


async def test_one_that_is_drained_answers_what_it_has_refuses_what_comes_and_is_asked_again_when_it_is_put_back(
    pair: tuple[InferenceProcess, InferenceProcess],
) -> None:
    first, second = pair
    url = f"{first.url},{second.url}"
    servers = Servers(load_settings(environ={}, overrides={"inference": {"url": url}}).inference)
    async with replicas(*pair) as predictor:
        before = await asyncio.to_thread(count, first)
        asked = asyncio.create_task(ask_all(predictor, 100))
        while await asyncio.to_thread(count, first) == before:
            await asyncio.sleep(0)
        assert await servers.drain(id_of(first.url), wanted=True) in {"draining", "drained"}
        await asked  # nobody was cut off, and who was refused got its answer from the other
        assert [about.state for about in await servers.about()] == ["drained", "running"]
        answered = await asyncio.to_thread(count, first)
        await ask_all(predictor, 50)
        assert await asyncio.to_thread(count, first) == answered > before
        status, said = await asyncio.to_thread(first.request, "/v2/health/ready")
        assert (status, "drained" in said["error"]) == (503, True)
        with pytest.raises(InferenceUnavailable, match="drained"):
            await InferenceClient(first.url, first.models).model("brightness")
        assert await servers.drain(id_of(first.url), wanted=False) == "running"
        async with asyncio.timeout(20):
            while await asyncio.to_thread(count, first) == answered:
                await predictor.model("brightness")  # as a worker does every second
                await ask_all(predictor, 10)
    await servers.close()


async def test_a_frozen_replica_costs_half_the_deadline_once_and_its_room_is_not_trusted(
    pair: tuple[InferenceProcess, InferenceProcess],
) -> None:
    first, second = pair
    with Segment.create(1 << 16) as segment:
        async with replicas(first, second) as both:
            await both.model("brightness")
            assert await both.register(segment.name, segment.size)
            segment.view(0, (1, 32, 32, 3), PIXELS)[...] = 51
            pixels = SharedTensor(segment.name, 0, (1, 32, 32, 3), PIXELS)
            room = SharedTensor(segment.name, 8192, (1, 2), FLOATS)

            async def shared() -> tuple[bool, float, float]:
                start = time.monotonic()
                got = await both.predict("brightness", {"images": pixels}, outputs={"scores": room}, timeout=2)
                return isinstance(got, Rescued), float(got["scores"][0, 1]), time.monotonic() - start

            assert not any([(await shared())[0] for _ in range(4)])
            os.kill(first.pid, signal.SIGSTOP)
            try:
                answers = [await shared() for _ in range(20)]
            finally:
                os.kill(first.pid, signal.SIGCONT)
            assert [answer[1] for answer in answers] == [pytest.approx(0.2)] * 20
            assert sum(answer[0] for answer in answers) >= 1  # and few: it is probed, and found frozen
            assert max(answer[2] for answer in answers) < 2
            assert sum(answer[2] > 0.9 for answer in answers) <= 2

            before = await asyncio.to_thread(count, first)
            until = time.monotonic() + 15
            while await asyncio.to_thread(count, first) == before:
                assert time.monotonic() < until, "the replica that woke was never asked"
                await shared()


async def test_a_refusal_after_a_try_without_an_answer_is_no_answer(
    pair: tuple[InferenceProcess, InferenceProcess],
) -> None:
    """The worker takes a refusal for an answer and would use the slot again, into which the frozen replica may yet write."""
    with Segment.create(1 << 16) as segment:
        async with replicas(*pair) as both:
            await both.model("fussy")
            assert await both.register(segment.name, segment.size)
            both._replicas[1].outstanding = 1  # the first one is asked first
            pixels = {"images": SharedTensor(segment.name, 0, (1, 32, 32, 3), PIXELS)}  # black, which it refuses
            rooms = {"scores": SharedTensor(segment.name, 8192, (1, 2), FLOATS)}
            os.kill(pair[0].pid, signal.SIGSTOP)
            try:
                with pytest.raises(InferenceUnavailable, match="a first one may still"):
                    await both.predict("fussy", pixels, outputs=rooms, timeout=1)
            finally:
                os.kill(pair[0].pid, signal.SIGCONT)


async def test_check_says_of_each_replica_how_it_is(
    pair: tuple[InferenceProcess, InferenceProcess], tmp_path: Path
) -> None:
    inference = {"url": f"{pair[0].url}, http://127.0.0.1:1", "models": str(pair[0].models)}
    settings = load_settings(environ={}, overrides={"data_dir": str(tmp_path), "inference": inference})
    found = await checks(settings)[-1]()
    assert found[0] == ("inference", True, f"{pair[0].url}: all models ready")
    assert found[1][:2] == ("inference", False)
    assert "http://127.0.0.1:1 cannot be reached" in found[1][2]


async def test_a_refusal_is_not_asked_again_elsewhere(pair: tuple[InferenceProcess, InferenceProcess]) -> None:
    def refusals() -> int:
        rows = [server.request("/v2/models/fussy/stats")[1]["model_stats"][0] for server in pair]
        return sum(int(row["inference_stats"]["fail"]["count"]) for row in rows)

    before = await asyncio.to_thread(refusals)
    async with replicas(*pair) as both:
        with pytest.raises(InferenceError, match="NaN"):
            await both.predict("fussy", {"images": np.full((1, 32, 32, 3), 5, np.uint8)}, timeout=10)
    assert await asyncio.to_thread(refusals) == before + 1


async def test_a_replica_that_serves_something_else_is_noticed_and_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_brightness_bundle(old)
    write_brightness_bundle(new, version="2.0.0", work=1)
    with two_servers(old, new) as (first, second):
        async with replicas(first, second) as both:
            served = await both.model("brightness")
            assert served.ref.version.startswith("1.0.0")
            before = await asyncio.to_thread(count, second)
            await ask_all(both, 40)
            assert await asyncio.to_thread(count, second) == before
            said = capsys.readouterr().out
            assert said.count("serves otherwise than most and is not asked") == 1
            assert second.url in said

            kill(first)
            picture = {"images": np.zeros((1, 32, 32, 3), np.uint8)}
            with pytest.raises(InferenceUnavailable):  # nobody else serves what was asked for
                await both.predict("brightness", picture, timeout=5, version=served.ref.version)
            now = await both.model("brightness")
            assert now.ref.version.startswith("2.0.0")
            with pytest.raises(ModelChanged, match=r"not 1\.0\.0"):
                await both.predict("brightness", picture, timeout=5, version=served.ref.version)
            await both.predict("brightness", picture, timeout=5, version=now.ref.version)


async def test_requests_of_a_killed_replica_go_to_another_and_with_none_left_it_is_said_at_once(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path, work=20)
    with two_servers(tmp_path) as (first, second):
        async with replicas(first, second) as both:
            await both.model("brightness")
            load = asyncio.create_task(ask_all(both, 120))
            while first.process.poll() is None:
                if await asyncio.to_thread(count, first) > 3:
                    kill(first)
            assert not load.done()
            await load

            kill(second)
            start = time.monotonic()
            with pytest.raises(InferenceUnavailable, match="cannot be reached"):
                await ask(both, 1)
            with pytest.raises(InferenceUnavailable):
                await both.ready()
            assert time.monotonic() - start < 5
            for server in (first, second):
                assert REGISTRY.get_sample_value("eyeline_replica_ejections_total", {"replica": server.url})
            with inference_process(tmp_path, port=second.port):
                assert not await both.ready()
                await both.model("brightness")
                await ask_all(both, 4)
