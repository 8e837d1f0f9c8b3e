"""ONNX Runtime: the default runtime; on CPU, or by setting on CUDA and TensorRT."""

import contextlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
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
#: Batches come in every size, and the default searches anew for the fastest convolution at each new one.
CUDA = {"cudnn_conv_algo_search": "HEURISTIC"}


class OnnxRuntime:
    """One instance. All instances of a model share its sessions, which may run in many threads at once."""

    name = "onnxruntime"

    def __init__(self, sessions: "Sessions", precision: str) -> None:
        self.precision = precision
        self._sessions = sessions
        self._outputs = [output.name for output in sessions.of(1).get_outputs()]
        self._filled: dict[str, Tensor] = {}

    @classmethod
    def open(cls, bundle: Bundle, choice: Choice) -> Sequence[Self]:
        """`choice.instances` of it. Raises ConfigError for a broken graph or a provider that is not here."""
        if choice.precision not in _precisions(choice.providers):
            raise ConfigError(f"ONNX Runtime does not run {choice.precision} on {'/'.join(choice.providers)}; use f32")
        wanted = [_provider(name, bundle, choice) for name in choice.providers]
        if choice.accelerated:
            _find_libraries()

        def session() -> Any:
            try:
                opened = ort.InferenceSession(bundle.read(WEIGHTS), _options(choice), providers=wanted)
            except Exception as error:  # its exceptions share no public base class
                raise ConfigError(f"ONNX Runtime cannot load {bundle.weights}: {error}") from error
            _check_providers(choice.providers, opened.get_providers())
            return opened

        sessions = Sessions(session, bundle.contract.input.max_batch if choice.providers[0] == "cuda" else 1)
        check_input(bundle, sessions.of(1).get_inputs())
        return [cls(sessions, choice.precision) for _ in range(choice.instances)]

    @classmethod
    def of(cls, weights: bytes, where: str, *, threads: int = 1) -> Self:
        """One instance of a graph that is no bundle yet, in float32 on the CPU: for import. Raises ConfigError."""
        options = _options(Choice(threads=threads))
        try:
            session = ort.InferenceSession(weights, options, providers=[PROVIDERS["cpu"]])
        except Exception as error:  # its exceptions share no public base class
            raise ConfigError(f"ONNX Runtime cannot load {where}: {str(error).strip()[:300]}") from error
        return cls(Sessions(lambda: session), "f32")

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
        size = len(next(iter(inputs.values())))
        full = self._sessions.full(size)
        try:
            given = (
                dict(inputs)
                if full == size
                else {name: self._fill(name, value, full) for name, value in inputs.items()}
            )
            values = self._sessions.of(full).run(self._outputs, given)
        except Exception as error:  # its exceptions share no public base class
            raise InferenceError(f"ONNX Runtime: {str(error).strip()[:300]}") from error
        return {name: value[:size] for name, value in zip(self._outputs, values, strict=True)}

    def close(self) -> None:
        """The sessions go with their last instance."""
        self._sessions = Sessions(_closed)

    def _fill(self, name: str, value: Tensor, full: int) -> Tensor:
        """The batch with old pictures behind it, in memory of the instance's own."""
        room = self._filled.get(name)
        if room is None or len(room) < full:
            room = self._filled[name] = np.zeros((full, *value.shape[1:]), value.dtype)
        room[: len(value)] = value
        return room[:full]


class Sessions:
    """One session for all batches; or, up to `most` > 1 images, one for each power of two, up to which batches are filled.

    CUDA's convolutions are planned for the last shape alone. Each batch of another size than the one before plans them all
    anew (half a second for a small detector on an H200), so that batches of changing sizes would leave the device idle.
    """

    def __init__(self, session: Callable[[], Any], most: int = 1) -> None:
        self._session = session
        self._most = most
        self._open: dict[int, Any] = {}
        self._lock = threading.Lock()

    def full(self, size: int) -> int:
        """How many images are run where `size` are asked for."""
        return max(size, min(1 << (size - 1).bit_length(), self._most)) if self._most > 1 else size

    def of(self, full: int) -> Any:
        """The session for batches of `full`, opened where it is the first of them. Raises ConfigError."""
        key = full if self._most > 1 else 1
        if key not in self._open:
            with self._lock:
                if key not in self._open:
                    self._open[key] = self._session()
        return self._open[key]


def _closed() -> Any:
    raise InferenceError("the model was closed")


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


def _provider(name: Provider, bundle: Bundle, choice: Choice) -> str | tuple[str, dict[str, str]]:
    wanted = PROVIDERS[name]
    here = ort.get_available_providers()
    if wanted not in here:
        raise ConfigError(
            f"inference.providers asks for {name!r}, and this build of ONNX Runtime has only {', '.join(here)}: "
            "pip uninstall onnxruntime, pip install 'eyeline[gpu]', on a machine with NVIDIA's driver"
        )
    if name == "tensorrt":
        return wanted, tensorrt(bundle, choice)
    return (wanted, CUDA) if name == "cuda" else wanted


def tensorrt(bundle: Bundle, choice: Choice) -> dict[str, str]:
    """TensorRT's options: one engine for all batch sizes (else each new one is minutes of building), kept between starts."""
    wanted = bundle.contract.input
    options = {"trt_fp16_enable": str(choice.precision == "f16")}
    if wanted.max_batch > 1:
        sizes = {"min": 1, "opt": wanted.max_batch, "max": wanted.max_batch}
        options |= {
            f"trt_profile_{which}_shapes": f"{wanted.name}:{'x'.join(map(str, (size, *wanted.shape)))}"
            for which, size in sizes.items()
        }
    if choice.engines is not None:
        choice.engines.mkdir(parents=True, exist_ok=True)
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(choice.engines),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(choice.engines),
        }
    return options


def _find_libraries() -> None:
    """CUDA and cuDNN as pip installs them, where the system's loader does not look. What that prints is no answer of ours."""
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()


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
