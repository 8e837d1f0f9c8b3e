"""The promises around a model: a runtime that runs it here, a predictor that asks for it anywhere."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import InferenceUnavailable
from eyeline.core.types import ModelRef
from eyeline.pipeline.contract import ModelContract

Tensor = NDArray[Any]


class ModelChanged(InferenceUnavailable):
    """An answer came, from another version than the caller asks for: look again at what serves, and ask again."""


class ModelRuntime(Protocol):
    """One loaded model instance. Sync; called in a thread; not shared by two calls at once."""

    name: str
    precision: str

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one batch; float32 outputs by name. Raises InferenceError."""
        ...

    def close(self) -> None:
        """Free it. Idempotent."""
        ...


@dataclass(frozen=True)
class Canary:
    """A version (its folder's name) that is tried out: it answers for these sites, beside the one that serves all others."""

    version: str
    sites: tuple[str, ...]

    def address(self, model: str) -> str:
        """The name under which servers are asked for it: no model of its own can be called so."""
        return f"{model}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """What a golden check found: how far a score was off at most, how far it may be, and in words what is another decision."""

    pictures: int
    score_difference: float
    tolerance: float
    at: str
    differences: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every decision is the recorded one."""
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model as a server answers it. `fingerprint` covers bundle digest, runtime, precision, threads and library versions;
    `outputs` maps each output's name to its shape without the batch dimension; `finite`: the server itself refuses to
    answer NaN or infinity; `canary`: the version that is tried out in its place; `golden`: the check before it was served.
    """

    contract: ModelContract
    ref: ModelRef
    fingerprint: str
    outputs: Mapping[str, tuple[int, ...]]
    finite: bool = False
    canary: Canary | None = None
    golden: GoldenCheck | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SharedTensor:
    """A tensor that lies in a registered shared memory segment: input of a request, or room for an output."""

    segment: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Rescued(dict[str, Tensor]):
    """Outputs of a second replica. The first one gave no answer and may still write into the room it was given: that room
    must not be used again.
    """


class Predictor(Protocol):
    """Asks a model for an answer. Raises InferenceError (this input is refused), InferenceUnavailable (down, full, not ready)."""

    async def model(self, name: str) -> ServedModel:
        """What serves under this name now (cached for a second)."""
        ...

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Tensor | SharedTensor],
        *,
        outputs: Mapping[str, SharedTensor] | None = None,
        timeout: float,  # noqa: ASYNC109 - it travels with the request
        request_id: str = "",
        version: str = "",
    ) -> dict[str, Tensor]:
        """One request (batch of one or more); outputs by name, those given room in shared memory as views of it, or `Rescued`.

        version: the `ModelRef.version` whose answer is wanted; another one's raises ModelChanged.
        """
        ...

    async def register(self, segment: str, size: int) -> bool:
        """Offer a shared memory segment; False where the server cannot share memory (then send tensors)."""
        ...

    async def unregister(self, segment: str) -> None:
        """Take it back. Idempotent."""
        ...

    async def ready(self) -> Sequence[str]:
        """Names of models that are not ready, empty when all are. Raises InferenceUnavailable where there is no answer."""
        ...

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        ...
