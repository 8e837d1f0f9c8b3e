"""A result's picture for people: decoded, perhaps drawn upon, and encoded anew, so that nothing hidden in the file gets out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from eyeline.core.errors import NotFound
from eyeline.core.types import ImageInfo, Result
from eyeline.gateway.state import State
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import Box, encode_jpeg, overlay, thumbnail
from eyeline.pipeline.geometry import Region, crop
from eyeline.stores.blobs.base import Linking
from eyeline.stores.pictures import kept_picture, original_of

#: How much is left around the box of a crop, as a share of it: as in kept evidence.
MARGIN = 0.1
#: Pictures are for people, a few at a time; ingestion must not wait for them.
_threads = ThreadPoolExecutor(2, thread_name_prefix="picture")


@dataclass(frozen=True, kw_only=True)
class View:
    """How a picture is shown: at most so wide, with what was found drawn on it, or the detection of that index alone."""

    width: int | None = None
    overlay: bool = False
    crop: int | None = None


async def picture(state: State, result: Result, view: View) -> Response:
    """The JPEG answer, from what is kept of it, or for the whole picture as it was received the way to where it lies, if
    links are allowed and can be had.

    Raises NotFound where nothing is kept, or it was never one that could be decoded.
    """
    if result.status != "completed" or result.image is None:
        raise NotFound(f"the job {result.id} failed ({result.reason}); its bytes are not shown as a picture")
    info = result.image
    ref = original_of(result.site, info)
    links = state.settings.blobs.links
    if links and view == View() and isinstance(state.blobs, Linking) and await state.results.picture(ref.url) is None:
        return RedirectResponse(await state.blobs.link(ref, links), 307, {"Cache-Control": "no-store"})
    box = _box(result, view.crop)
    found = await kept_picture(state.blobs, state.results, ref, box)
    if found is None:
        raise NotFound(f"the picture of {result.id} is not kept any more")
    data, kept = found
    box = None if kept.startswith("crop ") else box
    loop = asyncio.get_running_loop()
    jpeg = await loop.run_in_executor(_threads, _drawn, data, result, info, view, box)
    return Response(jpeg, headers=_headers(result.id, kept), media_type="image/jpeg")


def _box(result: Result, index: int | None) -> Box | None:
    if index is None:
        return None
    if index >= len(result.detections):
        raise NotFound(f"the result {result.id} has {len(result.detections)} detections; there is no crop {index}")
    return result.detections[index].box


def _drawn(data: bytes, result: Result, info: ImageInfo, view: View, box: Box | None) -> bytes:
    """In a thread. A narrow picture is decoded small."""
    small = view.width is not None and info.width and view.crop is None
    least = (max(1, view.width * info.height // info.width), view.width) if small and view.width else None
    pixels = decode(data, at_least=least).pixels
    if box is not None:
        cut = crop(pixels, box, MARGIN, Region.whole(info.width, info.height))
        pixels = pixels if cut is None else cut[0]
    if view.width is not None:
        pixels = thumbnail(pixels, view.width)
    if view.overlay and view.crop is None:
        original = (info.width, info.height)
        pixels = overlay(pixels, result.detections, result.classifications, result.codes, original=original)
    return encode_jpeg(pixels)


def _headers(id: str, kept: str) -> dict[str, str]:  # noqa: A002
    """Whatever the bytes are, a browser shows them as a picture or not at all."""
    return {
        "Content-Disposition": f'inline; filename="{id}.jpg"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "X-Eyeline-Kept": kept.partition(" ")[0],
        "Cache-Control": "private, max-age=86400, immutable",
    }
