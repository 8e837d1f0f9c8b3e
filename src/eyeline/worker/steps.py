"""Runs the steps of a plan on one prepared image: asks the models, reads their outputs, cuts crops, gathers the answers."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from eyeline.core.errors import BadImage, InferenceError
from eyeline.core.telemetry import CASCADE
from eyeline.core.types import Classification, Code, Detection, Detections, Pixels
from eyeline.inference.base import ModelChanged, Predictor, Rescued, SharedTensor, Tensor
from eyeline.pipeline import barcodes, cascade, decoders, maps, region
from eyeline.pipeline.barcodes import CodesStep
from eyeline.pipeline.geometry import Placement, Region, crop, place
from eyeline.pipeline.plan import PlannedStep, Step
from eyeline.pipeline.quality import Quality, QualityStep
from eyeline.pipeline.region import RegionStep
from eyeline.worker.memory import Layout, Slot, StepAreas
from eyeline.worker.orders import Prepared
from eyeline.worker.plans import ReadyPlan

#: Seconds that one request to the inference service may take, its waiting line included.
INFER_SECONDS = 20.0
#: Numbers in a model's outputs up to which reading them stays on the event loop: it takes less than 0.2 ms, and handing
#: it to a thread costs as much again, while both wait for one interpreter lock.
LIGHT = 400_000


@dataclass
class Findings:
    """What the steps found so far, what each says beside that (`said`, by step), and how long it took, by stage."""

    detections: list[Detection] = field(default_factory=list)
    classifications: list[Classification] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    def spent(self, stage: str, since: float) -> None:
        """Add the time since then to a stage."""
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - since


@dataclass(frozen=True)
class _Crop:
    """One crop in a batch: whose it is (an index into the detections), and how its tensor maps back."""

    detection: int
    placement: Placement


@dataclass(frozen=True)
class _Image:
    """One prepared image on its way through the steps."""

    job: str
    ready: ReadyPlan
    layout: Layout
    prepared: Prepared
    slot: Slot
    findings: Findings

    def areas(self, step: PlannedStep) -> StepAreas:
        return self.layout.areas(self.ready.plan, step)


class StepRunner:
    """Steps in order, by one predictor; computing goes to `threads`."""

    def __init__(self, predictor: Predictor, threads: Executor) -> None:
        self._predictor = predictor
        self._threads = threads

    async def run(
        self,
        ready: ReadyPlan,
        layout: Layout,
        prepared: Prepared,
        slot: Slot,
        job: str,
        *,
        after: Callable[[Step, Findings], None] | None = None,
    ) -> Findings:
        """All steps. Raises InferenceError, InferenceUnavailable, ModelChanged; a request without an answer condemns the slot.

        `after` is told of each step that is done. Raises BadImage (codes quality_dark, quality_over_exposed, quality_blurred)
        where a quality step rejects the picture.
        """
        image = _Image(job, ready, layout, prepared, slot, Findings())
        placements = dict(zip((step.name for step in ready.plan.whole), prepared.placements, strict=True))
        for step in ready.plan.steps:
            if not isinstance(step, PlannedStep):
                _without_model(image, step)
            elif step.on is None:
                await self._whole(image, step, placements[step.name])
            else:
                await self._on_crops(image, step)
            if after is not None:
                after(step, image.findings)
        return image.findings

    async def _whole(self, image: _Image, step: PlannedStep, placement: Placement) -> None:
        if step.unsure_of is not None and not _escalated(image, step):
            return
        outputs = await self._ask(image, step, 1)
        start = time.perf_counter()
        finite = image.ready.served[step.model].finite
        light = sum(output.size for output in outputs.values()) <= LIGHT
        if finite and light and step.contract.output.decoder not in decoders.SHAPED:
            _read_whole(step, outputs, placement, image.findings, finite)
        else:
            await self._compute(_read_whole, step, outputs, placement, image.findings, finite)
        image.findings.spent("postprocess", start)

    async def _on_crops(self, image: _Image, step: PlannedStep) -> None:
        prepared, findings, area = image.prepared, image.findings, image.areas(step).input
        chosen = _chosen(image, step)
        if not chosen or prepared.frame is None:
            return
        frame, region = image.slot.frame(prepared.frame), Region.whole(prepared.width, prepared.height)
        for first in range(0, len(chosen), area.rows):
            part = chosen[first : first + area.rows]
            room = image.slot.array(area, len(part))
            start = time.perf_counter()
            crops = await self._compute(_cut, step, frame, region, findings.detections, part, room)
            findings.spent("preprocess", start)
            if crops:
                outputs = await self._ask(image, step, len(crops))
                start = time.perf_counter()
                await self._compute(_read_crops, step, outputs, crops, findings)
                findings.spent("postprocess", start)

    async def _ask(self, image: _Image, step: PlannedStep, rows: int) -> Mapping[str, Tensor]:
        slot, areas = image.slot, image.areas(step)
        start = time.perf_counter()
        entry: Tensor | SharedTensor = slot.shared(areas.input, rows) or slot.array(areas.input, rows)
        rooms = {name: room for name, area in areas.outputs.items() if (room := slot.shared(area, rows)) is not None}
        try:
            outputs = await self._predictor.predict(
                step.model,
                {step.contract.input.name: entry},
                outputs=rooms,
                timeout=INFER_SECONDS,
                request_id=image.job,
                version=image.ready.served[step.model].ref.version,
            )
        except (InferenceError, ModelChanged):  # answers, both
            raise
        except BaseException:  # no answer: the server may still write into this slot
            slot.condemned = slot.condemned or bool(rooms)
            raise
        slot.condemned = slot.condemned or isinstance(outputs, Rescued)
        image.findings.spent("infer", start)
        return outputs

    async def _compute(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _without_model(image: _Image, step: CodesStep | QualityStep | RegionStep) -> None:
    """What a decoder child has read or measured already, and what is only a choice among the boxes."""
    findings, prepared = image.findings, image.prepared
    match step:
        case CodesStep():
            findings.codes = list(prepared.codes)
            barcodes.tie(findings.codes, findings.detections, step.on)
        case QualityStep() if prepared.quality is not None:
            findings.said[step.name] = gate(step, prepared.quality)
        case RegionStep():
            stay = region.kept(findings.detections, step, prepared.width, prepared.height)
            findings.said[step.name] = {"dropped": len(findings.detections) - len(stay)}
            findings.detections = stay


def gate(step: QualityStep, measured: Quality) -> dict[str, Any]:
    """What a quality step says of a picture. Raises BadImage where it rejects it."""
    faults = step.faults(measured)
    said = {name: getattr(measured, name) for name in measured.__struct_fields__}
    if faults and step.reject:
        numbers = ", ".join(f"{name} {value:g}" for name, value in said.items())
        raise BadImage(
            f"the picture is {' and '.join(faults)} ({numbers}); see to the camera or the limits of step {step.name!r}",
            code=f"quality_{faults[0]}",
        )
    return {**said, "faults": faults}


def _escalated(image: _Image, step: PlannedStep) -> bool:
    """Whether the first model was unsure of the whole image; then what it found makes room for the second opinion."""
    findings, first = image.findings, step.unsure_of or ""
    unsure = cascade.unsure(cascade.scores(findings.detections, findings.classifications, first), step.unsure)
    _tell_cascade(image, step, int(unsure), 1)
    if unsure:
        findings.detections = [found for found in findings.detections if found.step != first]
        findings.classifications = [found for found in findings.classifications if not cascade.is_of(found.step, first)]
    return unsure


def _chosen(image: _Image, step: PlannedStep) -> list[int]:
    """Which detections a step on crops is shown: all of step `on`, or those of which an earlier model was unsure."""
    detections = image.findings.detections
    of_step = [i for i, found in enumerate(detections) if found.step == step.on]
    if step.unsure_of is None:
        return of_step
    chosen = [i for i in of_step if cascade.unsure(cascade.crop_scores(detections[i], step.unsure_of), step.unsure)]
    for index in chosen:
        cascade.forget(detections[index], step.unsure_of)
    _tell_cascade(image, step, len(chosen), len(of_step))
    return chosen


def _tell_cascade(image: _Image, step: PlannedStep, escalated: int, asked: int) -> None:
    image.findings.said[step.name] = {"escalated": escalated, "of": asked}
    pipeline = image.ready.plan.pipeline
    CASCADE.labels(pipeline=pipeline, step=step.name, outcome="escalated").inc(escalated)
    CASCADE.labels(pipeline=pipeline, step=step.name, outcome="sure").inc(asked - escalated)


def _read_whole(
    step: PlannedStep, outputs: Mapping[str, Tensor], placement: Placement, findings: Findings, finite: bool
) -> None:
    if step.contract.gives_boxes:
        found = decoders.detections(outputs, step.contract, placement, finite=finite)
        findings.detections += _recorded(found, step)
    if step.contract.gives_labels:
        findings.classifications += _labelled(outputs, step, placement, 0)
    if step.contract.task == "anomaly":
        share = maps.anomaly(outputs, step.contract, placement).share
        findings.said[step.name] = {"share": _rounded(share, 5)}


def _read_crops(step: PlannedStep, outputs: Mapping[str, Tensor], crops: Sequence[_Crop], findings: Findings) -> None:
    """A classifier's labels go to the box they describe; a detector's boxes stand beside it."""
    for row, cut in enumerate(crops):
        if step.contract.gives_boxes:
            found = decoders.detections(outputs, step.contract, cut.placement, row)
            findings.detections += _recorded(found, step)
        if step.contract.gives_labels:
            labels = [
                {"label": label.label, "score": label.score, "step": label.step}
                for label in _labelled(outputs, step, cut.placement, row)
            ]
            attributes = findings.detections[cut.detection].attributes
            attributes["classifications"] = [*attributes.get("classifications", []), *labels]


def _cut(
    step: PlannedStep,
    frame: Pixels,
    region: Region,
    detections: Sequence[Detection],
    chosen: Sequence[int],
    room: NDArray[Any],
) -> list[_Crop]:
    """Crops of the chosen detections, placed one after the other into `room`; what lies outside is left out."""
    crops: list[_Crop] = []
    for index in chosen:
        found = crop(frame, detections[index].box, step.margin, region)
        if found is not None:
            pixels, part = found
            placement = place(pixels, step.contract.input, room[len(crops)], region=part)
            crops.append(_Crop(index, placement))
    return crops


def _recorded(found: Detections, step: PlannedStep) -> list[Detection]:
    masks = found.masks or [None] * len(found)
    return [
        Detection(
            found.labels[class_id],
            _rounded(score, 4),
            (_rounded(x1, 2), _rounded(y1, 2), _rounded(x2, 2), _rounded(y2, 2)),
            step.name,
            {} if mask is None else {"mask": {"polygons": mask.polygons, "area": mask.area}},
        )
        for (x1, y1, x2, y2), score, class_id, mask in zip(
            found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), masks, strict=True
        )
        if score >= step.min_score
    ]


def _labelled(outputs: Mapping[str, Tensor], step: PlannedStep, placement: Placement, row: int) -> list[Classification]:
    return [
        Classification(label, _rounded(score, 4), step.name if head is None else f"{step.name}.{head}")
        for label, score, head in decoders.classifications(outputs, step.contract, row, placement=placement)
        if score >= step.min_score
    ]


def _rounded(value: float, digits: int) -> float:
    return round(float(value), digits)
