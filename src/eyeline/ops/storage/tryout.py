"""What encoding anew would save on pictures of one's own."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eyeline.core.errors import InputError
from eyeline.ops.storage.chart import size
from eyeline.ops.storage.pictures import WORTH, encoded
from eyeline.pipeline.decode import decode


def try_encodings(files: Sequence[Path], encodings: Sequence[str]) -> list[list[str]]:
    """A row for each class (format and rough size) and encoding. Raises InputError for an encoding that there is not."""
    rows: dict[tuple[str, str], list[tuple[int, int, float, float]]] = defaultdict(list)
    for path in files:
        data = path.read_bytes()
        try:
            before = decode(data)
        except InputError:
            continue
        megapixels = before.width * before.height / 1e6
        name = (
            f"{before.format}, {'under 1' if megapixels < 1 else '1 to 4' if megapixels < 4 else 'over 4'} megapixels"
        )
        for encoding in encodings:
            rows[name, encoding].append(_tried(data, before.pixels, encoding))
    return [_row(name, encoding, tried) for (name, encoding), tried in sorted(rows.items())]


def _tried(data: bytes, pixels: np.ndarray, encoding: str) -> tuple[int, int, float, float]:
    start = time.process_time()
    made = encoded(data, encoding)
    took = time.process_time() - start
    difference = float(np.abs(decode(made).pixels.astype(np.int16) - pixels).mean())
    return len(data), len(made) if len(made) <= WORTH * len(data) else len(data), took, difference


def _row(name: str, encoding: str, tried: Sequence[tuple[int, int, float, float]]) -> list[str]:
    before, after = sum(each[0] for each in tried), sum(each[1] for each in tried)
    took, difference = (sum(each[index] for each in tried) / len(tried) for index in (2, 3))
    return [
        name,
        encoding,
        str(len(tried)),
        size(before),
        size(after),
        f"{1 - after / before:.0%}",
        f"{1000 * took:.0f}",
        f"{difference:.2f}",
    ]
