"""What is left of a picture: as it was received, encoded anew, or evidence. Retention decides which; whoever shows asks here."""

from eyeline.core.errors import BlobError
from eyeline.core.types import BlobRef, ImageInfo
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.results.base import ResultStore
from eyeline.stores.results.retaining import REENCODED, THUMBNAIL, crop_name

ORIGINAL = "original"


def original_of(site: str, image: ImageInfo) -> BlobRef:
    """Where a picture of a site lies as it was received."""
    return BlobRef(f"{site}/{image.sha256}", image.bytes, image.sha256)


async def kept_picture(
    blobs: BlobStore, results: ResultStore, original: BlobRef, box: tuple[float, float, float, float] | None = None
) -> tuple[bytes, str] | None:
    """The bytes that tell most of it, of a box its crop rather than the thumbnail; and what they are: `original`, `reencoded`,
    `crop …` or `thumbnail`. None where nothing is kept. Raises BackendError.
    """
    try:
        return await blobs.get(original), ORIGINAL
    except BlobError as error:
        if error.transient:
            raise
    row = await results.picture(original.url)
    kept = {} if row is None else row.kept
    wanted = [REENCODED, *([crop_name(box)] if box is not None else []), THUMBNAIL]
    for what in (what for what in wanted if what in kept):
        return await blobs.get(kept[what]), what
    return None
