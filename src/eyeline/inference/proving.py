"""The proof that a model may serve: golden check, the same answers in batches, warm-up, and what a batch is worth.

While an older version serves, the proof runs in a process of its own with low priority (`python -m
eyeline.inference.proving`), so that neither its work nor its death touches a request.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from eyeline.core.errors import ConfigError, EyelineError, InferenceError
from eyeline.core.settings import InferenceSettings
from eyeline.core.telemetry import configure_logging
from eyeline.inference import golden
from eyeline.inference.base import GoldenCheck, ModelRuntime, Tensor
from eyeline.inference.batcher import check_finite
from eyeline.inference.bundles import Bundle, load_named
from eyeline.inference.runtimes import Choice, choose, open_runtimes

#: A larger batch must cost this much less an image than a smaller one, or it is not worth its latency.
WORTH = 0.92
#: How far result(batch) may be from result(single) in a raw output, absolute and relative: float32, or less.
CLOSE = {"f32": 1e-3, "bf16": 0.1, "f16": 0.05}
#: Seconds that a proof apart may take (TensorRT builds its engines meanwhile).
PATIENCE = 900.0


class Proof(msgspec.Struct, frozen=True):
    """What a proof found: of which bundle, its output shapes without the batch, how many images to run together, and how its
    golden pictures were answered.
    """

    digest: str
    outputs: dict[str, tuple[int, ...]]
    limit: int
    golden: GoldenCheck


class Wanted(msgspec.Struct):
    """What the process apart is asked."""

    name: str
    path: str
    settings: str
    engines: str | None


class Told(msgspec.Struct):
    """What it answers: the proof, or why there is none."""

    proof: Proof | None = None
    error: str = ""


async def prove_apart(name: str, path: Path, settings: InferenceSettings, engines: Path | None) -> Proof:
    """Prove a bundle in a process of its own. Raises ConfigError with its reason, or where it died."""
    wanted = Wanted(name, str(path), settings.model_dump_json(), str(engines) if engines else None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate(msgspec.json.encode(wanted))
    except TimeoutError as error:
        raise ConfigError(f"the check of {path} took more than {PATIENCE:.0f} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    try:
        told = msgspec.json.decode(said, type=Told)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the check of {path} died (exit {process.returncode}); the model is not safe to load"
        ) from error
    if told.proof is None:
        raise ConfigError(told.error)
    return told.proof


def main() -> None:
    """The process apart: one question on standard input, one answer on standard output."""
    configure_logging("warning", "inference")  # to standard error; standard output is the answer's
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wanted)
    with contextlib.suppress(OSError):
        os.nice(10)
    try:
        bundle = load_named(wanted.name, Path(wanted.path))
        settings = InferenceSettings.model_validate_json(wanted.settings)
        choice = choose(bundle, settings, Path(wanted.engines) if wanted.engines else None)
        told = Told(proof=prove(bundle, choice, open_runtimes(bundle, choice)))
    except (EyelineError, OSError) as error:
        told = Told(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(told))


def prove(bundle: Bundle, choice: Choice, runtimes: Sequence[ModelRuntime]) -> Proof:
    """Golden check, batches, warm-up. Raises ConfigError in words of the model, not of the runtime."""
    runtime = runtimes[0]
    try:
        checked = golden.measure(bundle, runtime.infer)
        differences = checked.differences
        if differences:
            more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
            raise ConfigError(
                f"{bundle.name} {bundle.version} fails its golden check on {choice.runtime} {choice.precision}: "
                f"{'; '.join(differences[:3])}{more}"
            )
        outputs, limit = _measured(bundle, choice, runtime)
        warm_up(bundle, choice, runtimes, limit)
    except InferenceError as error:
        raise ConfigError(f"{bundle.name} {bundle.version} cannot run: {error}") from error
    return Proof(bundle.digest, outputs, limit, checked)


def warm_up(bundle: Bundle, choice: Choice, runtimes: Sequence[ModelRuntime], limit: int) -> None:
    """The first runs, which are slow: of each instance, and on an accelerator of each batch size. Raises InferenceError."""
    for runtime in runtimes:
        runtime.infer(_noise(bundle, 1))
    if choice.accelerated:  # what is prepared for a size, all instances share
        for size in range(2, limit + 1):
            runtimes[0].infer(_noise(bundle, size))


def _measured(bundle: Bundle, choice: Choice, runtime: ModelRuntime) -> tuple[dict[str, tuple[int, ...]], int]:
    """(output shapes without the batch, how many images are worth running together). Raises InferenceError, ConfigError."""
    single = runtime.infer(_noise(bundle, 1))
    check_finite(single)
    for name, value in single.items():
        if value.dtype != np.float32 or value.shape[:1] != (1,):
            raise ConfigError(
                f"{bundle.weights}: output {name!r} is {value.dtype} {value.shape}; float32 [N, …] is wanted"
            )
    _check_heads(bundle, single)
    largest = bundle.contract.input.max_batch
    if largest > 1:
        _check_batch(bundle, choice, single, runtime)
    limit = choice.batch or _worthwhile(bundle, runtime, largest, _clock(choice))
    return {name: value.shape[1:] for name, value in single.items()}, min(limit, largest)


def _check_heads(bundle: Bundle, outputs: Mapping[str, Tensor]) -> None:
    missing = [head.output for head in bundle.contract.output.heads if head.output not in outputs]
    if missing:
        raise ConfigError(
            f"{bundle.weights} has no output {', '.join(missing)}, which model.toml names; it has {list(outputs)}"
        )


def _check_batch(bundle: Bundle, choice: Choice, single: Mapping[str, Tensor], runtime: ModelRuntime) -> None:
    """The same image beside another must get the same answer."""
    pair = _zeros(bundle, 2)[bundle.contract.input.name]
    pair[1] = _noise(bundle, 1)[bundle.contract.input.name][0]
    both = runtime.infer({bundle.contract.input.name: pair})
    close = CLOSE[choice.precision]
    for name, value in both.items():
        if value.shape[1:] != single[name].shape[1:] or value.shape[0] != 2:
            raise ConfigError(f"{bundle.weights}: output {name!r} of a batch of 2 is {value.shape}; set max_batch = 1")
        if not np.allclose(value[1], single[name][0], rtol=close, atol=close):
            raise ConfigError(
                f"{bundle.weights}: an image in a batch gets another answer than alone (output {name!r}); set max_batch = 1"
            )


Clock = Callable[[], float]


def _clock(choice: Choice) -> Clock:
    """CPU time where the calling thread does all the work, so that a busy machine does not blur the measurement."""
    alone = choice.runtime == "onnxruntime" and choice.threads == 1 and not choice.accelerated
    return time.thread_time if alone else time.perf_counter


def _worthwhile(bundle: Bundle, runtime: ModelRuntime, largest: int, clock: Clock) -> int:
    """The largest power of two that costs clearly less an image than smaller ones (CPUs often gain nothing)."""
    best, limit, size = _cost(bundle, runtime, 1, clock), 1, 2
    while size <= largest:
        cost = _cost(bundle, runtime, size, clock)
        if cost < best * WORTH:
            best, limit = cost, size
        elif size > 2 * limit:
            break
        size *= 2
    return limit


def _cost(bundle: Bundle, runtime: ModelRuntime, size: int, clock: Clock) -> float:
    """Seconds an image in a batch of `size`: the best of a few."""
    inputs = _noise(bundle, size)
    runtime.infer(inputs)
    return min(_timed(runtime.infer, inputs, clock) for _ in range(4)) / size


def _timed(infer: Callable[[Mapping[str, Tensor]], object], inputs: Mapping[str, Tensor], clock: Clock) -> float:
    started = clock()
    infer(inputs)
    return clock() - started


def _zeros(bundle: Bundle, size: int) -> dict[str, Tensor]:
    wanted = bundle.contract.input
    return {wanted.name: np.zeros((size, *wanted.shape), wanted.dtype)}


def _noise(bundle: Bundle, size: int) -> dict[str, Tensor]:
    """Bright noise, the same every time."""
    wanted = bundle.contract.input
    values = np.random.default_rng(7).integers(96, 256, (size, *wanted.shape), np.uint8)
    return {wanted.name: values.astype(wanted.dtype)}


if __name__ == "__main__":
    main()
