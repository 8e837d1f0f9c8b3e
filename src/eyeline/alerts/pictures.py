"""The picture behind a notification, with what was found drawn on it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from eyeline.core.errors import BackendError, InputError
from eyeline.core.telemetry import logger
from eyeline.core.types import Result
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import encode_jpeg, overlay, thumbnail
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.pictures import kept_picture, original_of
from eyeline.stores.results.base import ResultStore

log = logger("alerts")

#: Pixels across, and bytes of a JPEG, that a message may carry.
WIDTH = 960


class DrawnPictures:
    """See `channels.base.Pictures`. A picture that cannot be had holds up no notification."""

    def __init__(self, blobs: BlobStore, results: ResultStore) -> None:
        self._blobs = blobs
        self._results = results

    async def __call__(self, told: Mapping[str, Any]) -> bytes | None:
        """The whole result is looked up: a notification may tell less of it."""
        try:
            result = await self._results.get(str(told.get("id", "")))
            if result is None or result.image is None or result.status != "completed":
                return None
            image = result.image
            found = await kept_picture(self._blobs, self._results, original_of(result.site, image))
            return None if found is None else await asyncio.to_thread(_drawn, found[0], result)
        except (BackendError, InputError, msgspec.ValidationError) as error:
            log.warning("a notification goes without its picture", result=told.get("id"), error=str(error))
            return None


def _drawn(data: bytes, result: Result) -> bytes:
    """In a thread."""
    assert result.image is not None  # noqa: S101 - the caller looked
    width, height = result.image.width, result.image.height
    least = (max(1, WIDTH * height // width), WIDTH) if width > WIDTH else None
    pixels = thumbnail(decode(data, at_least=least).pixels, WIDTH)
    found = (result.detections, result.classifications, result.codes)
    return encode_jpeg(overlay(pixels, *found, original=(width, height)))
