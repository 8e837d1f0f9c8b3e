"""A pipeline run over pictures in a process of its own, and what it took: time, CPU and memory, answer by answer.

`python -m eyeline.worker.measure` reads a question (msgspec JSON) from standard input and answers in JSON lines: one for
each picture as it is done, then one of the process. The steps, the decoder child and the preprocessing are the worker's own.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from eyeline.core.errors import ConfigError, EyelineError, InferenceError, InputError
from eyeline.core.settings import Settings
from eyeline.core.telemetry import configure_logging
from eyeline.core.types import Classification, Detection
from eyeline.inference.local import LocalPredictor
from eyeline.worker.tryout import tryout

#: Pictures before the first one that counts: models and caches are cold.
WARM_UP = 3


class Question(msgspec.Struct, frozen=True):
    """What is to be run over what."""

    settings: str
    pipeline: str
    files: list[str]


class Measured(msgspec.Struct, frozen=True):
    """One picture: what was found, and what it took. `cpu` is of this process and its decoder child; `refused` says why not."""

    seconds: float = 0.0
    cpu: float = 0.0
    detections: list[Detection] = []
    classifications: list[Classification] = []
    escalated: bool = False
    refused: str = ""


class Process(msgspec.Struct, frozen=True):
    """The process at the end: bytes of memory that it and its child held at most, or why it could not run."""

    memory: int = 0
    models: list[str] = []
    error: str = ""


class _Line(msgspec.Struct, frozen=True):
    picture: Measured | None = None
    process: Process | None = None


async def measure(
    settings: Settings, pipeline: str, files: Sequence[Path], progress: Callable[[int, int], object]
) -> tuple[list[Measured], Process]:
    """Run the pipeline over the files, one after the other, in a fresh process. Raises ConfigError with its reason."""
    question = Question(settings.model_dump_json(), pipeline, [str(file.resolve()) for file in files])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26
    )
    found: list[Measured] = []
    try:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - they are pipes
        child.stdin.write(msgspec.json.encode(question))
        child.stdin.close()
        async for text in child.stdout:
            line = msgspec.json.decode(text, type=_Line)
            if line.process is not None:
                if line.process.error:
                    raise ConfigError(line.process.error)
                return found, line.process
            if line.picture is not None:
                found.append(line.picture)
                progress(len(found), len(files))
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    raise ConfigError(f"the run of {pipeline!r} died after {len(found)} of {len(files)} pictures")


def main() -> None:
    """The process apart."""
    configure_logging("error", "measure")
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        asyncio.run(_all(question))
    except EyelineError as error:
        _tell(_Line(process=Process(error=str(error))))


async def _all(question: Question) -> None:
    settings = Settings.model_validate_json(question.settings)
    files = [Path(file) for file in question.files]
    me = psutil.Process()
    predictor = LocalPredictor(settings.inference)
    most = 0
    try:
        async with tryout(settings, question.pipeline, predictor) as trial:
            for file in files[:WARM_UP]:
                await _one(trial, file, me)
            for file in files:
                measured = await _one(trial, file, me)
                most = max(most, _memory(me))
                _tell(_Line(picture=measured))
            models = [f"{ref.name} {ref.version} {ref.runtime}" for ref in trial.models]
    finally:
        await predictor.close()
    _tell(_Line(process=Process(memory=most, models=models)))


async def _one(trial: Any, file: Path, me: psutil.Process) -> Measured:
    try:
        data = await asyncio.to_thread(file.read_bytes)
        before, start = _cpu(me), time.perf_counter()
        tried = await trial.run(data)
        seconds, cpu = time.perf_counter() - start, _cpu(me) - before
    except (InputError, InferenceError, OSError) as error:
        return Measured(refused=str(error))
    found = tried.findings
    escalated = any(said.get("escalated", 0) for said in found.said.values())
    return Measured(seconds, cpu, found.detections, found.classifications, escalated)


def _cpu(me: psutil.Process) -> float:
    """Seconds of CPU that this process and its children used so far."""
    spent = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            spent += times.user + times.system
    return float(spent)


def _memory(me: psutil.Process) -> int:
    """Bytes that would be free without this process and its children: what they share counts once."""
    held = 0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            held += process.memory_full_info().uss
    return int(held)


def _tell(line: _Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
