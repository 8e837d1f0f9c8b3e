import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from eyeline.core.clock import utcnow
from eyeline.core.errors import CacheError
from eyeline.core.ids import uuid7
from eyeline.core.types import BlobRef, Job, Result
from eyeline.stores.cache import open_cache
from eyeline.stores.cache.base import Cache
from eyeline.worker.flight import Flights, Lead
from eyeline.worker.outcome import Awaited

SHA = "a" * 64


def job(site: str = "north") -> Job:
    now = utcnow()
    blob = BlobRef(f"{site}/{SHA}", 3, SHA)
    return Job(id=uuid7(), site=site, pipeline="p", lane="live", blob=blob, received_at=now, captured_at=now)


def answer(of: Job) -> Result:
    now = utcnow()
    return Result(
        id=of.id, status="completed", site=of.site, pipeline="p", captured_at=now, received_at=now, completed_at=now
    )


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    opened = open_cache(f"memory:///{uuid7()}")
    yield opened
    await opened.close()


def worker(cache: Cache) -> Flights:
    return Flights(cache, answer_ttl=60, leader_ttl=10)


async def lead(flights: Flights, of: Job) -> Lead:
    got = await flights.board(of, "f")
    assert isinstance(got, Lead)
    return got


async def test_the_first_leads_and_those_beside_it_get_its_answer(cache: Cache) -> None:
    flights, first = worker(cache), job()
    leading = await lead(flights, first)
    waiting = [asyncio.create_task(flights.board(job(), "f")) for _ in range(3)]
    await asyncio.sleep(0)
    await flights.landed(leading, answer(first))
    assert [got.id for got in await asyncio.gather(*waiting)] == [first.id] * 3  # type: ignore[union-attr]


async def test_when_the_leader_fails_one_of_the_others_leads(cache: Cache) -> None:
    flights = worker(cache)
    leading = await lead(flights, job())
    waiting = [asyncio.create_task(flights.board(job(), "f")) for _ in range(3)]
    await asyncio.sleep(0)
    await flights.failed(leading)
    await asyncio.sleep(0.01)
    done = [task for task in waiting if task.done()]
    assert len(done) == 1
    assert isinstance(done[0].result(), Lead)
    for task in waiting:
        task.cancel()


async def test_another_process_waits_for_the_leader_and_then_has_its_answer(cache: Cache) -> None:
    here, there, first = worker(cache), worker(cache), job()
    leading = await lead(here, first)
    with pytest.raises(Awaited):
        await there.board(job(), "f")
    await here.landed(leading, answer(first))
    got = await there.board(job(), "f")
    assert isinstance(got, Result)
    assert got.id == first.id


async def test_a_fresh_job_finds_the_answer_of_a_leader_that_landed_since(cache: Cache) -> None:
    here, first = worker(cache), job()
    got = await here.board(first, "f", fresh=True)
    assert isinstance(got, Lead)
    await here.landed(got, answer(first))
    for flights in (here, worker(cache)):
        later = await flights.board(job(), "f", fresh=True)
        assert isinstance(later, Result)
        assert later.id == first.id


async def test_a_leader_taken_over_by_another_process_leads_there(cache: Cache) -> None:
    mine = job()
    await lead(worker(cache), mine)  # and then that process dies
    assert isinstance(await worker(cache).board(mine, "f"), Lead)


async def test_after_a_failure_another_process_may_lead_at_once(cache: Cache) -> None:
    here = worker(cache)
    await here.failed(await lead(here, job()))
    assert isinstance(await worker(cache).board(job(), "f"), Lead)


async def test_other_sites_and_other_plans_do_not_share(cache: Cache) -> None:
    flights, first = worker(cache), job()
    await flights.landed(await lead(flights, first), answer(first))
    assert isinstance(await flights.board(job("south"), "f"), Lead)
    assert isinstance(await flights.board(job(), "g"), Lead)


async def test_an_answer_that_cannot_be_read_is_computed_anew(cache: Cache) -> None:
    flights = worker(cache)
    leading = await lead(flights, job())
    await cache.set(leading.answer, b'{"id": 7}', ttl=60)
    assert isinstance(await worker(cache).board(job(), "f"), Lead)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"id": 7}', type=Result)


async def test_without_a_cache_everyone_beside_the_leader_still_waits_and_nothing_fails(cache: Cache) -> None:
    await cache.close()
    with pytest.raises(CacheError):
        await cache.get("any")
    flights, first = worker(cache), job()
    leading = await lead(flights, first)
    waiting = asyncio.create_task(flights.board(job(), "f"))
    await asyncio.sleep(0)
    assert not waiting.done()
    await flights.landed(leading, answer(first))
    assert isinstance(await waiting, Result)
    assert isinstance(await flights.board(job(), "f"), Lead)
