"""The table of model runtimes, and the choice among them: what `models tune` measured, or what the settings say."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from eyeline.core.errors import ConfigError
from eyeline.core.registry import Registry
from eyeline.core.settings import InferenceSettings
from eyeline.inference.base import ModelRuntime
from eyeline.inference.bundles import Bundle

TUNED = "tuned.toml"
Provider = Literal["cpu", "cuda", "tensorrt"]
Precision = Literal["f32", "bf16", "f16"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How to run a model. `batch` is the most that is worth running together, 0 where that is to be measured."""

    runtime: str = "onnxruntime"
    precision: Precision = "f32"
    threads: int = 1
    instances: int = 1
    batch: int = 0
    providers: tuple[Provider, ...] = ("cpu",)
    engines: Path | None = None

    @property
    def accelerated(self) -> bool:
        """Whether anything but the processor is asked for."""
        return self.providers != ("cpu",)


class Tuned(msgspec.Struct, frozen=True):
    """The part of a bundle's `tuned.toml` that serving needs."""

    runtime: str
    precision: Precision = "f32"
    threads: int = 1
    instances: int = 0
    batch: int = 0


class Runtime(Protocol):
    """What the table's classes are: they open all instances of a model at once, which may share its weights."""

    @classmethod
    def open(cls, bundle: Bundle, choice: Choice) -> Sequence[ModelRuntime]:
        """`choice.instances` runtimes for the bundle. Blocks for seconds. Raises ConfigError where that cannot be here."""
        ...

    @classmethod
    def version(cls) -> str:
        """The library's name and version, for the fingerprint."""
        ...

    @classmethod
    def precisions(cls) -> Sequence[Precision]:
        """What this machine can do, float32 first."""
        ...


RUNTIMES: Registry[Runtime] = Registry(
    "model runtime",
    {
        "onnxruntime": "eyeline.inference.runtimes.onnxruntime:OnnxRuntime",
        "openvino": "eyeline.inference.runtimes.openvino:OpenVinoRuntime",
    },
)


def open_runtimes(bundle: Bundle, choice: Choice) -> Sequence[ModelRuntime]:
    """All instances of a model. Blocks for seconds: call it in a thread. Raises ConfigError."""
    return RUNTIMES.load(choice.runtime).open(bundle, choice)


def choose(bundle: Bundle, settings: InferenceSettings, engines: Path | None = None) -> Choice:
    """What the settings ask for; where they say "auto", what `models tune` found on this machine, else ONNX Runtime."""
    providers: tuple[Provider, ...] = tuple(settings.providers)
    plain = Choice(providers=providers, engines=engines, instances=settings.instances or _instances(providers))
    if settings.runtime != "auto":
        return replace(plain, runtime=settings.runtime)
    tuned = None if plain.accelerated else read_tuned(bundle.path)
    if tuned is None or not _possible(tuned):
        return plain
    return replace(
        plain,
        runtime=tuned.runtime,
        precision=tuned.precision,
        threads=tuned.threads,
        batch=tuned.batch,
        instances=settings.instances or tuned.instances or max(1, cores() // tuned.threads),
    )


def read_tuned(folder: Path) -> Tuned | None:
    """What `models tune` wrote beside the model; None where it has not been tuned. Raises ConfigError."""
    path = folder / TUNED
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text())
        return msgspec.convert(content, Tuned)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}; run `eyeline models tune` again or delete it") from error


def cores() -> int:
    """Cores that this process may use (container limits included where the kernel tells)."""
    quota = Path("/sys/fs/cgroup/cpu.max")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    words = quota.read_text().split() if quota.is_file() else ["max"]
    if len(words) == 2 and words[0].isdigit():
        allowed = min(allowed, max(1, int(words[0]) // int(words[1])))
    return allowed


def _instances(providers: Sequence[Provider]) -> int:
    """On a CPU one for each core; on an accelerator two, so that one's copies hide behind the other's computing."""
    return cores() if tuple(providers) == ("cpu",) else 2


def _possible(tuned: Tuned) -> bool:
    """Tuned on another machine? Then what it chose may not be here."""
    try:
        return tuned.precision in RUNTIMES.load(tuned.runtime).precisions()
    except ConfigError:
        return False
