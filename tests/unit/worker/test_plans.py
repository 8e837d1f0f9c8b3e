from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.dedupe import plan_key, read_plan
from eyeline.core.errors import InferenceUnavailable
from eyeline.core.ids import uuid7
from eyeline.core.settings import PipelineSettings, StepSettings
from eyeline.core.types import BlobRef, Job, ModelRef
from eyeline.inference.base import Canary, ServedModel, SharedTensor, Tensor
from eyeline.pipeline.contract import InputContract, ModelContract, OutputContract
from eyeline.stores.cache import open_cache
from eyeline.stores.cache.definitions import Definitions
from eyeline.worker.outcome import NotServed
from eyeline.worker.plans import Plans


def served(name: str, version: str = "1", size: int = 32) -> ServedModel:
    contract = ModelContract(
        name=name,
        version=version,
        task="classification",
        labels=("a", "b"),
        input=InputContract(name="images", size=(size, size)),
        output=OutputContract(decoder="softmax"),
    )
    ref = ModelRef(name=name, version=version, runtime="onnxruntime", precision="f32")
    return ServedModel(contract=contract, ref=ref, fingerprint=f"{name}-{version}", outputs={"scores": (2,)})


class Shelf:
    """A predictor that only says what it serves."""

    def __init__(self, *models: ServedModel) -> None:
        self.models = {model.ref.name: model for model in models}

    def try_out(self, name: str, version: str, *sites: str, size: int = 32) -> None:
        """As a server does it: the model says which version is tried out where, and that one has an address of its own."""
        canary = Canary(version, sites)
        self.models[name] = replace(self.models[name], canary=canary)
        self.models[canary.address(name)] = served(name, version, size)

    async def model(self, name: str) -> ServedModel:
        if name not in self.models:
            raise InferenceUnavailable(f"{name} is not ready")
        return self.models[name]

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Tensor | SharedTensor],
        *,
        outputs: Mapping[str, SharedTensor] | None = None,
        timeout: float,
        request_id: str = "",
        version: str = "",
    ) -> dict[str, Tensor]:
        return {}

    async def register(self, segment: str, size: int) -> bool:
        return False

    async def unregister(self, segment: str) -> None: ...

    async def ready(self) -> Sequence[str]:
        return ()

    async def close(self) -> None: ...


PIPELINES = [
    PipelineSettings(name="one", steps=[StepSettings(name="a", model="first")]),
    PipelineSettings(name="two", steps=[StepSettings(name="a", model="first"), StepSettings(name="b", model="second")]),
]


def a_job(digest: str | None) -> Job:
    blob, now = BlobRef("north/0", 1, "0"), utcnow()
    return Job(
        id=uuid7(), site="north", pipeline="one", lane="live", blob=blob, received_at=now, captured_at=now,
        pipeline_digest=digest,
    )  # fmt: skip


def plans(shelf: Shelf) -> Plans:
    return Plans(PIPELINES, shelf, open_cache(f"memory:///{uuid7()}"))


async def test_a_pipeline_is_ready_when_all_its_models_are() -> None:
    shelf = Shelf(served("first"))
    those = plans(shelf)
    assert not those.any_ready
    await those.refresh()
    assert those.get("one").models[0].name == "first"
    with pytest.raises(NotServed, match="second is not ready"):
        those.get("two")
    shelf.models["second"] = served("second")
    await those.refresh()
    assert [ref.name for ref in those.get("two").models] == ["first", "second"]


async def test_an_unknown_pipeline_is_named_with_the_known_ones() -> None:
    those = plans(Shelf())
    with pytest.raises(NotServed, match=r"'three' is not defined here; defined: \['one', 'two'\]"):
        those.get("three")


async def test_another_version_changes_the_fingerprint_and_not_the_layout() -> None:
    shelf = Shelf(served("first"), served("second"))
    those = plans(shelf)
    await those.refresh()
    before, layout = those.get("one").fingerprint, those.layout
    shelf.models["first"] = served("first", "2")
    await those.refresh()
    assert those.get("one").fingerprint != before
    assert those.get("one").models[0].version == "2"
    assert those.layout is layout
    shelf.models["first"] = served("first", "3", size=64)
    await those.refresh()
    assert those.layout is not layout


async def test_a_model_that_goes_away_takes_its_pipelines_with_it() -> None:
    shelf = Shelf(served("first"), served("second"))
    those = plans(shelf)
    await those.refresh()
    shelf.models.clear()
    await those.refresh()
    assert not those.any_ready


async def test_a_job_for_another_definition_is_for_whoever_has_it_and_for_anyone_when_nobody_has() -> None:
    place = f"memory:///{uuid7()}"
    mine = Plans(PIPELINES, Shelf(served("first")), open_cache(place))
    newer = PipelineSettings(name="one", steps=[StepSettings(name="a", model="first", min_score=0.9)])
    await mine.check(a_job(None))
    await mine.check(a_job(PIPELINES[0].digest))
    await mine.check(a_job(newer.digest))  # nobody has it: it is done as the pipeline is defined now
    await Definitions(open_cache(place), {"one": newer.digest}).tell()
    await mine.check(a_job(PIPELINES[0].digest))
    with pytest.raises(NotServed, match=f"definition {newer.digest[:12]} of the pipeline 'one'"):
        await mine.check(a_job(newer.digest))


def test_a_setting_at_its_default_changes_no_digest() -> None:
    default = StepSettings.model_fields["margin"].default
    told = PipelineSettings(name="one", steps=[StepSettings(name="a", model="first", margin=default)])
    assert told.digest == PIPELINES[0].digest
    assert PIPELINES[1].digest != PIPELINES[0].digest


async def test_fingerprints_are_published_for_the_gateway() -> None:
    cache = open_cache(f"memory:///{uuid7()}")
    those = Plans(PIPELINES, Shelf(served("first")), cache)
    await those.refresh()
    await those.publish()
    assert await cache.get(plan_key("one")) == those.get("one").fingerprint.encode()
    assert await cache.get(plan_key("two")) is None
    await cache.close()
    await those.publish()  # a cache that is down is no reason to stop


async def test_a_version_that_is_tried_out_answers_for_its_sites_alone_and_disturbs_nobody() -> None:
    cache = open_cache(f"memory:///{uuid7()}")
    shelf = Shelf(served("first"), served("second"))
    those = Plans(PIPELINES, shelf, cache)
    await those.refresh()
    everywhere, layout = those.get("two", "south"), those.layout
    shelf.try_out("first", "2", "south", "east")
    await those.refresh()
    south, north = those.get("two", "south"), those.get("two", "north")
    assert [(ref.name, ref.version) for ref in south.models] == [("first", "2"), ("second", "1")]
    assert [step.model for step in south.plan.models] == ["first@2", "second"]  # whom to ask
    assert north.fingerprint == everywhere.fingerprint != south.fingerprint
    assert those.layout is layout, "the same shapes need no new memory"
    assert layout.areas(south.plan, south.plan.models[0]) == layout.areas(north.plan, north.plan.models[0])
    await those.publish()
    told = await cache.get(plan_key("two"))
    assert told is not None
    assert (read_plan(told, "east"), read_plan(told, "north")) == (south.fingerprint, north.fingerprint)
    shelf.try_out("first", "3", "south", size=64)  # of another shape: room for both
    await those.refresh()
    south = those.get("two", "south")
    assert those.layout is not layout
    assert those.layout.areas(south.plan, south.plan.models[0]).input.shape[:2] == (64, 64)
    assert those.layout.areas(north.plan, north.plan.models[0]).input.shape[:2] == (32, 32)


async def test_where_a_version_that_is_tried_out_does_not_answer_the_one_that_serves_does() -> None:
    shelf = Shelf(served("first"))
    shelf.try_out("first", "2", "south")
    those = plans(shelf)
    await those.refresh()
    assert those.get("one", "south").models[0].version == "2"
    assert those.get("one", "first@2").models[0].version == "2"  # for a replay, whatever the site
    del shelf.models["first@2"]
    await those.refresh()
    assert those.get("one", "south").models[0].version == "1"
    with pytest.raises(NotServed, match="first@2 is not tried out"):
        those.get("one", "first@2")
