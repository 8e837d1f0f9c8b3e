"""Our client and our server together: batches, deadlines, full lines, leaving callers, restarts, shared memory."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyeline.core.errors import InferenceError, InferenceUnavailable
from eyeline.inference.base import SharedTensor, Tensor
from eyeline.inference.client import InferenceClient
from eyeline.inference.shm import Segment
from tests.fake_models import write_box_bundle, write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process

PIXELS = np.dtype(np.uint8)
FLOATS = np.dtype(np.float32)
#: Products of matrices that take some 30 ms or more.
SLOW = 100


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_brightness_bundle(folder)
    write_brightness_bundle(folder, "fussy", nan_below=0.1)
    write_box_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[InferenceProcess]:
    with inference_process(models) as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    """One instance, a line of four, one picture at a time."""
    folder = tmp_path_factory.mktemp("slow")
    write_brightness_bundle(folder, "slow", work=SLOW, max_batch=1)
    with inference_process(folder, instances=1, max_queue=4) as running:
        yield running


@pytest.fixture
async def client(server: InferenceProcess, models: Path) -> AsyncIterator[InferenceClient]:
    opened = InferenceClient(server.url, models)
    yield opened
    await opened.close()


def greys(*levels: int) -> Tensor:
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


async def ask(client: InferenceClient, *levels: int, model: str = "brightness", seconds: float = 20.0) -> list[float]:
    outputs = await client.predict(model, {"images": greys(*levels)}, timeout=seconds)
    return [float(value) for value in outputs["scores"][:, 1]]


async def test_the_client_learns_the_contract_from_the_server(client: InferenceClient) -> None:
    served = await client.model("box")
    assert served.contract.output.decoder == "yolov8"
    assert served.outputs == {"scores": (5, 1)}
    assert served.ref.precision == "f32"
    assert await client.ready() == ()


async def test_answers_of_requests_that_ran_together_are_not_mixed_up(client: InferenceClient) -> None:
    levels = [(number * 37) % 256 for number in range(200)]
    answers = await asyncio.gather(*(ask(client, level) for level in levels))
    assert [answer[0] for answer in answers] == pytest.approx([level / 255 for level in levels], abs=1e-5)


def test_requests_that_wait_are_run_together(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path, work=50)  # the work is for a run, not for an image: a batch pays

    async def run(running: InferenceProcess) -> None:
        client = InferenceClient(running.url, tmp_path)
        await asyncio.gather(*(ask(client, level) for level in range(40)))
        await client.close()

    with inference_process(tmp_path, instances=1) as running:
        asyncio.run(run(running))
        row = running.request("/v2/models/stats")[1]["model_stats"][0]
    assert row["inference_count"] == 40
    assert row["execution_count"] <= 10
    assert max(batch["batch_size"] for batch in row["batch_stats"]) == 8


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=8), min_size=1, max_size=16),
    model=st.sampled_from(["brightness", "box"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_result_of_a_batch_is_the_result_of_each_alone(
    server: InferenceProcess, models: Path, batches: list[list[int]], model: str, seed: int
) -> None:
    noise = np.random.default_rng(seed)

    def picture(level: int) -> Tensor:
        return noise.integers(0, level + 1, (32, 32, 3), dtype=np.uint8)

    async def run() -> None:
        client = InferenceClient(server.url, models)
        stacks = [np.stack([picture(level) for level in batch]) for batch in batches]
        together = await asyncio.gather(*(client.predict(model, {"images": stack}, timeout=20) for stack in stacks))
        for stack, answer in zip(stacks, together, strict=True):
            for index in range(len(stack)):
                alone = await client.predict(model, {"images": stack[index : index + 1]}, timeout=20)
                np.testing.assert_allclose(answer["scores"][index], alone["scores"][0], atol=1e-4)
        await client.close()

    asyncio.run(run())


async def test_one_bad_picture_fails_alone(client: InferenceClient) -> None:
    """The fussy model answers NaN for what is darker than 0.1."""
    levels = [200, 5, 100, 150, 0, 255, 80, 30] * 4
    answers = await asyncio.gather(*(ask(client, level, model="fussy") for level in levels), return_exceptions=True)
    for level, answer in zip(levels, answers, strict=True):
        if level < 26:
            assert isinstance(answer, InferenceError)
            assert "NaN" in str(answer)
        else:
            assert isinstance(answer, list)
            assert answer[0] == pytest.approx(level / 255, abs=1e-5)


async def test_shared_memory_carries_pixels_in_and_numbers_out(client: InferenceClient) -> None:
    with Segment.create(1 << 16) as segment:
        assert await client.register(segment.name, segment.size)
        segment.view(0, (2, 32, 32, 3), PIXELS)[...] = greys(51, 204)
        pixels = SharedTensor(segment.name, 0, (2, 32, 32, 3), PIXELS)
        room = SharedTensor(segment.name, 8192, (2, 2), FLOATS)
        got = await client.predict("brightness", {"images": pixels}, outputs={"scores": room}, timeout=5)
        assert got["scores"].tolist() == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]))
        assert segment.view(8192, (2, 2), FLOATS).tolist() == got["scores"].tolist()
        del got
        await client.unregister(segment.name)


async def test_room_too_small_for_the_output_is_refused_before_it_runs(client: InferenceClient) -> None:
    with Segment.create(4096) as segment:
        assert await client.register(segment.name, segment.size)
        room = SharedTensor(segment.name, 4090, (1, 2), FLOATS)
        with pytest.raises(InferenceError, match="no room for it"):
            await client.predict("brightness", {"images": greys(1)}, outputs={"scores": room}, timeout=5)


async def test_a_wrong_input_is_an_inference_error_that_says_both_sides(client: InferenceClient) -> None:
    with pytest.raises(InferenceError, match=r"UINT8 \[1, 16, 16, 3\].*wants UINT8 \[1..8, 32, 32, 3\]"):
        await client.predict("brightness", {"images": np.zeros((1, 16, 16, 3), np.uint8)}, timeout=5)


async def test_an_unknown_model_is_unavailable_not_an_images_fault(client: InferenceClient) -> None:
    with pytest.raises(InferenceUnavailable, match="no model is called 'nothing'"):
        await ask(client, 1, model="nothing")
    with pytest.raises(InferenceUnavailable, match="'nothing' is not served"):
        await client.model("nothing")


async def test_a_server_that_is_not_there_is_unavailable(models: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        client = InferenceClient(f"http://127.0.0.1:{probe.getsockname()[1]}", models)
        for question in (ask(client, 1), client.ready(), client.model("brightness"), client.register("x", 1)):
            with pytest.raises((InferenceUnavailable, FileNotFoundError)):
                await question
        await client.close()


async def test_shared_memory_is_registered_again_after_the_server_was_killed(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    with Segment.create(1 << 16) as segment:
        segment.view(0, (1, 32, 32, 3), PIXELS)[...] = greys(102)
        pixels = SharedTensor(segment.name, 0, (1, 32, 32, 3), PIXELS)
        with inference_process(tmp_path) as first:
            client = InferenceClient(first.url, tmp_path)
            assert await client.register(segment.name, segment.size)
            assert (await client.predict("brightness", {"images": pixels}, timeout=5))["scores"].shape == (1, 2)
            first.process.kill()
            first.process.wait()
            with pytest.raises(InferenceUnavailable):
                await client.predict("brightness", {"images": pixels}, timeout=5)
        with inference_process(tmp_path, port=first.port):
            answer = await client.predict("brightness", {"images": pixels}, timeout=5)
            assert answer["scores"][0, 1] == pytest.approx(0.4)
        await client.close()


async def test_beyond_the_bounded_line_is_refused_at_once(slow: InferenceProcess) -> None:
    client = InferenceClient(slow.url, slow.models)
    answers = await asyncio.gather(*(ask(client, 100, model="slow") for _ in range(30)), return_exceptions=True)
    await client.close()
    refused = [answer for answer in answers if isinstance(answer, InferenceUnavailable)]
    assert len(refused) >= 20
    assert "4 requests wait for the model 'slow' already" in str(refused[0])
    assert all(answer == [pytest.approx(100 / 255)] for answer in answers if not isinstance(answer, BaseException))
    assert sum(isinstance(answer, list) for answer in answers) >= 4


def _runs(server: InferenceProcess) -> int:
    return int(server.request("/v2/models/slow/stats")[1]["model_stats"][0]["execution_count"])


def _waiting(server: InferenceProcess) -> int:
    page = server.request("/metrics")[1].decode()
    return int(page.partition("nv_inference_pending_request_count{")[2].partition("} ")[2].split()[0])


async def test_what_waited_past_its_deadline_is_never_run(slow: InferenceProcess) -> None:
    client = InferenceClient(slow.url, slow.models)
    before = await asyncio.to_thread(_runs, slow)
    first = [asyncio.create_task(ask(client, 100, model="slow")) for _ in range(2)]
    while await asyncio.to_thread(_waiting, slow) < 1:  # one runs, one waits
        await asyncio.sleep(0)
    late = [ask(client, 100, model="slow", seconds=0.01) for _ in range(3)]
    for answer in await asyncio.gather(*late, return_exceptions=True):
        assert isinstance(answer, InferenceUnavailable)
    await asyncio.gather(*first)
    await ask(client, 100, model="slow")
    assert await asyncio.to_thread(_runs, slow) - before == 3
    await client.close()


async def test_a_caller_that_leaves_is_not_computed_for(slow: InferenceProcess) -> None:
    client = InferenceClient(slow.url, slow.models)
    before = await asyncio.to_thread(_runs, slow)
    tasks = [asyncio.create_task(ask(client, 100, model="slow")) for _ in range(4)]
    while await asyncio.to_thread(_waiting, slow) < 3:
        await asyncio.sleep(0.01)
    await _leave(slow)
    await asyncio.gather(*tasks, return_exceptions=True)
    await ask(client, 100, model="slow")
    assert await asyncio.to_thread(_runs, slow) - before <= 5
    await client.close()


async def _leave(server: InferenceProcess) -> None:
    body = {"inputs": [{"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [1] * 3072}]}
    encoded = json.dumps(body).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(encoded)}\r\n\r\n"
    writer.write(head.encode() + encoded)
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()


async def test_sigterm_answers_what_is_in_hand_then_ends_with_0(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path, "slow", work=SLOW, max_batch=1)
    with inference_process(tmp_path, instances=1) as running:
        client = InferenceClient(running.url, tmp_path)
        tasks = [asyncio.create_task(ask(client, 51, model="slow")) for _ in range(5)]
        await asyncio.sleep(0.15)
        os.kill(running.pid, signal.SIGTERM)
        assert await asyncio.gather(*tasks) == [[pytest.approx(0.2)]] * 5
        await client.close()
        assert await asyncio.to_thread(running.process.wait, 20) == 0


async def test_memory_and_threads_stay_flat_over_many_requests(
    server: InferenceProcess, client: InferenceClient
) -> None:
    process = psutil.Process(server.pid)

    async def some(count: int) -> None:
        for _ in range(count // 20):
            await asyncio.gather(*(ask(client, level, 255 - level) for level in range(20)))
            with pytest.raises(InferenceError):
                await client.predict("brightness", {"images": np.zeros((1, 2, 2, 3), np.uint8)}, timeout=5)

    await some(1000)
    before, threads, files = process.memory_info().rss, process.num_threads(), process.num_fds()
    await some(2000)
    assert process.memory_info().rss - before < 4_000_000
    assert process.num_threads() <= threads
    assert process.num_fds() <= files


async def _until_ready(client: InferenceClient) -> None:
    while True:
        with contextlib.suppress(InferenceUnavailable):
            if not await client.ready():
                return
        await asyncio.sleep(0.05)


async def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    path = Path("/tmp") / f"eyeline-test-{os.getpid()}.sock"  # a path in a deep folder may be too long for a socket
    with inference_process(tmp_path, ready=False, url=f"unix://{path}"):
        client = InferenceClient(f"unix://{path}", tmp_path)
        try:
            await _until_ready(client)
            assert await ask(client, 51) == [pytest.approx(0.2)]
        finally:
            await client.close()
    path.unlink(missing_ok=True)


async def test_a_busy_port_is_said_plainly(server: InferenceProcess, tmp_path: Path) -> None:
    from eyeline.core.errors import ConfigError
    from eyeline.core.settings import InferenceSettings
    from eyeline.inference.server import InferenceServer

    second = InferenceServer(InferenceSettings(url=server.url, models=tmp_path))
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        await second.run(asyncio.Event())
