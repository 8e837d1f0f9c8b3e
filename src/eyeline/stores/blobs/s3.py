"""Blobs in S3, or in anything that speaks its protocol: objects `<prefix>/<site>/<sha256>`.

S3 has no time that could be set and no deletion "only if old". So a repeated put is a put, and what is deleted as old is first
laid aside under `.swept/` for a week: where a put came between the look and the deletion, `get` finds it there and
brings it back.
"""

import atexit
import re
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from obstore import sign_async
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from eyeline.core.clock import utcnow
from eyeline.core.errors import BlobError
from eyeline.core.types import BlobRef
from eyeline.stores.blobs.names import names_of, require_names

T = TypeVar("T")

#: Where deleted objects wait, and for how long; no site's name can begin with a dot.
SWEPT = ".swept/"
SWEPT_FOR = timedelta(days=7)

#: A dead server is told of in seconds: one request, and all tries together (seconds).
CONNECT, REQUEST, TRYING = 2.0, 10.0, 5.0
#: Bytes above which an object is sent in parts, several at once.
PART = 8_000_000

#: The client's threads may be waiting for the interpreter when it ends, and then abort the process: let them finish.
atexit.register(time.sleep, 0.2)

#: What may stand in the URL's query, and the word of the S3 client for it.
OPTIONS: Mapping[str, str] = {
    "endpoint": "endpoint",
    "region": "region",
    "encryption": "server_side_encryption",  # AES256, aws:kms, aws:kms:dsse
    "kms_key": "sse_kms_key_id",
    "bucket_key": "sse_bucket_key_enabled",
    "path_style": "virtual_hosted_style_request",
}


class S3Blobs:
    """BlobStore at `s3://[key:secret@]bucket/prefix?endpoint=…&region=…`; without a key, AWS's environment is asked."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise BlobError("the blob store s3:// needs a bucket; write s3://bucket/prefix", transient=False)
        self._where = f"s3://{parts.hostname}{parts.path}"
        self._store = _store(parts)
        self._closed = False

    async def put(self, site: str, data: bytes, sha256: str) -> BlobRef:
        """Durable once S3 says so. A repeated put sends the bytes again: only that makes the object young."""
        require_names(site, sha256)
        url = f"{site}/{sha256}"
        await self._told(self._usable().put_async(url, data, chunk_size=PART), url)
        return BlobRef(url, len(data), sha256)

    async def get(self, ref: BlobRef) -> bytes:
        """The bytes; a size other than the reference's is refused before they are read."""
        names_of(ref.url)
        try:
            return await self._told(self._read(ref), ref.url)
        except _Missing:
            pass
        try:  # deleted as old while somebody put it once more
            await self._told(self._usable().copy_async(SWEPT + ref.url, ref.url), ref.url)
        except _Missing as error:
            raise BlobError(
                f"there is no blob {ref.url}; it was deleted, or never kept here", transient=False
            ) from error
        return await self._told(self._read(ref), ref.url)

    async def _read(self, ref: BlobRef) -> bytes:
        answer = await self._usable().get_async(ref.url)
        size = answer.meta["size"]
        if size != ref.size:
            raise BlobError(
                f"the blob {ref.url} has {size} bytes and should have {ref.size}: it was cut or changed; "
                "restore an earlier version of the object",
                transient=False,
            )
        return bytes(await answer.bytes_async())

    async def link(self, ref: BlobRef, seconds: float) -> str:
        """Signed with this store's own key; no request is made for it."""
        names_of(ref.url)
        return str(await self._told(sign_async(self._usable(), "GET", ref.url, timedelta(seconds=seconds)), ref.url))

    async def delete(self, url: str, *, older_than: float | None = None) -> None:
        """Remove it for good; with `older_than`, lay it aside for a week, if it was not put within so many seconds."""
        names_of(url)
        if older_than is None:
            for name in (url, SWEPT + url):
                await self._told(self._usable().delete_async(name), url)
            return
        try:
            found = await self._told(self._usable().head_async(url), url)
            if found["last_modified"] < _moment(older_than):
                await self._told(self._usable().copy_async(url, SWEPT + url), url)
                await self._told(self._usable().delete_async(url), url)
        except _Missing:
            pass

    async def list(self, *, older_than: float) -> AsyncIterator[BlobRef]:
        """Blobs not put for so long, by name; what was laid aside a week ago is removed on the way."""
        before, forgotten = _moment(older_than), utcnow() - SWEPT_FOR
        pages = self._usable().list()
        while page := await self._told(anext(pages, None), "its list"):
            for found in page:
                path, touched = found["path"], found["last_modified"]
                if path.startswith(SWEPT):
                    if touched < forgotten:
                        await self._told(self._usable().delete_async(path), path)
                elif touched < before and _is_blob(path):
                    yield BlobRef(path, found["size"], path.rpartition("/")[2])

    async def close(self) -> None:
        """Nothing is held open but idle connections, which end by themselves."""
        self._closed = True

    def _usable(self) -> S3Store:
        if self._closed:
            raise BlobError("the blob store is closed; open it again", transient=False)
        return self._store

    async def _told(self, work: Awaitable[T], what: str) -> T:
        """Only what is surely missing is no passing trouble: for a key or a URL that a person must mend, no image may fail."""
        try:
            return await work
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise BlobError(f"{self._where}: there is no such bucket; make it, or mend the URL") from error
            raise _Missing(what) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise BlobError(
                f"{self._where} refuses this key ({_words(error)}); it needs s3:GetObject, PutObject, DeleteObject "
                "and ListBucket there"
            ) from error
        except (BaseError, OSError) as error:
            raise BlobError(f"{self._where} ({what}) cannot be used now: {_words(error)}") from error


class _Missing(Exception):
    """There is no such object."""


def _store(parts: SplitResult) -> S3Store:
    config: Any = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS:
            raise BlobError(f"s3:// knows no option {name!r}; known: {', '.join(sorted(OPTIONS))}", transient=False)
        config[OPTIONS[name]] = value
    if "virtual_hosted_style_request" in config:
        config["virtual_hosted_style_request"] = config["virtual_hosted_style_request"] not in {"true", "1"}
    if parts.username and parts.password:
        config |= {"access_key_id": unquote(parts.username), "secret_access_key": unquote(parts.password)}
    return S3Store(
        parts.hostname or "",
        prefix=parts.path.strip("/") or None,
        config=config,
        client_options={
            "allow_http": config.get("endpoint", "").startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT),
            "timeout": timedelta(seconds=REQUEST),
        },
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=TRYING)},
    )


def _moment(older_than: float) -> datetime:
    """When something was last put that is so old. S3 counts in whole seconds: what is of this very one is young."""
    try:
        return utcnow() - timedelta(seconds=older_than)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _is_blob(path: str) -> bool:
    try:
        names_of(path)
    except BlobError:
        return False
    return True


def _words(error: Exception) -> str:
    """S3's own code where it gave one; the client's message puts it behind addresses and trees."""
    text = str(error)
    codes = re.findall(r"<Code>(\w+)</Code>", text)
    return ": ".join([*codes[:1], text.strip().partition("\n")[0][:300]])
