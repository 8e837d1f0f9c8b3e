"""What is made of a picture to keep less of it: encoded anew, or a thumbnail and the crops of what was found. Computing only."""

import io
from collections.abc import Callable, Iterable, Mapping

from PIL import Image

from eyeline.core.errors import InputError
from eyeline.core.types import Pixels, Result
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import encode_jpeg, encode_webp, thumbnail
from eyeline.pipeline.geometry import Region, crop
from eyeline.stores.results.retaining import THUMBNAIL, crop_name

#: Width of a thumbnail, the longest side of a crop, crops of one picture at most, and how much is left around them.
WIDTH, SIDE, CROPS, MARGIN = 320, 512, 16, 0.1
#: WebP quality of both.
QUALITY = 75
#: A picture that gets no smaller than this share of itself stays as it was received.
WORTH = 0.9


def _avif(pixels: Pixels, quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "AVIF", quality=quality, speed=6, max_threads=1)
    return out.getvalue()


ENCODERS: Mapping[str, Callable[[Pixels, int], bytes]] = {"jpeg": encode_jpeg, "webp": encode_webp, "avif": _avif}


def encoded(data: bytes, encoding: str) -> bytes:
    """The upright picture encoded anew, such as `webp:80`, without any metadata. Raises InputError."""
    name, _, quality = encoding.partition(":")
    return ENCODERS[name](decode(data).pixels, int(quality))


def reencoded(data: bytes, encoding: str) -> bytes | None:
    """The same, or None where that is not worth it, or no picture any more that can be read."""
    try:
        made = encoded(data, encoding)
    except InputError:
        return None
    return made if len(made) <= WORTH * len(data) else None


def evidence(data: bytes, results: Iterable[Result]) -> dict[str, bytes]:
    """By what they show: `thumbnail`, and `crop x1,y1,x2,y2` for the best detections of those results. Nothing where the picture
    cannot be read.
    """
    try:
        decoded = decode(data)
    except InputError:
        return {}
    whole = Region.whole(decoded.width, decoded.height)
    found = sorted((each for result in results for each in result.detections), key=lambda each: -each.score)
    boxes = list(dict.fromkeys(each.box for each in found))[:CROPS]
    made = {THUMBNAIL: encode_webp(thumbnail(decoded.pixels, WIDTH), QUALITY)}
    for box in boxes:
        cut = crop(decoded.pixels, box, MARGIN, whole)
        if cut is not None:
            made[crop_name(box)] = encode_webp(_bounded(cut[0]), QUALITY)
    return made


def _bounded(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    return thumbnail(pixels, max(1, min(width, round(width * SIDE / max(height, width)))))
