"""Blob stores: where pictures lie."""

from eyeline.core.registry import Registry
from eyeline.stores.blobs.base import BlobStore

BLOBS: Registry[BlobStore] = Registry(
    "blob store",
    {
        "file": "eyeline.stores.blobs.file:FolderBlobs",
        "s3": "eyeline.stores.blobs.s3:S3Blobs",
    },
)


def open_blobs(url: str) -> BlobStore:
    """The blob store at `url`."""
    return BLOBS.open(url)
