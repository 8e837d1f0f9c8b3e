"""OpenVINO: often the fastest on Intel and AMD CPUs, above all in bf16 where the processor has it (an extra)."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import openvino as ov

from eyeline.core.errors import ConfigError, InferenceError
from eyeline.inference.base import Tensor
from eyeline.inference.bundles import WEIGHTS, Bundle
from eyeline.inference.runtimes import Choice, Precision


class OpenVinoRuntime:
    """One instance: an infer request of its own. All instances of a model share the compiled model and its weights."""

    name = "openvino"

    def __init__(self, request: Any, names: Sequence[str], precision: str) -> None:
        self.precision = precision
        self._request: Any = request
        self._names = names

    @classmethod
    def open(cls, bundle: Bundle, choice: Choice) -> Sequence[Self]:
        """`choice.instances` of it. Raises ConfigError for a broken graph or a precision that this processor lacks."""
        if choice.precision not in cls.precisions():
            raise ConfigError(
                f"this processor has no {choice.precision} in OpenVINO; it has {', '.join(cls.precisions())}"
            )
        if choice.providers != ("cpu",):
            raise ConfigError(f"OpenVINO runs on the CPU here, not on {'/'.join(choice.providers)}: use onnxruntime")
        try:
            core = ov.Core()
            model = core.read_model(io.BytesIO(bundle.read(WEIGHTS)))
            model.reshape({bundle.contract.input.name: _shape(bundle)})
            compiled = core.compile_model(model, "CPU", _options(choice))
        except RuntimeError as error:
            raise ConfigError(f"OpenVINO cannot load {bundle.weights}: {_short(error)}") from error
        names = [output.get_any_name() for output in model.outputs]
        return [cls(compiled.create_infer_request(), names, choice.precision) for _ in range(choice.instances)]

    @classmethod
    def version(cls) -> str:
        """For the fingerprint."""
        return f"openvino {ov.__version__}"

    @classmethod
    def precisions(cls) -> Sequence[Precision]:
        """float32, and bf16 where the processor has instructions for it."""
        able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("f32", "bf16") if "BF16" in able else ("f32",)

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one batch; float32 outputs by name. Raises InferenceError."""
        try:
            found = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InferenceError(f"OpenVINO: {_short(error)}") from error
        values = (np.asarray(value) for value in found.values())
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        """The compiled model goes with its last instance."""
        self._request = None


def _shape(bundle: Bundle) -> Any:
    wanted = bundle.contract.input
    batch = ov.Dimension(1, wanted.max_batch) if wanted.max_batch > 1 else ov.Dimension(1)
    return ov.PartialShape([batch, *(ov.Dimension(length) for length in wanted.shape)])


def _options(choice: Choice) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": choice.precision,
        "NUM_STREAMS": choice.instances,
        "INFERENCE_NUM_THREADS": choice.instances * choice.threads,
        "ENABLE_CPU_PINNING": False,  # others work on these cores too
    }


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
