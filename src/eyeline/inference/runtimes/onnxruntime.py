"""ONNX Runtime: the default runtime; on CPU, or by setting on CUDA and TensorRT."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import onnxruntime as ort

from eyeline.core.errors import ConfigError, InferenceError
from eyeline.inference.base import Tensor
from eyeline.inference.bundles import WEIGHTS, Bundle
from eyeline.inference.runtimes import Choice, Precision, Provider

PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntime:
    """One instance. All instances of a model share one session, which may run in many threads at once."""

    name = "onnxruntime"

    def __init__(self, session: Any, precision: str) -> None:
        self.precision = precision
        self._session: Any = session
        self._outputs = [output.name for output in session.get_outputs()]

    @classmethod
    def open(cls, bundle: Bundle, choice: Choice) -> Sequence[Self]:
        """`choice.instances` of it. Raises ConfigError for a broken graph or a provider that is not here."""
        if choice.precision not in _precisions(choice.providers):
            raise ConfigError(f"ONNX Runtime does not run {choice.precision} on {'/'.join(choice.providers)}; use f32")
        wanted = [_provider(name, choice) for name in choice.providers]
        try:
            session = ort.InferenceSession(bundle.read(WEIGHTS), _options(choice), providers=wanted)
        except Exception as error:  # its exceptions share no public base class
            raise ConfigError(f"ONNX Runtime cannot load {bundle.weights}: {error}") from error
        _check_providers(choice.providers, session.get_providers())
        check_input(bundle, session.get_inputs())
        return [cls(session, choice.precision) for _ in range(choice.instances)]

    @classmethod
    def of(cls, weights: bytes, where: str, *, threads: int = 1) -> Self:
        """One instance of a graph that is no bundle yet, in float32 on the CPU: for import. Raises ConfigError."""
        options = _options(Choice(threads=threads))
        try:
            session = ort.InferenceSession(weights, options, providers=[PROVIDERS["cpu"]])
        except Exception as error:  # its exceptions share no public base class
            raise ConfigError(f"ONNX Runtime cannot load {where}: {str(error).strip()[:300]}") from error
        return cls(session, "f32")

    @classmethod
    def version(cls) -> str:
        """For the fingerprint."""
        return f"onnxruntime {ort.__version__}"

    @classmethod
    def precisions(cls) -> Sequence[Precision]:
        """On a CPU, float32 alone."""
        return ("f32",)

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one batch; float32 outputs by name. Raises InferenceError."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # its exceptions share no public base class
            raise InferenceError(f"ONNX Runtime: {str(error).strip()[:300]}") from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """The session goes with its last instance."""
        self._session = None


def _options(choice: Choice) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = choice.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A spinning thread takes the core from decoders that need it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _precisions(providers: Sequence[Provider]) -> tuple[Precision, ...]:
    return ("f32", "f16") if "tensorrt" in providers else ("f32",)


def _provider(name: Provider, choice: Choice) -> str | tuple[str, dict[str, str]]:
    wanted = PROVIDERS[name]
    here = ort.get_available_providers()
    if wanted not in here:
        raise ConfigError(
            f"inference.providers asks for {name!r}, and this build of ONNX Runtime has only {', '.join(here)}: "
            "pip uninstall onnxruntime, pip install 'eyeline[gpu]', on a machine with NVIDIA's driver"
        )
    if name == "tensorrt":
        return wanted, _tensorrt(choice, choice.engines)
    return wanted


def _tensorrt(choice: Choice, engines: Path | None) -> dict[str, str]:
    options = {"trt_fp16_enable": str(choice.precision == "f16")}
    if engines is not None:
        engines.mkdir(parents=True, exist_ok=True)
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(engines),
        }
    return options


def _check_providers(asked: Sequence[Provider], got: Sequence[str]) -> None:
    """ONNX Runtime goes back to the CPU in silence where a driver library is missing; we do not."""
    lost = [name for name in asked if PROVIDERS[name] not in got]
    if lost:
        raise ConfigError(
            f"ONNX Runtime could not start {', '.join(lost)} and fell back to {', '.join(got)}: check that CUDA, cuDNN "
            "(and TensorRT) of the versions it wants are installed, or set inference.providers = ['cpu']"
        )


def check_input(bundle: Bundle, inputs: Sequence[Any]) -> None:
    """The graph's input must be what `model.toml` says. Raises ConfigError that states both."""
    wanted = bundle.contract.input
    kind = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[wanted.dtype]
    found = {given.name: (given.type, list(given.shape)) for given in inputs}
    has = found.get(wanted.name)
    fits = (
        len(found) == 1
        and has is not None
        and has[0] == kind
        and len(has[1]) == 4
        and all(not isinstance(a, int) or a == b for a, b in zip(has[1][1:], wanted.shape, strict=True))
        and (wanted.max_batch == 1 or not isinstance(has[1][0], int))
    )
    if not fits:
        said = ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in found.items())
        batch = f"1..{wanted.max_batch}"
        raise ConfigError(
            f"{bundle.weights} takes {said}; model.toml says {wanted.name} {kind} [{batch}, "
            f"{', '.join(map(str, wanted.shape))}]"
        )
