"""What a cache across the network must not do: hold anybody up, or keep what nobody asked it to."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from eyeline.core.errors import CacheError, QueueError
from eyeline.queues.redis import RedisQueue
from eyeline.stores.cache import open_cache
from eyeline.stores.cache.redis import RedisCache
from tests.contract.proxy import Proxy, tls
from tests.contract.servers import free_port, redis_cache_url, valkey

BOUND = 2.0  # seconds after which a caller goes on without the cache


async def failure(work: Awaitable[object]) -> tuple[CacheError, float]:
    begun = time.monotonic()
    with pytest.raises(CacheError) as caught:
        await work
    return caught.value, time.monotonic() - begun


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    cache = RedisCache(f"redis://me:secret@127.0.0.1:{free_port()}/0")
    for work in (cache.get("k"), cache.add("k", b"v", ttl=1), cache.delete("k", expected=b"v")):
        error, seconds = await failure(work)
        assert error.transient
        assert seconds < BOUND
        assert "secret" not in str(error)
    await cache.close()


async def test_a_server_that_does_not_answer_is_told_in_two_seconds() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    cache = RedisCache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    error, seconds = await failure(cache.get("k"))
    assert error.transient
    assert seconds < BOUND + 0.5  # half a second for a busy machine
    await cache.close()
    server.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Callable[[], Awaitable[tuple[Proxy, int]]]]:
    made: list[Proxy] = []

    async def start() -> tuple[Proxy, int]:
        made.append(Proxy(urlsplit(valkey()).port or 0))
        return made[-1], await made[-1].start()

    yield start
    for each in made:
        each.close()


async def test_a_connection_cut_while_idle_is_nobodys_error(
    proxy: Callable[[], Awaitable[tuple[Proxy, int]]],
) -> None:
    between, port = await proxy()
    cache = RedisCache(f"redis://127.0.0.1:{port}/0?prefix={time.time_ns()}:")
    await cache.set("k", b"v", ttl=60)
    between.cut()
    await asyncio.sleep(0.05)
    assert await cache.get("k") == b"v"
    await cache.close()


async def test_every_entry_has_an_end_and_our_prefix() -> None:
    url = redis_cache_url()
    prefix = url.partition("prefix=")[2]
    cache, server = RedisCache(url), Redis.from_url(valkey())
    await cache.set("a", b"1", ttl=60)
    await cache.add("b", b"2", ttl=0.0001)
    await cache.add("c", b"3", ttl=60)
    names = {name async for name in server.scan_iter(match=f"{prefix}*")}
    ends = [await server.pttl(name) for name in names]
    assert {name.decode() for name in names} >= {f"{prefix}a", f"{prefix}c"}
    assert all(0 < end <= 60_000 for end in ends)
    await cache.close()
    await server.aclose()


async def test_a_user_that_is_refused_will_be_refused_again() -> None:
    cache = RedisCache(valkey().replace("redis://", "redis://nobody:wrong@"))
    error, _ = await failure(cache.get("k"))
    assert not error.transient
    assert "wrong" not in str(error).replace("wrong password", "").replace("WRONGPASS", "")
    await cache.close()


async def test_rediss_is_tls_and_trusts_only_who_is_known(tmp_path: Path) -> None:
    between = Proxy(urlsplit(valkey()).port or 0, tls(tmp_path))
    url = f"rediss://127.0.0.1:{await between.start()}/0?prefix={time.time_ns()}:"
    known, stranger = open_cache(f"{url}&ssl_ca_certs={tmp_path}/cert.pem"), open_cache(url)
    await known.set("k", b"v", ttl=60)
    assert await known.get("k") == b"v"
    with pytest.raises(CacheError, match="certificate"):
        await stranger.get("k")
    await known.close()
    await stranger.close()
    between.close()


async def test_what_uvloop_says_of_a_connection_cut_off_while_it_is_made_is_a_passing_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cut_off(*_words: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    cache, queue = RedisCache(redis_cache_url()), RedisQueue(redis_cache_url())
    monkeypatch.setattr(cache._redis, "get", cut_off)
    with pytest.raises(CacheError, match="the handler is closed") as missed:
        await cache.get("key")
    with pytest.raises(QueueError, match="the handler is closed") as lost:
        await queue._ask(cut_off())
    assert missed.value.transient
    assert lost.value.transient
    await cache.close()
    await queue.close()
