"""What a pipeline does with an image: its steps with their models' contracts, the size to decode to, and its fingerprint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from eyeline.core.errors import ConfigError
from eyeline.core.settings import PipelineSettings, StepSettings
from eyeline.pipeline.barcodes import CodesStep, check_formats
from eyeline.pipeline.contract import ModelContract
from eyeline.pipeline.geometry import Box
from eyeline.pipeline.quality import QualityStep
from eyeline.pipeline.region import RegionStep
from eyeline.pipeline.target import decode_target

#: Raised whenever decoding or placing would give other numbers for the same bytes: it is part of every fingerprint.
PREPROCESSING = 1


@dataclass(frozen=True)
class PlannedStep:
    """A model at work: on the whole image (`on` is None), of which `roi` is a share, or on the crops of the earlier step `on`.

    unsure_of: ask only where that step's score lies within `unsure`; its answer is then replaced.
    """

    name: str
    model: str
    on: str | None
    min_score: float
    margin: float
    contract: ModelContract
    roi: Box | None = None
    unsure_of: str | None = None
    unsure: tuple[float, float] = (0.0, 1.0)


Step = PlannedStep | CodesStep | QualityStep | RegionStep


@dataclass(frozen=True)
class Plan:
    """The steps of a pipeline in order. Tracking is none of them: it is done behind the results, over many frames."""

    pipeline: str
    steps: tuple[Step, ...]
    digest: str
    variant: str = ""  # which models other than those that serve everywhere answer

    @classmethod
    def of(cls, pipeline: PipelineSettings, contracts: Mapping[str, ModelContract]) -> "Plan":
        """The plan of `pipeline` with the contracts that its models serve now, by model name.

        Raises ConfigError for a model without contract, a step on the crops of one that finds none, a kind of barcode that
        there is not, or mixed EXIF policies.
        """
        steps = tuple(_step(step, contracts) for step in pipeline.steps if step.kind != "track")
        plan = cls(pipeline.name, steps, pipeline.digest)
        plan._check()
        return plan

    def with_models(self, others: Mapping[str, tuple[str, ModelContract]]) -> "Plan":
        """The same steps, some models of which are asked for under another name: model → (that name, its contract).

        Raises ConfigError where these do not go together.
        """
        steps = tuple(
            replace(step, model=others[step.model][0], contract=others[step.model][1])
            if isinstance(step, PlannedStep) and step.model in others
            else step
            for step in self.steps
        )
        plan = replace(self, steps=steps, variant=",".join(sorted(name for name, _ in others.values())))
        plan._check()  # noqa: SLF001 - of this class
        return plan

    @property
    def models(self) -> tuple[PlannedStep, ...]:
        """The steps that are models."""
        return tuple(step for step in self.steps if isinstance(step, PlannedStep))

    @property
    def whole(self) -> tuple[PlannedStep, ...]:
        """The models on the whole image."""
        return tuple(step for step in self.models if step.on is None)

    @property
    def on_crops(self) -> tuple[PlannedStep, ...]:
        """The models on crops of earlier steps."""
        return tuple(step for step in self.models if step.on is not None)

    @property
    def codes(self) -> CodesStep | None:
        """The step that reads barcodes, where there is one."""
        return next((step for step in self.steps if isinstance(step, CodesStep)), None)

    @property
    def quality(self) -> QualityStep | None:
        """The step that judges the picture, where there is one."""
        return next((step for step in self.steps if isinstance(step, QualityStep)), None)

    @property
    def exif(self) -> Literal["apply", "ignore"]:
        """What to decode with; an image is decoded once, so all models of a pipeline agree."""
        return self.models[0].contract.input.exif if self.models else "apply"

    def decode_target(self, width: int, height: int) -> tuple[int, int] | None:
        """`at_least` for decoding an upright original of that size: (height, width), or None for all of it.

        The largest that any step needs; all of it for barcodes, and, up to the area of 3840 × 2160, where crops are cut.
        """
        return decode_target(
            [(step.contract.input, step.roi) for step in self.whole],
            width,
            height,
            crops=bool(self.on_crops),
            every_pixel=self.codes is not None,
            measured=self.quality is not None,
        )

    def fingerprint(self, served: Mapping[str, str]) -> str:
        """Hex digest of everything that could change an answer: the pipeline and each model's own fingerprint, by name."""
        parts = [str(PREPROCESSING), self.pipeline, self.digest]
        parts += [f"{model}={served[model]}" for model in sorted({step.model for step in self.models})]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _check(self) -> None:
        policies = {step.contract.input.exif for step in self.models}
        if len(policies) > 1:
            raise ConfigError(
                f"pipeline {self.pipeline!r}: its models disagree on EXIF ({sorted(policies)}); "
                "an image is decoded once: put them into pipelines of their own"
            )
        tasks = {step.name: step.contract.task for step in self.models}
        for step in self.on_crops:
            if tasks.get(step.on or "") != "detection":
                raise ConfigError(
                    f"pipeline {self.pipeline!r}: step {step.name!r} works on the crops of {step.on!r}, whose model "
                    "finds no boxes; name a step with a detector"
                )
        for step in self.models:
            if step.unsure_of is not None and tasks[step.unsure_of] != step.contract.task:
                raise ConfigError(
                    f"pipeline {self.pipeline!r}: step {step.name!r} ({step.contract.task}) cannot answer for "
                    f"{step.unsure_of!r} ({tasks[step.unsure_of]}); a second opinion is one about the same"
                )


def _step(step: StepSettings, contracts: Mapping[str, ModelContract]) -> Step:
    match step.kind:
        case "barcodes":
            check_formats(step.formats)
            return CodesStep(step.name, step.on, tuple(step.formats))
        case "quality":
            return QualityStep(step.name, step.dark, step.over_exposed, step.blurred, step.reject)
        case "region":
            inside, outside = ([tuple(polygon) for polygon in each] for each in (step.inside, step.outside))
            zones = tuple((name, tuple(polygon)) for name, polygon in step.zones.items())
            return RegionStep(step.name, step.on, tuple(inside), tuple(outside), zones)
    return PlannedStep(
        step.name,
        step.model,
        step.on,
        step.min_score,
        step.margin,
        _contract(contracts, step.model),
        step.roi,
        step.unsure_of,
        step.unsure,
    )


def _contract(contracts: Mapping[str, ModelContract], model: str) -> ModelContract:
    if model not in contracts:
        raise ConfigError(f"no model is called {model!r}; there are {sorted(contracts)}: eyeline models import")
    return contracts[model]
