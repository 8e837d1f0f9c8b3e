"""Finding results by every word of a search, on every result store, and how many there are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from eyeline.core.clock import utcnow
from eyeline.core.types import Classification, Code, Detection, ModelRef, Result
from eyeline.stores.results import finding, open_results
from eyeline.stores.results.base import Bucket, NewJob, Prefix, ResultQuery, ResultStore
from eyeline.stores.results.review import NewVerdict
from tests.contract.test_results import NOON, make_job, make_result

OLD, NEW = (ModelRef("finder", f"1.4.{number}+0123456789ab", "onnxruntime", "fp32") for number in (1, 2))
READER = ModelRef("reader", "2.0+aaaaaaaaaaaa", "onnxruntime", "fp32")


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


@pytest.fixture
async def made(store: ResultStore) -> list[Result]:
    """Six results, oldest first."""
    some: list[dict[str, Any]] = [
        {"camera": "dock-1", "ref": "PAL-4_1", "detections": [box("dent", 0.4)], "models": [OLD]},
        {
            "camera": "dock-2",
            "ref": "PAL-4%2",
            "detections": [box("dent", 0.9), box("scratch", 0.3)],
            "models": [NEW, READER],
        },
        {
            "camera": "gate",
            "ref": "pal-43",
            "site": "south",
            "codes": [Code("40", "ean13", (0, 0, 9, 9))],
            "models": [NEW],
        },
        {"status": "failed", "reason": "cut: half", "image": None},
        {"camera": "dock-1", "classifications": [Classification("intact", 0.95, "damage")], "models": [NEW, READER]},
        {"camera": "Dock-1", "captured_at": NOON - timedelta(days=400)},
    ]
    jobs = [make_job(number) for number in range(len(some))]
    await store.keep_jobs([NewJob(job=job) for job in jobs])
    results = [make_result(job, **changes) for job, changes in zip(jobs, some, strict=True)]
    await store.save_many(results)
    for number, kind, by in ((0, "confirmed", "ana"), (1, "rejected", "ben"), (1, "corrected", "ana")):
        await store.add_verdict(NewVerdict(result_id=results[number].id, kind=kind, by=by))  # type: ignore[arg-type]
    return results


def box(label: str, score: float) -> Detection:
    return Detection(label, score, (0.0, 0.0, 9.0, 9.0), "find")


#: What is asked, and the numbers of the results that it finds.
ASKED: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [5, 4, 3, 2, 1, 0]),
    ({"camera": Prefix("dock-")}, [4, 1, 0]),
    ({"camera": Prefix("x")}, []),
    ({"site": Prefix("so")}, [2]),
    ({"ref": Prefix("PAL-4")}, [1, 0]),
    ({"ref": Prefix("PAL-4%")}, [1]),
    ({"ref": Prefix("PAL-4_")}, [0]),
    ({"max_score": 0.5}, [5, 3, 2, 0]),
    ({"min_score": 0.4, "max_score": 0.9}, [0]),
    ({"label": "dent", "min_score": 0.5}, [1]),
    ({"label": "scratch", "max_score": 0.3}, []),
    ({"verdict": "confirmed"}, [0]),
    ({"verdict": "rejected"}, []),
    ({"verdict": "none"}, [5, 4, 3, 2]),
    ({"by": "ana"}, [1, 0]),
    ({"by": "ben"}, []),
    ({"by": "ana", "verdict": "corrected", "label": "dent"}, [1]),
    ({"by": "ana", "verdict": "none"}, []),
    ({"model": "1.4.2"}, [4, 2, 1]),
    ({"model": "1.4.2+0123456789ab", "site": "north"}, [4, 1]),
    ({"model": "1.4"}, []),
    ({"model": "reader"}, [4, 1]),
    ({"model": "finder@1.4.1"}, [0]),
    ({"model": "reader@1.4.1"}, []),
    ({"code": "40", "sites": ["north"]}, []),
    ({"since": NOON - timedelta(days=1), "until": NOON, "status": "completed"}, [4, 2, 1, 0]),
    ({"since": datetime(1, 1, 1, tzinfo=UTC)}, [5, 4, 3, 2, 1, 0]),
]


async def test_each_word_finds_what_it_says(store: ResultStore, made: list[Result]) -> None:
    numbers = {result.id: number for number, result in enumerate(made)}
    for query, expected in ASKED:
        found, following = await store.find(ResultQuery(**query))
        assert ([numbers[result.id] for result in found], following) == (expected, None), query
        assert (await store.matches(ResultQuery(**query))).count == len(expected)
        if len(expected) > 1:
            page, following = await store.find(ResultQuery(**query, limit=1))
            rest, _ = await store.find(ResultQuery(**query, cursor=following))
            assert [numbers[result.id] for result in page + rest] == expected


async def test_the_oldest_come_first_if_asked_page_by_page(store: ResultStore, made: list[Result]) -> None:
    async def walked(**query: Any) -> list[Result]:
        pages: list[Result] = []
        cursor = None
        while not pages or cursor:
            page, cursor = await store.find(ResultQuery(oldest=True, limit=1, cursor=cursor, **query))
            pages += page
        return pages

    assert [each.id for each in await walked()] == [each.id for each in made]
    assert [each.id for each in await walked(label="dent")] == [made[0].id, made[1].id]
    window = {"since": NOON - timedelta(days=500), "until": NOON + timedelta(days=1)}
    assert [each.id for each in await walked(**window)] == [each.id for each in made]


async def test_what_is_found_is_counted_up_to_a_bound_and_spread_over_time(
    store: ResultStore, made: list[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    recent = ResultQuery(since=NOON - timedelta(days=1))
    matches = await store.matches(recent)
    assert (matches.count, matches.more, matches.width) == (5, False, 60)
    assert matches.histogram == [Bucket(NOON.replace(minute=59, hour=11, second=0, microsecond=0), 5)]
    matches = await store.matches(ResultQuery())
    assert [(bar.count, bar.start.tzinfo) for bar in matches.histogram] == [(1, UTC), (5, UTC)]
    assert matches.width == 7 * 86_400
    monkeypatch.setattr(finding, "COUNTED", 3)
    matches = await store.matches(recent)
    assert (matches.count, matches.more, sum(bar.count for bar in matches.histogram)) == (3, True, 3)


async def test_words_are_those_that_results_of_the_callers_sites_bear(store: ResultStore, made: list[Result]) -> None:
    assert await store.words("label", "", 10, None) == ["dent", "intact", "scratch"]
    assert await store.words("label", "d", 10, None) == ["dent"]
    assert await store.words("camera", "dock", 10, None) == ["dock-1", "dock-2"]
    assert await store.words("ref", "PAL-4", 1, None) in (["PAL-4%2"], ["PAL-4_1"])
    assert await store.words("ref", "", 10, ["south"]) == ["pal-43"]
    assert await store.words("label", "", 10, ["south"]) == []
    assert await store.words("code", "4", 10, ["south"]) == ["40"]
    assert await store.words("code", "4", 10, ["north"]) == []
    assert await store.words("by", "a", 10, ["north"]) == ["ana"]
    assert await store.words("model", "", 10, None) == ["finder", "reader"]


async def test_the_slowest_of_what_was_completed_in_a_time_is_found(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = utcnow()
    assert await store.slowest(now, now + timedelta(minutes=1), None) is None
    jobs = [make_job(number, received=now - timedelta(minutes=5)) for number in range(4)]
    await store.keep_jobs([NewJob(job=job) for job in jobs])
    took = zip(jobs, (298, 306, 304, 302), strict=True)
    results = [make_result(job, completed_at=job.received_at + timedelta(seconds=seconds)) for job, seconds in took]
    results[2] = replace(results[2], site="south")
    await store.save_many(results)
    await store.last_seq()  # PostgreSQL numbers what was written when it is looked for

    async def slowest(since: int, until: int, sites: list[str] | None = None) -> str | None:
        found = await store.slowest(now + timedelta(seconds=since), now + timedelta(seconds=until), sites)
        return found.id if found else None

    assert await slowest(-5, 10) == results[1].id
    assert await slowest(-5, 6) == results[2].id  # until is exclusive
    assert await slowest(-5, 6, ["north"]) == results[3].id
    assert await slowest(-5, 2) == results[0].id
    assert await slowest(-5, 10, []) is None
    assert await slowest(60, 120) is None
    monkeypatch.setattr(finding, "LOOKED_AT", 1)
    assert await slowest(-5, 10) == results[3].id
