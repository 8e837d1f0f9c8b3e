"""A picture is shown from what is left of it, and the answer says what that was."""

import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from eyeline.core.clock import utcnow
from eyeline.core.errors import NotFound
from eyeline.core.types import BlobRef, Detection, ImageInfo, Result
from eyeline.gateway.images import View, picture
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results.retaining import REENCODED, THUMBNAIL, PictureRow, crop_name

BOX = (10.0, 20.0, 50.0, 40.0)


class Kept:
    """A state whose database says what it is told to."""

    def __init__(self, blobs: FolderBlobs) -> None:
        self.blobs = blobs
        self.row: PictureRow | None = None
        self.results = SimpleNamespace(picture=self._picture)
        self.settings = SimpleNamespace(blobs=SimpleNamespace(links=0))

    async def _picture(self, url: str) -> PictureRow | None:
        return self.row if self.row is not None and self.row.url == url else None

    async def put(self, width: int, height: int, level: int) -> BlobRef:
        out = io.BytesIO()
        Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(out, "PNG")
        return await self.blobs.put("north", out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest())


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Kept]:
    blobs = FolderBlobs(f"file://{tmp_path}")
    yield Kept(blobs)
    await blobs.close()


async def shown(state: Kept, original: BlobRef, **view: Any) -> tuple[str, tuple[int, int], int]:
    """What it was made from, its size, its level."""
    now = utcnow()
    result = Result(
        id="r", status="completed", site="north", pipeline="p", captured_at=now, received_at=now, completed_at=now,
        image=ImageInfo(original.sha256, 160, 120, "png", original.size), detections=[Detection("carton", 0.9, BOX, "find")],
    )  # fmt: skip
    answer = await picture(cast("Any", state), result, View(**view))
    image = Image.open(io.BytesIO(bytes(answer.body)))
    return answer.headers["X-Eyeline-Kept"], image.size, int(np.asarray(image).mean().round())


async def test_the_original_is_shown_while_it_is_there(state: Kept) -> None:
    original = await state.put(160, 120, 50)
    assert await shown(state, original) == ("original", (160, 120), 50)
    assert await shown(state, original, crop=0) == ("original", (48, 24), 50)
    with pytest.raises(NotFound, match="there is no crop 1"):
        await shown(state, original, crop=1)


async def test_then_what_it_was_encoded_to(state: Kept) -> None:
    original, small = BlobRef("north/" + "0" * 64, 9, "0" * 64), await state.put(160, 120, 60)
    state.row = PictureRow(url=original.url, state="reencoded", at="", kept={REENCODED: small})
    assert await shown(state, original) == ("reencoded", (160, 120), 60)
    assert await shown(state, original, crop=0, width=24) == ("reencoded", (24, 12), 60)


async def test_then_the_thumbnail_and_a_detections_own_crop(state: Kept) -> None:
    original = BlobRef("north/" + "0" * 64, 9, "0" * 64)
    kept = {THUMBNAIL: await state.put(80, 60, 70), crop_name(BOX): await state.put(48, 24, 90)}
    state.row = PictureRow(url=original.url, state="evidence", at="", kept=kept)
    assert await shown(state, original) == ("thumbnail", (80, 60), 70)
    assert await shown(state, original, crop=0) == ("crop", (48, 24), 90)
    state.row = PictureRow(url=original.url, state="evidence", at="", kept={THUMBNAIL: kept[THUMBNAIL]})
    assert await shown(state, original, crop=0) == ("thumbnail", (24, 12), 70)


async def test_and_then_it_is_said_that_nothing_is_left(state: Kept) -> None:
    with pytest.raises(NotFound, match="not kept any more"):
        await shown(state, BlobRef("north/" + "0" * 64, 9, "0" * 64))
