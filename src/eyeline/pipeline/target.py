"""How large a picture is decoded: once, to the largest size that any step needs."""

from collections.abc import Sequence

from eyeline.pipeline import quality
from eyeline.pipeline.contract import InputContract
from eyeline.pipeline.geometry import Box, crop_size, view_size


def decode_target(
    views: Sequence[tuple[InputContract, Box | None]],
    width: int,
    height: int,
    *,
    crops: bool = False,
    every_pixel: bool = False,
    measured: bool = False,
) -> tuple[int, int] | None:
    """What to decode an upright original of that size to at least: (height, width), or None for all of it.

    views: the contracts of the models that see it, each with the share of the picture that it is shown (None: all of it).
    crops: crops are cut from it. every_pixel: barcodes are read, or frames compared. measured: its quality is measured.
    """
    if every_pixel:
        return None
    sizes = [view_size(contract, share, width, height) for contract, share in views]
    if measured:
        sizes.append(quality.needed(width, height))
    if crops:
        cut = crop_size(width, height)
        if cut is None:
            return None
        sizes.append(cut)
    return max((size[0] for size in sizes), default=1), max((size[1] for size in sizes), default=1)
