"""A model's raw outputs: one image's part of them, checked to be numbers, and the sentence for one of the wrong shape."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import InferenceError
from eyeline.core.types import Floats
from eyeline.pipeline.contract import ModelContract

Outputs = Mapping[str, NDArray[Any]]


def row_of(output: NDArray[Any], contract: ModelContract, index: int, finite: bool = False) -> Floats:
    """One image's part of an output. Raises InferenceError for NaN and infinity, unless they were looked for (`finite`)."""
    row: Floats = np.asarray(output[index], np.float32)
    if not (finite or np.isfinite(row).all()):
        raise InferenceError(f"{contract.name} answered NaN or infinity for this image")
    return row


def wrong_shape(contract: ModelContract, row: Floats, wanted: str) -> InferenceError:
    """What to raise where an output is not what the decoder reads."""
    return InferenceError(
        f"{contract.name} answered {list(row.shape)} for an image; {contract.output.decoder} with "
        f"{len(contract.labels)} labels wants {wanted}: check labels and decoder of the bundle"
    )


def told(outputs: Outputs) -> str:
    """Names and shapes, for a sentence."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
