"""A pipeline tried on pictures without a service: the worker's own decoder child, steps and memory, and what each step said."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from eyeline.core.errors import ConfigError
from eyeline.core.settings import Settings
from eyeline.core.types import Detection, ModelRef, Pixels
from eyeline.inference.base import Predictor
from eyeline.pipeline.barcodes import CodesStep
from eyeline.pipeline.cascade import is_of
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import outline, overlay
from eyeline.pipeline.plan import PlannedStep, Step
from eyeline.pipeline.region import RegionStep
from eyeline.stores.cache.memory import MemoryCache
from eyeline.worker.decoders import DecoderPool
from eyeline.worker.memory import Memory
from eyeline.worker.orders import Order, Prepared
from eyeline.worker.outcome import NotServed
from eyeline.worker.plans import Plans, ReadyPlan
from eyeline.worker.steps import Findings, StepRunner


@dataclass(frozen=True)
class Said:
    """A step, and all that had been found once it was done."""

    step: Step
    findings: Findings


@dataclass(frozen=True)
class Tried:
    """What a pipeline made of a picture."""

    ready: ReadyPlan
    prepared: Prepared
    steps: Sequence[Said]
    findings: Findings


class Tryout:
    """One pipeline, ready to be tried."""

    def __init__(
        self, settings: Settings, ready: ReadyPlan, predictor: Predictor, memory: Memory, pool: DecoderPool
    ) -> None:
        self._limits = settings.gateway
        self._ready = ready
        self._memory = memory
        self._pool = pool
        self._threads = ThreadPoolExecutor(1)
        self._steps = StepRunner(predictor, self._threads)

    @property
    def models(self) -> Sequence[ModelRef]:
        """Exactly which models answer."""
        return self._ready.models

    async def run(self, data: bytes) -> Tried:
        """All steps on one encoded picture. Raises InputError for a bad one, InferenceError."""
        plan, slot = self._ready.plan, await self._memory.take()
        said: list[Said] = []
        try:
            layout = self._memory.layout
            order = Order(
                slot.put_image(data),
                tuple(slot.room(step, layout.areas(plan, step)) for step in plan.whole),
                slot.frame_room() if plan.on_crops else None,
                plan.exif,
                self._limits.max_pixels,
                self._limits.max_bytes,
                None if plan.codes is None else plan.codes.formats,
                plan.quality is not None,
            )
            prepared = await self._pool.decode(order)
            findings = await self._steps.run(
                self._ready,
                self._memory.layout,
                prepared,
                slot,
                "tryout",
                after=lambda step, found: said.append(Said(step, copy.deepcopy(found))),
            )
        finally:
            self._memory.give(slot)
        return Tried(self._ready, prepared, said, findings)

    def close(self) -> None:
        """Let the thread go."""
        self._threads.shutdown(wait=False)


@asynccontextmanager
async def tryout(settings: Settings, pipeline: str, predictor: Predictor) -> AsyncIterator[Tryout]:
    """A pipeline of the settings with its models and a decoder child. Raises ConfigError where it cannot run."""
    plans = Plans([one for one in settings.pipelines if one.name == pipeline], predictor, MemoryCache("memory://"))
    await plans.refresh()
    try:
        ready = plans.get(pipeline)
    except NotServed as error:
        known = ", ".join(one.name for one in settings.pipelines)
        raise ConfigError(f"{error}; pipelines: {known}") from error
    memory = Memory(1, plans.layout, settings.gateway.max_bytes)
    pool = DecoderPool(1)
    await pool.open(memory)
    trial = Tryout(settings, ready, predictor, memory, pool)
    try:
        yield trial
    finally:
        trial.close()
        await pool.close()
        memory.close()


async def pictures(tried: Tried, data: bytes) -> list[tuple[str, Pixels]]:
    """For each step its name and the picture with what it answers drawn on it."""
    decoded = await asyncio.to_thread(decode, data, exif=tried.ready.plan.exif)
    return [(said.step.name, _drawn(decoded.pixels, said, (decoded.width, decoded.height))) for said in tried.steps]


def _drawn(pixels: Pixels, said: Said, original: tuple[int, int]) -> Pixels:
    step, found = said.step, said.findings
    match step:
        case RegionStep():
            for good, polygons in ((True, step.inside), (False, step.outside)):
                for polygon in polygons:
                    pixels = outline(pixels, polygon, good=good)
            for _, polygon in step.zones:
                pixels = outline(pixels, polygon, good=True)
            return overlay(pixels, found.detections, original=original)
        case CodesStep():
            return overlay(pixels, codes=found.codes, original=original)
        case PlannedStep():
            if step.roi is not None:
                left, top, right, bottom = step.roi
                pixels = outline(pixels, ((left, top), (right, top), (right, bottom), (left, bottom)), good=True)
            labels = [one for one in found.classifications if is_of(one.step, step.name)]
            return overlay(pixels, _boxes(step.name, found.detections), labels, original=original)
    return overlay(pixels, original=original)


def _boxes(step: str, detections: Sequence[Detection]) -> list[Detection]:
    """What a step found, and what it called the crops of another one."""
    named = [
        Detection(said["label"], said["score"], found.box, step)
        for found in detections
        for said in found.attributes.get("classifications", ())
        if is_of(said["step"], step)
    ]
    return [found for found in detections if found.step == step] + named


def answers(tried: Tried) -> list[list[str]]:
    """A row for each answer: step, what it says, score, where."""
    rows: list[list[str]] = []
    for said in tried.steps:
        name, found = said.step.name, said.findings
        rows += [[name, one.label, f"{one.score:.3f}", _where(one.box)] for one in _boxes(name, found.detections)]
        rows += [
            [name, one.label, f"{one.score:.3f}", "whole image"]
            for one in found.classifications
            if is_of(one.step, name)
        ]
        if isinstance(said.step, CodesStep):
            rows += [[name, f"{code.format} {code.text!r}", "", _where(code.box)] for code in found.codes]
        rows += [[name, f"{word} {value}", "", ""] for word, value in found.said.get(name, {}).items()]
        if not rows or rows[-1][0] != name:
            rows.append([name, "nothing", "", ""])
    return rows


def _where(box: Sequence[float]) -> str:
    return ", ".join(f"{edge:.0f}" for edge in box)
