"""Both Python clients against a real gateway, through a relay that loses answers and cuts streams."""

import asyncio
import itertools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyeline.pipeline.decode import decode
from eyeline_client import AsyncClient, Client, Event, Hold, NotFound, Overloaded, Refused, Result, Retry, WaitTimeout
from tests.cutting import cutting
from tests.gateways import Running, jpeg, running

QUICK = Retry(patience=20.0, base=0.05)


class Blocking:
    """`Client`, each call in a thread."""

    def __init__(self, url: str, retry: Retry = QUICK) -> None:
        self._client = Client(url, retry=retry, trust_env=False)

    async def call(self, method: str, *args: Any, **said: Any) -> Any:
        return await asyncio.to_thread(getattr(self._client, method), *args, **said)

    async def take(self, count: int, method: str, **said: Any) -> list[Any]:
        """The first `count` of what a method yields."""
        return await asyncio.to_thread(lambda: list(itertools.islice(getattr(self._client, method)(**said), count)))


class Awaiting:
    """`AsyncClient`."""

    def __init__(self, url: str, retry: Retry = QUICK) -> None:
        self._client = AsyncClient(url, retry=retry, trust_env=False)

    async def call(self, method: str, *args: Any, **said: Any) -> Any:
        return await getattr(self._client, method)(*args, **said)

    async def take(self, count: int, method: str, **said: Any) -> list[Any]:
        """The first `count` of what a method yields."""
        taken: list[Any] = []
        async for each in getattr(self._client, method)(**said):
            taken.append(each)
            if len(taken) == count:
                break
        return taken


Either = type[Blocking] | type[Awaiting]
both = pytest.mark.parametrize("kind", [Blocking, Awaiting], ids=["sync", "async"])


async def _kept(here: Running) -> int:
    return (await here.results.unfinished()).count


@both
async def test_a_path_bytes_and_pixels_become_jobs_with_what_was_said(kind: Either, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    async with running(tmp_path / "data") as here:
        client = kind(here.gateway.url)
        for image, said in [
            (tmp_path / "a.jpg", {}),
            (str(tmp_path / "a.jpg"), {}),
            (jpeg(2), {}),
            (pixels, {"color": "bgr"}),
        ]:
            told = await client.call("submit", image, ref="order 7", meta={"line": "3"}, lane="bulk", **said)
            job = await here.take()
            assert (told.id, told.status, told.result) == (job.id, "queued", None)
            assert (job.ref, job.meta, job.lane) == ("order 7", {"line": "3"}, "bulk")
        assert np.array_equal(decode(await here.blobs.get(job.blob)).pixels, pixels[..., ::-1])


@both
async def test_a_lost_answer_never_makes_a_second_job(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here, cutting(here.gateway.url) as cutter:
        client = kind(cutter.url)
        cutter.lose = 2
        first = await client.call("submit", jpeg(1))
        assert sum(chunk.startswith(b"POST") for chunk in cutter.requests) == 3
        assert await _kept(here) == 1
        second = await client.call("submit", jpeg(1))
        assert second.id != first.id
        assert await _kept(here) == 2


@both
async def test_waiting_ends_with_the_result_and_a_failure_is_a_result(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        client = kind(here.gateway.url)
        job = await client.call("submit", jpeg(1))
        waiting = asyncio.create_task(client.call("wait", job, 20))
        done = await here.work(status="failed", reason="corrupt: cut off", detections=[], classifications=[])
        result: Result = await waiting
        assert (result.id, result.status, result.reason) == (done.id, "failed", "corrupt: cut off")
        assert await client.call("result", job.id) == result
        assert (await client.call("job", job.id)).result == result


@both
async def test_a_submit_that_waits_brings_the_result_typed(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        client = kind(here.gateway.url)
        sending = asyncio.create_task(client.call("submit", jpeg(1), wait=20))
        done = await here.work()
        job = await sending
        assert job.result.detections[0].box == (4.0, 4.0, 40.0, 40.0)
        assert job.result.captured_at == done.captured_at
        assert await client.call("wait", job) is job.result
        assert (await client.call("picture", job.id, overlay=True, width=32)).startswith(b"\xff\xd8")


@both
async def test_what_is_not_done_in_time_says_so_and_is_kept(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        client = kind(here.gateway.url)
        job = await client.call("submit", jpeg(1))
        with pytest.raises(WaitTimeout):
            await client.call("wait", job, 0.2)
        assert await _kept(here) == 1


@both
async def test_refusals_carry_the_gateways_words(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        client = kind(here.gateway.url)
        with pytest.raises(Refused, match="parcels") as refused:
            await client.call("submit", jpeg(1), pipeline="parcel")
        assert (refused.value.status, refused.value.code) == (400, "unknown_pipeline")
        with pytest.raises(NotFound):
            await client.call("result", "01890000-0000-7000-8000-000000000000")


@both
async def test_a_full_gateway_is_waited_for_as_it_asks(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"max_unfinished": 1}) as here:
        client = kind(here.gateway.url)
        await client.call("submit", jpeg(1))
        with pytest.raises(Overloaded) as full:
            await kind(here.gateway.url, retry=Retry(patience=0.0)).call("submit", jpeg(2))
        assert full.value.retry_after >= 1.0
        began = time.monotonic()
        sending = asyncio.create_task(client.call("submit", jpeg(2)))
        await asyncio.sleep(0.1)
        await here.work()
        await sending
        assert time.monotonic() - began >= full.value.retry_after  # never sooner than asked


@both
async def test_results_come_page_by_page_in_order_and_filtered(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        client = kind(here.gateway.url)
        for seed in range(5):
            await client.call("submit", jpeg(seed), ref="odd" if seed % 2 else "even")
            await here.work()
        everything = await client.take(9, "results", limit=2)
        assert [result.id for result in everything] == sorted((result.id for result in everything), reverse=True)
        assert len(everything) == 5
        assert len(await client.take(9, "results", ref="odd", limit=1)) == 2
        page = await client.call("page", limit=3)
        assert (len(page.results), page.next is None) == (3, False)
        assert (await client.call("get", "/v1/counts", by=["label"])) is not None


@both
async def test_a_hold_is_placed_listed_and_lifted(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        client = kind(here.gateway.url)
        since = datetime(2026, 3, 1, tzinfo=UTC)
        hold: Hold = await client.call("place_hold", "case 12", ref="order 7", since=since)
        assert (hold.reason, hold.ref, hold.since, hold.site, hold.lifted_at) == (
            "case 12",
            "order 7",
            since,
            None,
            None,
        )
        assert await client.call("holds") == [hold]
        lifted = await client.call("lift_hold", hold.id, "case closed")
        assert (await client.call("holds"), await client.call("holds", lifted=True)) == ([], [lifted])
        with pytest.raises(Refused, match="hold what"):
            await client.call("place_hold", "everything")


@both
async def test_every_event_comes_once_and_in_order_over_cuts(kind: Either, tmp_path: Path) -> None:
    """Cut before the first event, between events, and while results are recorded that nobody hears of."""
    async with running(tmp_path) as here, cutting(here.gateway.url) as cutter:
        reading = asyncio.create_task(kind(cutter.url).take(6, "events", kinds=["result"]))
        async with asyncio.timeout(20):
            while not any(b"retry:" in chunk for chunk in cutter.answers):
                await asyncio.sleep(0.02)
        ids = []
        for seed in range(6):
            if seed % 2 == 0:
                await asyncio.sleep(0.2)  # what was told has arrived, or is cut
                cutter.away = True
                cutter.cut()
            await here.send(seed)
            ids.append((await here.work()).id)
            if seed == 0:
                await asyncio.sleep(0.6)  # the gateway has read past it: who came back as a new reader would miss it
            cutter.away = False
        async with asyncio.timeout(30):
            events: list[Event] = await reading
        assert [event.result.id for event in events] == ids
        assert [event.seq for event in events] == sorted({event.seq for event in events})


@both
async def test_a_stream_that_is_refused_says_so(kind: Either, tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        with pytest.raises(Refused, match="choose from result, alert, system"):
            await kind(here.gateway.url).take(1, "events", kinds=["weather"])
