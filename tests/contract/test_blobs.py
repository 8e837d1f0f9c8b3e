"""The promises of every blob store: the same bytes back, durable, whole or not at all, and nothing outside its place."""

import asyncio
import hashlib
import multiprocessing
import os
from collections.abc import AsyncIterator

import pytest

from eyeline.core.errors import BlobError
from eyeline.core.types import BlobRef
from eyeline.stores.blobs import open_blobs
from eyeline.stores.blobs.base import BlobStore


@pytest.fixture
def url(blobs_url: str) -> str:
    return blobs_url


@pytest.fixture
async def blobs(url: str) -> AsyncIterator[BlobStore]:
    opened = open_blobs(url)
    yield opened
    await opened.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def put(blobs: BlobStore, data: bytes, site: str = "north") -> BlobRef:
    return await blobs.put(site, data, digest(data))


async def listed(blobs: BlobStore, older_than: float = -1.0) -> list[BlobRef]:
    return [ref async for ref in blobs.list(older_than=older_than)]


async def test_what_was_put_is_got(blobs: BlobStore) -> None:
    data = os.urandom(200_000)
    ref = await put(blobs, data)
    assert ref == BlobRef(f"north/{digest(data)}", len(data), digest(data))
    assert await blobs.get(ref) == data


async def test_an_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    assert await blobs.get(await put(blobs, b"")) == b""


async def test_what_was_put_is_there_for_the_next_process(url: str) -> None:
    first, second = open_blobs(url), open_blobs(url)
    ref = await put(first, b"kept")
    await first.close()
    assert await second.get(ref) == b"kept"
    await second.close()
    await second.close()


async def test_sites_do_not_share_blobs(blobs: BlobStore) -> None:
    north, south = await put(blobs, b"same"), await put(blobs, b"same", "south")
    await blobs.delete(north.url)
    assert await blobs.get(south) == b"same"
    with pytest.raises(BlobError):
        await blobs.get(north)


async def test_a_blob_that_is_not_there_is_no_passing_trouble(blobs: BlobStore) -> None:
    sha = digest(b"never")
    with pytest.raises(BlobError, match="no blob") as caught:
        await blobs.get(BlobRef(f"north/{sha}", 5, sha))
    assert not caught.value.transient


async def test_another_size_than_the_references_is_refused(blobs: BlobStore) -> None:
    ref = await put(blobs, b"12345")
    with pytest.raises(BlobError, match="has 5 bytes and should have 6") as caught:
        await blobs.get(BlobRef(ref.url, 6, ref.sha256))
    assert not caught.value.transient


async def test_delete_is_idempotent(blobs: BlobStore) -> None:
    ref = await put(blobs, b"x")
    await blobs.delete(ref.url)
    await blobs.delete(ref.url)
    assert await listed(blobs) == []


async def test_listing_shows_what_was_not_touched_for_long_enough(blobs: BlobStore) -> None:
    refs = [await put(blobs, bytes([number])) for number in range(20)] + [await put(blobs, b"x", "south")]
    assert sorted(ref.url for ref in await listed(blobs)) == sorted(ref.url for ref in refs)
    assert await listed(blobs, older_than=3600.0) == []


async def test_a_blob_put_again_is_not_deleted_as_old(blobs: BlobStore) -> None:
    ref = await put(blobs, b"x")
    await blobs.delete(ref.url, older_than=3600.0)
    assert await blobs.get(ref) == b"x"
    await blobs.delete(ref.url, older_than=-1.0)
    assert await listed(blobs) == []


async def test_many_puts_of_the_same_bytes_at_once_are_one_blob(blobs: BlobStore) -> None:
    data = os.urandom(50_000)
    refs = await asyncio.gather(*(put(blobs, data) for _ in range(50)))
    assert len(set(refs)) == 1
    assert await blobs.get(refs[0]) == data
    assert await listed(blobs) == [refs[0]]


def _put_the_same(url: str, count: int) -> None:
    async def work() -> None:
        blobs = open_blobs(url)
        for number in range(count):
            await put(blobs, bytes([number]) * 1000)
        await blobs.close()

    asyncio.run(work())


async def test_processes_put_the_same_blobs_side_by_side(url: str, blobs: BlobStore) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_the_same, args=(url, 60)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    refs = await listed(blobs)
    assert len(refs) == 60
    for ref in refs:
        assert digest(await blobs.get(ref)) == ref.sha256


@pytest.mark.parametrize(
    "wrong",
    ["../x", "a/../../x", "", "north", f"../north/{'a' * 64}", f"/{'a' * 64}", f"north/{'A' * 64}", "north/../etc"],
)
async def test_a_url_that_is_none_is_refused(blobs: BlobStore, wrong: str) -> None:
    with pytest.raises(BlobError, match=r"is no (site|SHA)"):
        await blobs.get(BlobRef(wrong, 1, "x"))
    with pytest.raises(BlobError):
        await blobs.delete(wrong)


@pytest.mark.parametrize("site", ["..", ".", "", "a/b", "a\x00b", "-x", "x" * 65, "nörd", "a..b", "north\n"])
async def test_a_site_that_is_none_is_refused(blobs: BlobStore, site: str) -> None:
    with pytest.raises(BlobError, match="no site name"):
        await put(blobs, b"x", site)


async def test_a_closed_store_says_so(blobs: BlobStore) -> None:
    await blobs.close()
    with pytest.raises(BlobError, match="closed"):
        await put(blobs, b"x")
