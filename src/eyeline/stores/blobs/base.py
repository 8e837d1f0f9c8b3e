"""The promise of every blob store: bytes under `<site>/<sha256>`, durable once put returns."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from eyeline.core.types import BlobRef


class BlobStore(Protocol):
    """All methods raise BlobError; a blob that is not there is `BlobError(transient=False)`."""

    async def put(self, site: str, data: bytes, sha256: str) -> BlobRef:
        """Keep `data` durably (file and directory fsynced) before returning. A repeated put touches the object and is cheap."""
        ...

    async def get(self, ref: BlobRef) -> bytes:
        """The bytes. A size other than `ref.size` is an error (cut or tampered)."""
        ...

    async def delete(self, url: str, *, older_than: float | None = None) -> None:
        """Remove it. Idempotent. With `older_than`, only if it was not put for so many seconds: a put that comes between is
        never undone.
        """
        ...

    def list(self, *, older_than: float) -> AsyncIterator[BlobRef]:
        """Blobs not touched for `older_than` seconds, for the sweeper."""
        ...

    async def close(self) -> None:
        """Give back threads and connections. Idempotent."""
        ...


@runtime_checkable
class Linking(Protocol):
    """What a blob store that others reach may have besides."""

    async def link(self, ref: BlobRef, seconds: float) -> str:
        """A URL by which whoever has it may read the blob for so many seconds, if it is there: that is not looked at."""
        ...


@runtime_checkable
class BlockingPut(Protocol):
    """What a blob store on a local disk may have besides: a put for callers who are in a thread of their own already."""

    def put_now(self, site: str, data: bytes, sha256: str) -> BlobRef:
        """`put`, blocking."""
        ...
