"""What the embedded cache promises beyond the contract: bounded size, and nothing carried over a boot."""

import asyncio
from pathlib import Path

import pytest

from eyeline.core.errors import CacheError
from eyeline.stores.cache.sqlite import SWEEP_EVERY, SqliteCache


async def test_entries_of_another_boot_are_gone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.db"
    before = SqliteCache(url, boot="a")
    await before.set("key", b"value", ttl=60)
    await before.close()
    same = SqliteCache(url, boot="a")
    assert await same.get("key") == b"value"
    await same.close()
    after = SqliteCache(url, boot="b")
    assert await after.get("key") is None
    await after.close()


async def test_what_has_ended_is_swept(tmp_path: Path) -> None:
    now = [0.0]
    cache = SqliteCache(f"sqlite:///{tmp_path}/cache.db", clock=lambda: now[0])
    for number in range(30):
        await cache.set(f"old{number}", b"x", ttl=1)
    now[0] = 2.0
    for number in range(SWEEP_EVERY):
        await cache.set(f"new{number}", b"x", ttl=100)
    count = await cache._file.run(lambda db: db.execute("SELECT count(*) FROM entries").get, write=False)
    assert count <= SWEEP_EVERY
    await cache.close()


async def test_the_size_stays_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    cache = SqliteCache(f"sqlite:///{tmp_path}/cache.db", max_bytes=1_000_000)
    for number in range(2000):
        await cache.set(str(number), b"x" * 2000, ttl=1000)
    pages = await cache._file.run(lambda db: db.execute("PRAGMA page_count").get, write=False)
    assert pages * 4096 < 3_000_000
    assert await cache.get("1999") is not None
    assert await cache.get("0") is None
    await cache.close()


async def test_other_threads_read_without_waiting_for_the_writing_one(tmp_path: Path) -> None:
    cache = SqliteCache(f"sqlite:///{tmp_path}/cache.db")
    for value in (b"first", b"second"):
        await cache.set("key", value, ttl=60)
        assert await asyncio.gather(*[asyncio.to_thread(cache.get_now, "key") for _ in range(8)]) == [value] * 8
    assert cache.get_now("other") is None
    await cache.close()
    with pytest.raises(CacheError, match="closed"):
        cache.get_now("key")
