"""What each pipeline runs now: plans joined with what the inference server serves, asked again every second."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.core.dedupe import plan_key, written_plan
from eyeline.core.errors import CacheError, ConfigError, InferenceUnavailable
from eyeline.core.settings import PipelineSettings
from eyeline.core.telemetry import logger
from eyeline.core.types import Job, ModelRef
from eyeline.inference.base import Canary, Predictor, ServedModel
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
        self._tried: dict[tuple[str, str], ReadyPlan] = {}  # by pipeline and site, where a version is tried out
        self._why: dict[str, str] = {}
        self.layout = Layout()

    @property
    def any_ready(self) -> bool:
        """Whether there is anything to receive jobs for."""
        return bool(self._ready)

    def get(self, pipeline: str, whose: str = "") -> ReadyPlan:
        """The plan to run for a picture of this site, or with this version of a model that is tried out (name@version).

        Raises NotServed for a pipeline that is not defined here or has a model that is not ready.
        """
        found = self._tried.get((pipeline, whose)) or (None if "@" in whose else self._ready.get(pipeline))
        if found is not None:
            return found
        if "@" in whose and pipeline in self._ready:
            raise NotServed(f"{whose} is not tried out in the pipeline {pipeline!r} now")
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
        served, missing = await self._ask(self._models)
        canaries = {name: model.canary for name, model in served.items() if model.canary is not None}
        # one that does not answer is not tried out now: the version that serves answers for its sites, too
        others, _ = await self._ask([canary.address(name) for name, canary in canaries.items()])
        ready = {name: plan for name in self._pipelines if (plan := self._plan(name, served, missing)) is not None}
        tried = _tried(ready, {name: one for name, one in canaries.items() if one.address(name) in others}, others)
        if _fingerprints(ready, tried) != _fingerprints(self._ready, self._tried):
            at = [f"{pipeline}: {plan.plan.variant} for {whose}" for (pipeline, whose), plan in tried.items()]
            log.info("pipelines ready", ready=sorted(ready), not_ready=self._why, tried_out=at)
            layout = Layout.of((plan.plan, plan.served) for plan in (*ready.values(), *tried.values()))
            self.layout = self.layout if layout == self.layout else layout  # a swap to the same shapes disturbs nobody
        self._ready, self._tried = ready, tried

    async def _ask(self, names: Sequence[str]) -> tuple[dict[str, ServedModel], dict[str, str]]:
        """What serves under these names, and why the others do not."""
        answers = await asyncio.gather(*(self._predictor.model(name) for name in names), return_exceptions=True)
        served, missing = {}, {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, ServedModel):
                served[name] = answer
            elif isinstance(answer, InferenceUnavailable | ConfigError):
                missing[name] = str(answer)
            else:
                raise answer
        return served, missing

    async def publish(self) -> None:
        """Tell the gateway which fingerprint each pipeline answers with now, and at which sites with another one."""
        try:
            await self._definitions.tell()
            for name, ready in self._ready.items():
                mine = {whose: plan for (pipeline, whose), plan in self._tried.items() if pipeline == name}
                tried = {site: plan.fingerprint for site, plan in mine.items() if "@" not in site}
                await self._cache.set(plan_key(name), written_plan(ready.fingerprint, tried), ttl=PUBLISHED)
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


def _tried(
    ready: Mapping[str, ReadyPlan], canaries: Mapping[str, Canary], others: Mapping[str, ServedModel]
) -> dict[tuple[str, str], ReadyPlan]:
    """The plans with another version of a model, by pipeline and either the site at which it is tried out or its address."""
    found: dict[tuple[str, str], ReadyPlan] = {}
    for pipeline, plan in ready.items():
        mine = {name: one for name, one in canaries.items() if name in {step.model for step in plan.plan.models}}
        at = {
            site: [name for name, one in mine.items() if site in one.sites]
            for one in mine.values()
            for site in one.sites
        }
        at |= {one.address(name): [name] for name, one in mine.items()}
        for whose, names in sorted(at.items()):
            addresses = {name: mine[name].address(name) for name in names}
            try:
                found[pipeline, whose] = _variant(plan, {name: (to, others[to]) for name, to in addresses.items()})
            except ConfigError as error:
                log.warning("a version cannot be tried out", pipeline=pipeline, at=whose, reason=str(error))
    return found


def _variant(ready: ReadyPlan, others: Mapping[str, tuple[str, ServedModel]]) -> ReadyPlan:
    """The plan with other versions of these models. Raises ConfigError."""
    plan = ready.plan.with_models({name: (address, model.contract) for name, (address, model) in others.items()})
    served = {**ready.served, **dict(others.values())}
    names = list(dict.fromkeys(step.model for step in plan.models))
    fingerprint = plan.fingerprint({name: served[name].fingerprint for name in names})
    return ReadyPlan(plan, served, tuple(served[name].ref for name in names), fingerprint)


def _fingerprints(ready: Mapping[str, ReadyPlan], tried: Mapping[tuple[str, str], ReadyPlan]) -> list[dict[Any, str]]:
    return [{key: plan.fingerprint for key, plan in plans.items()} for plans in (ready, tried)]
