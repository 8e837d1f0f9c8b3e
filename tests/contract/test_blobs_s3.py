"""What S3 makes harder than a folder, and what the store does about it: against a real server."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from eyeline.core.errors import BlobError
from eyeline.core.types import BlobRef
from eyeline.stores.blobs import s3
from eyeline.stores.blobs.s3 import PART, SWEPT, S3Blobs
from tests.contract.servers import SeaweedFS, free_port, ministack, s3_url

KMS_KEY = "arn:aws:kms:us-east-1:000000000000:key/k"


@pytest.fixture
async def blobs() -> AsyncIterator[S3Blobs]:
    opened = S3Blobs(s3_url())
    yield opened
    await opened.close()


async def put(blobs: S3Blobs, data: bytes) -> BlobRef:
    return await blobs.put("north", data, hashlib.sha256(data).hexdigest())


async def listed(blobs: S3Blobs) -> list[str]:
    return [ref.url async for ref in blobs.list(older_than=-1.0)]


async def test_a_put_between_the_look_and_the_deletion_of_an_old_blob_is_not_undone(blobs: S3Blobs) -> None:
    ref = await put(blobs, b"an orphan, and then no more")
    await blobs.delete(ref.url, older_than=-1.0)  # as the sweeper does it when it did not see the put
    assert await listed(blobs) == []
    assert await blobs.get(ref) == b"an orphan, and then no more"
    assert await listed(blobs) == [ref.url]


async def test_a_link_gives_the_bytes_to_who_has_it(blobs: S3Blobs) -> None:
    ref = await put(blobs, b"a picture")
    link = await blobs.link(ref, 60.0)
    query = parse_qs(urlsplit(link).query)
    assert (query["X-Amz-Expires"], query["X-Amz-Algorithm"]) == (["60"], ["AWS4-HMAC-SHA256"])
    async with httpx.AsyncClient() as client:
        assert (await client.get(link)).content == b"a picture"


async def test_what_is_deleted_for_good_is_nowhere(blobs: S3Blobs) -> None:
    ref = await put(blobs, b"x")
    await blobs.delete(ref.url, older_than=-1.0)
    await blobs.delete(ref.url)
    with pytest.raises(BlobError, match="no blob"):
        await blobs.get(ref)


async def test_what_was_laid_aside_is_forgotten_in_time(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = await put(blobs, b"x")
    await blobs.delete(ref.url, older_than=-1.0)
    assert await listed(blobs) == []
    monkeypatch.setattr(s3, "SWEPT_FOR", timedelta(seconds=-2))
    assert await listed(blobs) == []
    with pytest.raises(BlobError, match="no blob"):
        await blobs.get(ref)


async def test_a_repeated_put_makes_the_blob_young(blobs: S3Blobs) -> None:
    ref = await put(blobs, b"x")
    first = (await blobs._store.head_async(ref.url))["last_modified"]
    await asyncio.sleep(1.1)  # S3 counts in seconds
    await put(blobs, b"x")
    assert (await blobs._store.head_async(ref.url))["last_modified"] > first


async def test_a_large_blob_goes_in_parts_and_comes_back_whole(blobs: S3Blobs) -> None:
    data = os.urandom(2 * PART + 1)
    ref = await put(blobs, data)
    assert str((await blobs._store.head_async(ref.url))["e_tag"]).strip('"').endswith("-3")
    assert await blobs.get(ref) == data


async def test_other_objects_in_the_bucket_are_let_alone(blobs: S3Blobs) -> None:
    await blobs._store.put_async("readme.txt", b"not ours")
    await blobs._store.put_async("north/notes/a", b"not ours")
    ref = await put(blobs, b"x")
    assert await listed(blobs) == [ref.url]


async def test_the_encryption_that_is_set_is_asked_for() -> None:
    plain = s3_url()
    sealed = S3Blobs(f"{plain}&encryption=aws:kms&kms_key={KMS_KEY}")
    ref = await put(sealed, b"x")
    place = urlsplit(plain)
    told = httpx.head(f"{ministack()}/{place.hostname}{place.path}/{ref.url}").headers
    assert told["x-amz-server-side-encryption"] == "aws:kms"
    assert told["x-amz-server-side-encryption-aws-kms-key-id"] == KMS_KEY
    await sealed.close()


async def test_a_server_that_is_not_there_is_told_in_seconds_and_passes() -> None:
    blobs = S3Blobs(f"s3://test:test@pictures/p?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1")
    begun = time.monotonic()
    with pytest.raises(BlobError, match="cannot be used now") as caught:
        await put(blobs, b"x")
    assert time.monotonic() - begun < 8
    assert caught.value.transient
    await blobs.close()


async def test_no_image_fails_for_a_bucket_that_is_not_there() -> None:
    blobs = S3Blobs(f"s3://test:test@nobucket/p?endpoint={ministack()}&region=us-east-1")
    sha = "a" * 64
    for work in (put(blobs, b"x"), blobs.get(BlobRef(f"north/{sha}", 1, sha))):
        with pytest.raises(BlobError, match="no such bucket") as caught:
            await work
        assert caught.value.transient  # else the worker would take the picture to be missing, and fail its job
        assert "test:test" not in str(caught.value)
    await blobs.close()


@pytest.mark.soak
async def test_a_server_that_checks_signatures_lets_in_the_right_key_alone(tmp_path: Path) -> None:
    server = SeaweedFS(tmp_path / "server")
    server.start()
    right, wrong = S3Blobs(server.url("pictures")), S3Blobs(server.url("pictures").replace("secret", "guess"))
    ref = await put(right, b"a picture")
    assert await right.get(ref) == b"a picture"
    for work in (put(wrong, b"x"), wrong.get(ref)):
        with pytest.raises(BlobError, match=r"refuses this key \(SignatureDoesNotMatch") as caught:
            await work
        assert caught.value.transient
        assert "guess" not in str(caught.value)
    await right.close()
    await wrong.close()
    server.stop()


async def test_no_image_fails_for_a_key_that_is_refused() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>"
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    blobs, sha = S3Blobs(f"s3://key:secret@b/p?endpoint=http://127.0.0.1:{port}&region=us-east-1"), "a" * 64
    with pytest.raises(BlobError, match=r"refuses this key \(SignatureDoesNotMatch") as caught:
        await blobs.get(BlobRef(f"north/{sha}", 1, sha))
    assert caught.value.transient
    assert "secret" not in str(caught.value)
    await blobs.close()
    server.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [("s3:///prefix", "needs a bucket"), ("s3://b/p?regoin=x", "knows no option 'regoin'")],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, told: str) -> None:
    with pytest.raises(BlobError, match=told) as caught:
        S3Blobs(url)
    assert not caught.value.transient


def test_no_site_can_be_named_like_the_place_aside() -> None:
    assert SWEPT.startswith(".")
