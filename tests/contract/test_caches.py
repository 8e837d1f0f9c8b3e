"""What every cache promises (`stores.cache.base.Cache`), on every backend there is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from eyeline.core.errors import CacheError
from eyeline.stores.cache import open_cache
from eyeline.stores.cache.base import Cache, SharedBuckets

SHORT = 0.15
LONG = 60.0

Open = Callable[[], Cache]


@pytest.fixture
async def open_one(cache_url: str) -> AsyncIterator[Open]:
    """Opens the test's cache as often as it is called, as several processes would."""
    async with AsyncExitStack() as stack:

        def opened() -> Cache:
            cache = open_cache(cache_url)
            stack.push_async_callback(cache.close)
            return cache

        yield opened


@pytest.fixture
def cache(open_one: Open) -> Cache:
    return open_one()


async def test_what_is_set_is_got_by_everyone(cache: Cache, open_one: Open) -> None:
    await cache.set("key", b"\x00value", ttl=LONG)
    assert await cache.get("key") == b"\x00value"
    assert await open_one().get("key") == b"\x00value"


async def test_an_unknown_key_is_none(cache: Cache) -> None:
    assert await cache.get("nothing") is None


async def test_a_later_value_replaces_an_earlier_one(cache: Cache) -> None:
    await cache.set("key", b"a", ttl=LONG)
    await cache.set("key", b"b", ttl=LONG)
    assert await cache.get("key") == b"b"


async def test_a_value_ends_with_its_time(cache: Cache) -> None:
    await cache.set("key", b"a", ttl=SHORT)
    assert await cache.get("key") == b"a"
    await asyncio.sleep(1.5 * SHORT)
    assert await cache.get("key") is None


async def test_add_sets_only_where_nothing_is(cache: Cache) -> None:
    assert await cache.add("key", b"a", ttl=LONG) is None
    assert await cache.add("key", b"b", ttl=LONG) == b"a"
    assert await cache.get("key") == b"a"


async def test_add_takes_the_place_of_what_has_ended(cache: Cache) -> None:
    await cache.add("key", b"a", ttl=SHORT)
    await asyncio.sleep(1.5 * SHORT)
    assert await cache.add("key", b"b", ttl=LONG) is None
    assert await cache.get("key") == b"b"


async def test_of_many_that_add_at_once_one_wins(open_one: Open) -> None:
    caches = [open_one() for _ in range(4)]
    for turn in range(10):
        answers = await asyncio.gather(
            *(cache.add(f"lead{turn}", f"{n}".encode(), ttl=LONG) for n, cache in enumerate(caches))
        )
        assert answers.count(None) == 1
        winner = str(answers.index(None)).encode()
        assert all(answer == winner for answer in answers if answer is not None)


async def test_delete_forgets(cache: Cache) -> None:
    await cache.set("key", b"a", ttl=LONG)
    await cache.delete("key")
    await cache.delete("key")
    assert await cache.get("key") is None


async def test_delete_of_an_expected_value_leaves_another(cache: Cache) -> None:
    await cache.set("key", b"mine", ttl=LONG)
    await cache.delete("key", expected=b"yours")
    assert await cache.get("key") == b"mine"
    await cache.delete("key", expected=b"mine")
    assert await cache.get("key") is None


async def test_closing_twice_is_closing_once_and_then_it_says_so(cache: Cache) -> None:
    await cache.close()
    await cache.close()
    with pytest.raises(CacheError, match="closed"):
        await cache.get("key")


async def test_what_begins_so_is_forgotten_and_nothing_else(cache: Cache) -> None:
    for key in ("answer/north/aa/1", "answer/north/aa/2", "answer/north/ab/1", "leader/north/aa/1", "answer/north/a*"):
        await cache.set(key, b"x", ttl=LONG)
    await cache.forget(["answer/north/aa/", "answer/north/a*"])
    await cache.forget([])
    left = [key for key in ("answer/north/aa/1", "answer/north/aa/2", "answer/north/a*") if await cache.get(key)]
    assert left == []
    assert await cache.get("answer/north/ab/1") == b"x"
    assert await cache.get("leader/north/aa/1") == b"x"


async def test_what_is_taken_of_a_bucket_is_taken_for_all_and_only_so_much_is_owed(
    cache: Cache, open_one: Open
) -> None:
    other = open_one()
    if not isinstance(cache, SharedBuckets) or not isinstance(other, SharedBuckets):
        pytest.skip("a cache of one machine: the one gateway there goes by its own buckets")
    slow = {"rate": 0.01, "burst": 4.0}  # so slow that no machine is slow beside it
    assert await cache.draw({"a": 3.0, "b": 1.0}, **slow) == pytest.approx([1.0, 3.0], abs=0.1)
    assert await other.draw({"a": 3.0}, **slow) == pytest.approx([-2.0], abs=0.1)
    assert await cache.draw({"a": -1.0, "b": -9.0}, **slow) == pytest.approx([-1.0, 4.0], abs=0.1)
    assert await other.draw({"a": 1e6}, **slow) == pytest.approx([-40.0], abs=0.1)
    fast = {"rate": 20.0, "burst": 2.0}
    assert await cache.draw({"c": 2.0}, **fast) == pytest.approx([0.0], abs=0.1)
    await asyncio.sleep(0.06)
    assert 1.0 <= (await other.draw({"c": 0.0}, **fast))[0] <= 2.0
