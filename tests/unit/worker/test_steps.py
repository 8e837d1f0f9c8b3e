"""Steps on a prepared image, with a predictor that answers from a table: what is asked, and what becomes of the answers."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from eyeline.core.errors import BadImage, InferenceError, InferenceUnavailable
from eyeline.core.settings import PipelineSettings, StepSettings
from eyeline.core.types import Code, ModelRef
from eyeline.inference.base import ModelChanged, Rescued, ServedModel, SharedTensor, Tensor
from eyeline.pipeline.contract import Head, InputContract, ModelContract, OutputContract
from eyeline.pipeline.geometry import Region, place
from eyeline.pipeline.plan import Plan
from eyeline.pipeline.quality import Quality
from eyeline.worker.memory import Layout, Memory, Slot
from eyeline.worker.orders import Prepared
from eyeline.worker.plans import ReadyPlan
from eyeline.worker.steps import Findings, StepRunner

WIDTH, HEIGHT, SIDE = 400, 200, 40


def served(contract: ModelContract, outputs: dict[str, tuple[int, ...]]) -> ServedModel:
    ref = ModelRef(name=contract.name, version="1+0", runtime="onnxruntime", precision="f32")
    return ServedModel(contract=contract, ref=ref, fingerprint=contract.name, outputs=outputs)


STRETCHED = InputContract(name="images", size=(SIDE, SIDE), fit="stretch", max_batch=2)
FINDER = served(
    ModelContract(
        name="finder",
        version="1",
        task="detection",
        labels=("box", "tape"),
        input=STRETCHED,
        output=OutputContract(decoder="yolov8", score_threshold=0.2, iou_threshold=0.5),
    ),
    {"boxes": (6, 4)},
)
NAMER = served(
    ModelContract(
        name="namer",
        version="1",
        task="classification",
        labels=(),
        input=STRETCHED,
        output=OutputContract(
            decoder="softmax",
            heads=(
                Head(name="state", output="state", labels=("good", "bad")),
                Head(name="side", output="side", labels=("up", "down")),
            ),
        ),
    ),
    {"state": (2,), "side": (2,)},
)
MODELS = {"finder": FINDER, "namer": NAMER, "bigger": FINDER, "second": NAMER}


def yolov8(*boxes: tuple[float, float, float, float, float, float]) -> Tensor:
    """[1, 6, 4] from up to four (cx, cy, w, h, score of box, score of tape)."""
    padded = [*boxes, *[(0.0,) * 6] * (4 - len(boxes))]
    return np.array(padded, np.float32).T[None]


@dataclass
class Table:
    """A predictor that answers what the test says and remembers what it was shown."""

    answers: dict[str, Callable[[Tensor], dict[str, Tensor]]]
    seen: list[tuple[str, Tensor]] = field(default_factory=list)
    slot: Slot | None = None
    memory: Memory | None = None

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
        given = inputs["images"]
        if isinstance(given, SharedTensor):
            assert self.memory is not None
            given = self.memory.tensors.view(given.offset, given.shape, given.dtype)
        self.seen.append((model, given.copy()))
        return self.answers[model](given)

    async def model(self, name: str) -> ServedModel:
        return MODELS[name]

    async def register(self, segment: str, size: int) -> bool:
        return True

    async def unregister(self, segment: str) -> None: ...

    async def ready(self) -> Sequence[str]:
        return ()

    async def close(self) -> None: ...


@dataclass
class Desk:
    """A slot with a picture whose right half is bright, and steps to run on it."""

    memory: Memory
    slot: Slot
    ready: ReadyPlan
    table: Table

    async def run(self, codes: tuple[Code, ...] = (), quality: Quality | None = None) -> Findings:
        picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
        picture[:, WIDTH // 2 :] = 240
        placements = []
        for step in self.ready.plan.whole:
            out = self.slot.array(self.memory.layout.steps["p", "", step.name].input)
            placements.append(place(picture, step.contract.input, out, region=Region.whole(WIDTH, HEIGHT)))
        frame = None
        if self.ready.plan.on_crops:
            frame = (HEIGHT, WIDTH)
            self.slot.frame(frame)[:] = picture
        prepared = Prepared(WIDTH, HEIGHT, "png", False, tuple(placements), frame, 0.0, 0.0, codes, 0.0, quality)
        with ThreadPoolExecutor(1) as threads:
            runner = StepRunner(self.table, threads)
            return await runner.run(self.ready, self.memory.layout, prepared, self.slot, "job")


Make = Callable[..., Desk]


@pytest.fixture
async def desk() -> AsyncIterator[Make]:
    made: list[Memory] = []
    slots: list[Slot] = []

    def make(steps: Sequence[StepSettings], **answers: Callable[[Tensor], dict[str, Tensor]]) -> Desk:
        plan = Plan.of(PipelineSettings(name="p", steps=list(steps)), {n: m.contract for n, m in MODELS.items()})
        memory = Memory(1, Layout.of([(plan, MODELS)]), 4096)
        slot = Slot(memory, 0)
        made.append(memory)
        slots.append(slot)
        ready = ReadyPlan(plan, MODELS, (FINDER.ref,), "f")
        return Desk(memory, slot, ready, Table(dict(answers), memory=memory))

    yield make
    for memory in made:
        memory.close()


FIND = StepSettings(name="find", model="finder")
LEFT = (10.0, 20.0, 16.0, 20.0, 0.9, 0.0)  # in the tensor's 40 × 40 pixels
RIGHT = (30.0, 20.0, 16.0, 20.0, 0.0, 0.6)


def brightness(given: Tensor) -> dict[str, Tensor]:
    """state: bad as the crop is bright; side: always up."""
    level = (given.reshape(len(given), -1).mean(axis=1) / 255).astype(np.float32)
    return {
        "state": np.stack([1 - level, level], axis=1),
        "side": np.tile(np.array([[0.8, 0.2]], np.float32), (len(given), 1)),
    }


async def test_boxes_are_in_pixels_of_the_original_with_label_and_step(desk: Make) -> None:
    found = await desk([FIND], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}).run()
    assert [(each.label, each.step, each.score) for each in found.detections] == [
        ("box", "find", 0.9),
        ("tape", "find", 0.6),
    ]
    assert found.detections[0].box == (20.0, 50.0, 180.0, 150.0)
    assert set(found.timings) == {"infer", "postprocess"}


async def test_nan_of_a_server_that_does_not_look_for_it_is_refused(desk: Make) -> None:
    bad = yolov8(LEFT)
    bad[0, 0, 3] = np.nan
    with pytest.raises(InferenceError, match="NaN"):
        await desk([FIND], finder=lambda _: {"boxes": bad}).run()


async def test_a_server_that_looks_for_nan_itself_gives_the_same_boxes(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await desk([FIND], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}).run()
    monkeypatch.setitem(MODELS, "finder", replace(FINDER, finite=True))
    after = await desk([FIND], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}).run()
    assert after.detections == before.detections


async def test_min_score_of_a_step_leaves_the_weaker_out(desk: Make) -> None:
    strict = FIND.model_copy(update={"min_score": 0.7})
    found = await desk([strict], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}).run()
    assert [each.label for each in found.detections] == ["box"]


async def test_several_heads_are_told_apart_by_name(desk: Make) -> None:
    found = await desk([StepSettings(name="name", model="namer")], namer=brightness).run()
    assert [(each.label, each.step) for each in found.classifications] == [("bad", "name.state"), ("up", "name.side")]


NAME = StepSettings(name="name", model="namer", on="find", margin=0.0)


async def test_crops_are_batched_and_each_box_gets_its_own_labels(desk: Make) -> None:
    bench = desk([FIND, NAME], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}, namer=brightness)
    found = await bench.run()
    shown = [(model, len(given)) for model, given in bench.table.seen]
    assert shown == [("finder", 1), ("namer", 2)]
    crops = bench.table.seen[1][1]
    assert [round(float(crop.mean())) for crop in crops] == [20, 240]
    labels = [
        {entry["step"]: entry["label"] for entry in each.attributes["classifications"]} for each in found.detections
    ]
    assert labels == [{"name.state": "good", "name.side": "up"}, {"name.state": "bad", "name.side": "up"}]


async def test_more_crops_than_a_batch_holds_go_in_several(desk: Make) -> None:
    third = (30.0, 20.0, 4.0, 4.0, 0.5, 0.0)
    bench = desk([FIND, NAME], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT, third)}, namer=brightness)
    found = await bench.run()
    assert [len(given) for model, given in bench.table.seen if model == "namer"] == [2, 1]
    assert all(each.attributes for each in found.detections)


async def test_a_detector_on_crops_maps_its_boxes_to_the_original(desk: Make) -> None:
    again = StepSettings(name="again", model="finder", on="find", margin=0.0)
    answers = iter([yolov8(LEFT), yolov8((20.0, 20.0, 20.0, 20.0, 0.0, 0.8))])
    found = await desk([FIND, again], finder=lambda _: {"boxes": next(answers)}).run()
    outer, inner = found.detections
    assert (inner.step, inner.label) == ("again", "tape")
    assert outer.box == (20.0, 50.0, 180.0, 150.0)
    assert inner.box == pytest.approx((60, 75, 140, 125), abs=0.5)


async def test_without_boxes_no_crops_are_asked_for(desk: Make) -> None:
    bench = desk([FIND, NAME], finder=lambda _: {"boxes": yolov8()}, namer=brightness)
    assert not (await bench.run()).detections
    assert [model for model, _ in bench.table.seen] == ["finder"]


def refuse(error: Exception) -> Callable[[Tensor], dict[str, Tensor]]:
    def answer(_: Tensor) -> dict[str, Tensor]:
        raise error

    return answer


async def test_a_request_without_an_answer_condemns_its_slot_a_refusal_does_not(desk: Make) -> None:
    for error, condemned in (
        (InferenceError("NaN"), False),
        (ModelChanged("2 answered, not 1"), False),
        (InferenceUnavailable("late"), True),
    ):
        bench = desk([FIND], finder=refuse(error))
        assert bench.memory.offered is not None
        bench.memory.segment_name = bench.memory.offered.name
        with pytest.raises(type(error)):
            await bench.run()
        assert bench.slot.condemned is condemned


async def test_a_slot_that_a_first_replica_may_still_write_to_is_condemned_though_a_second_answered(desk: Make) -> None:
    for kind, condemned in ((dict, False), (Rescued, True)):
        bench = desk([FIND], finder=lambda _, kind=kind: kind({"boxes": yolov8(LEFT)}))
        assert bench.memory.offered is not None
        bench.memory.segment_name = bench.memory.offered.name
        assert len((await bench.run()).detections) == 1
        assert bench.slot.condemned is condemned


async def test_tensors_that_are_sent_need_no_condemning(desk: Make) -> None:
    bench = desk([FIND], finder=refuse(InferenceUnavailable("late")))
    with pytest.raises(InferenceUnavailable):
        await bench.run()
    assert not bench.slot.condemned


async def test_an_answer_of_nan_is_the_images_fault(desk: Make) -> None:
    with pytest.raises(InferenceError):
        await desk([FIND], finder=lambda _: {"boxes": yolov8(LEFT) * np.float32(np.nan)}).run()


CODES = StepSettings(name="read", kind="barcodes", on="find")


async def test_codes_are_listed_and_tied_to_the_box_they_lie_in(desk: Make) -> None:
    codes = (Code("L", "QRCode", (90.0, 90.0, 110.0, 110.0)), Code("?", "QRCode", (0.0, 0.0, 4.0, 4.0)))
    found = await desk([FIND, CODES], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}).run(codes)
    assert [code.text for code in found.codes] == ["L", "?"]
    assert [each.attributes.get("codes") for each in found.detections] == [[{"text": "L", "format": "QRCode"}], None]


async def test_boxes_outside_a_region_are_shown_to_no_later_model(desk: Make) -> None:
    left = StepSettings(name="left", kind="region", inside=[[(0, 0), (0.5, 0), (0.5, 1), (0, 1)]])
    bench = desk([FIND, left, NAME], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}, namer=brightness)
    found = await bench.run()
    assert [each.label for each in found.detections] == ["box"]
    assert found.said == {"left": {"dropped": 1}}
    assert [len(given) for model, given in bench.table.seen if model == "namer"] == [1]


async def test_a_zone_stands_beside_what_later_models_say_and_rules_can_ask_for_it(desk: Make) -> None:
    lanes = StepSettings(name="lanes", kind="region", zones={"lane-1": [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]})
    bench = desk([FIND, lanes, NAME], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}, namer=brightness)
    found = await bench.run()
    assert [each.attributes.get("zone") for each in found.detections] == ["lane-1", None]
    assert ["classifications" in each.attributes for each in found.detections] == [True, True]
    assert found.said == {"lanes": {"dropped": 0}}


async def test_a_quality_step_rejects_before_any_model_is_asked(desk: Make) -> None:
    gate = StepSettings(name="gate", kind="quality", dark=0.2, reject=True)
    bench = desk([gate, FIND], finder=lambda _: {"boxes": yolov8(LEFT)})
    with pytest.raises(BadImage, match="dark"):
        await bench.run(quality=Quality(0.1, 0.0, 10.0))
    assert bench.table.seen == []
    assert (await bench.run(quality=Quality(0.5, 0.0, 10.0))).said["gate"]["brightness"] == 0.5


@pytest.mark.parametrize(("band", "asked"), [((0.5, 0.7), True), ((0.1, 0.5), False)])
async def test_a_second_detector_answers_where_the_first_is_unsure(
    desk: Make, band: tuple[float, float], asked: bool
) -> None:
    again = StepSettings(name="again", model="bigger", unsure_of="find", unsure=band)
    sure = (10.0, 20.0, 16.0, 20.0, 0.99, 0.0)
    bench = desk(
        [FIND, again], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}, bigger=lambda _: {"boxes": yolov8(sure)}
    )
    found = await bench.run()
    assert [each.step for each in found.detections] == (["again"] if asked else ["find", "find"])
    assert found.said == {"again": {"escalated": int(asked), "of": 1}}


async def test_only_the_crops_of_which_the_first_is_unsure_are_shown_to_the_second(desk: Make) -> None:
    again = StepSettings(name="again", model="second", on="find", margin=0.0, unsure_of="name", unsure=(0.5, 0.93))
    bench = desk(
        [FIND, NAME, again], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}, namer=brightness, second=brightness
    )  # state: good 0.92 on the left, bad 0.94 on the right; side: up 0.8 on both
    found = await bench.run()
    assert found.said == {"again": {"escalated": 2, "of": 2}}
    steps = [{entry["step"] for entry in each.attributes["classifications"]} for each in found.detections]
    assert steps == [{"again.state", "again.side"}] * 2
    narrow = again.model_copy(update={"unsure": (0.9, 0.93)})
    bench = desk(
        [FIND, NAME, narrow], finder=lambda _: {"boxes": yolov8(LEFT, RIGHT)}, namer=brightness, second=brightness
    )
    found = await bench.run()
    assert found.said == {"again": {"escalated": 1, "of": 2}}
    steps = [{entry["step"] for entry in each.attributes["classifications"]} for each in found.detections]
    assert steps == [{"again.state", "again.side"}, {"name.state", "name.side"}]
