"""What a process computes with: libraries, machine, accelerator. Two that differ here may answer the same picture otherwise.

Told once, at the start: by inference servers beside their name (GET /v2), by workers, which prepare pictures, with their
presence, and by an import in the bundle that it makes.
"""

import hashlib
import platform
import socket
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import eyeline
from eyeline.core.settings import InferenceSettings, PipelineSettings
from eyeline.core.telemetry import logger

log = logger("inference")
CPU_INFO = Path("/proc/cpuinfo")
#: Instructions that another order of adding comes with, and with it another last digit.
INSTRUCTIONS = (
    "fma", "f16c", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16",
    "asimd", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


def of_maker() -> dict[str, str]:
    """What a bundle keeps of where its golden answers were recorded: nothing that names the machine."""
    return _libraries() | _runtimes()


def of_server(settings: InferenceSettings) -> dict[str, str]:
    """What an inference server says of itself: what it was told to compute with, and the accelerators."""
    gpus, driver = _accelerators()
    told = {"providers": ", ".join(settings.providers), "gpu": gpus, "driver": driver}
    return _libraries() | _runtimes() | _machine() | told


def of_worker(pipelines: Iterable[PipelineSettings]) -> dict[str, str]:
    """What a worker says of itself; a digest of the pipelines says what is asked of which model."""
    defined = "\n".join(sorted(f"{pipeline.name} {pipeline.digest}" for pipeline in pipelines))
    return _libraries() | _machine() | {"pipelines": hashlib.sha256(defined.encode()).hexdigest()[:12]}


def processor() -> str:
    """The CPU's name, where the system tells."""
    return _cpu_line("model name") or platform.processor() or "unknown"


def instructions() -> str:
    """Those of INSTRUCTIONS that the CPU has."""
    has = (_cpu_line("flags") or _cpu_line("Features")).split()
    return " ".join(name for name in INSTRUCTIONS if name in has)


def _libraries() -> dict[str, str]:
    """What decodes and resizes, and by which instructions. Blocks for a few milliseconds, as all of these do."""
    return {
        "software": f"eyeline {eyeline.__version__}",
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "opencv": _version("opencv-python-headless", "opencv-python"),
        "simplejpeg": _version("simplejpeg"),
        "pillow": _version("pillow"),
        "machine": platform.machine(),
        "instructions": instructions(),
    }


def _runtimes() -> dict[str, str]:
    return {"onnxruntime": _version("onnxruntime", "onnxruntime-gpu"), "openvino": _version("openvino")}


def _machine() -> dict[str, str]:
    name, version = platform.libc_ver()
    return {
        "host": socket.gethostname(),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": f"{name} {version}".strip(),
        "cpu": processor(),
    }


def _cpu_line(name: str) -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def _version(*distributions: str) -> str:
    """The version of the first of these that is installed."""
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def _accelerators() -> tuple[str, str]:
    """(names of the GPUs, version of their driver), empty where there are none or nobody can tell."""
    try:
        import pynvml  # noqa: PLC0415 - an extra: pip install 'eyeline[gpu]'
    except ModuleNotFoundError:
        return "", ""
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        names = [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        return ", ".join(names), _text(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        log.info("no accelerator is told of", reason=str(error))
        return "", ""


def _text(said: Any) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)  # bytes before nvidia-ml-py 12
