"""What each pipeline runs now: plans joined with what the inference server serves, asked again every second."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyeline.core.dedupe import plan_key
from eyeline.core.errors import CacheError, ConfigError, InferenceUnavailable
from eyeline.core.settings import PipelineSettings
from eyeline.core.telemetry import logger
from eyeline.core.types import Job, ModelRef
from eyeline.inference.base import Predictor, ServedModel
from eyeline.pipeline.plan import Plan
from eyeline.stores.cache.base import Cache
from eyeline.stores.cache.definitions import Definitions
from eyeline.worker.memory import Layout
from eyeline.worker.outcome import NotServed

log = logger("worker")

#: Seconds for which a published fingerprint is believed when no worker confirms it.
PUBLISHED = 30.0


@dataclass(frozen=True)
class ReadyPlan:
    """A plan whose models all serve. `models` in the order of first use; `fingerprint` names all that shapes an answer."""

    plan: Plan
    served: Mapping[str, ServedModel]
    models: tuple[ModelRef, ...]
    fingerprint: str


class Plans:
    """The plans of all pipelines in the settings."""

    def __init__(self, pipelines: Sequence[PipelineSettings], predictor: Predictor, cache: Cache) -> None:
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._models = sorted({model for pipeline in pipelines for model in pipeline.models})
        self._predictor = predictor
        self._cache = cache
        self._definitions = Definitions(cache, {pipeline.name: pipeline.digest for pipeline in pipelines})
        self._ready: dict[str, ReadyPlan] = {}
        self._why: dict[str, str] = {}
        self.layout = Layout()

    @property
    def any_ready(self) -> bool:
        """Whether there is anything to receive jobs for."""
        return bool(self._ready)

    def get(self, pipeline: str) -> ReadyPlan:
        """The plan to run. Raises NotServed for a pipeline that is not defined here or has a model that is not ready."""
        found = self._ready.get(pipeline)
        if found is not None:
            return found
        if pipeline not in self._pipelines:
            raise NotServed(f"the pipeline {pipeline!r} is not defined here; defined: {sorted(self._pipelines)}")
        raise NotServed(
            f"the pipeline {pipeline!r} is not ready: {self._why.get(pipeline, 'its models are not known yet')}"
        )

    async def check(self, job: Job) -> None:
        """Raises NotServed for a job that was written for another definition of its pipeline, as long as a process lives that
        has that one: an update is under way, and the job is for the others. Raises CacheError where that cannot be known.
        """
        digest = job.pipeline_digest
        if digest is None or self._definitions.has(job.pipeline, digest):
            return
        if await self._definitions.lives(job.pipeline, digest):
            raise NotServed(
                f"the job is for the definition {digest[:12]} of the pipeline {job.pipeline!r}; this is another"
            )

    async def refresh(self) -> None:
        """Ask what serves now. Never raises: what does not answer is not ready."""
        answers = await asyncio.gather(*(self._predictor.model(name) for name in self._models), return_exceptions=True)
        served, missing = {}, {}
        for name, answer in zip(self._models, answers, strict=True):
            if isinstance(answer, ServedModel):
                served[name] = answer
            elif isinstance(answer, InferenceUnavailable | ConfigError):
                missing[name] = str(answer)
            else:
                raise answer
        ready = {name: plan for name in self._pipelines if (plan := self._plan(name, served, missing)) is not None}
        if {name: plan.fingerprint for name, plan in ready.items()} != {
            n: p.fingerprint for n, p in self._ready.items()
        }:
            log.info("pipelines ready", ready=sorted(ready), not_ready=self._why)
            layout = Layout.of((plan.plan, plan.served) for plan in ready.values())
            self.layout = self.layout if layout == self.layout else layout  # a swap to the same shapes disturbs nobody
        self._ready = ready

    async def publish(self) -> None:
        """Tell the gateway which fingerprint each pipeline answers with now."""
        try:
            await self._definitions.tell()
            for name, ready in self._ready.items():
                await self._cache.set(plan_key(name), ready.fingerprint.encode(), ttl=PUBLISHED)
        except CacheError as error:
            log.warning("cache not reachable", error=str(error))

    def _plan(self, name: str, served: Mapping[str, ServedModel], missing: Mapping[str, str]) -> ReadyPlan | None:
        pipeline = self._pipelines[name]
        models = pipeline.models
        self._why.pop(name, None)
        absent = [missing[model] for model in models if model in missing]
        if absent:
            self._why[name] = "; ".join(absent)
            return None
        try:
            plan = Plan.of(pipeline, {model: served[model].contract for model in models})
        except ConfigError as error:
            self._why[name] = str(error)
            return None
        fingerprint = plan.fingerprint({model: served[model].fingerprint for model in models})
        return ReadyPlan(plan, served, tuple(served[model].ref for model in models), fingerprint)
