import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eyeline.core.errors import InferenceUnavailable
from eyeline.core.settings import PipelineSettings, StepSettings
from eyeline.core.types import ModelRef
from eyeline.inference.base import ServedModel
from eyeline.inference.shm import FOLDER
from eyeline.pipeline.contract import InputContract, ModelContract, OutputContract
from eyeline.pipeline.plan import Plan
from eyeline.worker.memory import CROPS, KEEP, Layout, Memory


def served(name: str, task: str, size: int, outputs: dict[str, tuple[int, ...]], max_batch: int = 16) -> ServedModel:
    contract = ModelContract(
        name=name,
        version="1",
        task="detection" if task == "detection" else "classification",
        labels=("a", "b"),
        input=InputContract(name="images", size=(size, size), max_batch=max_batch),
        output=OutputContract(decoder="yolov8" if task == "detection" else "softmax"),
    )
    ref = ModelRef(name=name, version="1+0", runtime="onnxruntime", precision="f32")
    return ServedModel(contract=contract, ref=ref, fingerprint=name, outputs=outputs)


DETECTOR = served("find", "detection", 416, {"boxes": (6, 100)})
CLASSIFIER = served("name", "classification", 32, {"scores": (2,), "odd": (-1,)})
MODELS = {"find": DETECTOR, "name": CLASSIFIER}


def plan(*steps: StepSettings, name: str = "p") -> tuple[Plan, dict[str, ServedModel]]:
    return Plan.of(
        PipelineSettings(name=name, steps=list(steps)), {name: model.contract for name, model in MODELS.items()}
    ), MODELS


FIND = StepSettings(name="find", model="find")
ON_CROPS = StepSettings(name="name", model="name", on="find")


def test_areas_of_one_pipeline_never_overlap() -> None:
    layout = Layout.of([plan(FIND, ON_CROPS)])
    areas = [area for step in layout.steps.values() for area in (step.input, *step.outputs.values())]
    spans = sorted((area.offset, area.end) for area in areas)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] <= layout.slot_bytes


def test_crops_get_a_batch_of_room_and_outputs_of_unknown_size_none() -> None:
    layout = Layout.of([plan(FIND, ON_CROPS)])
    assert layout.steps["p", "", "find"].input.rows == 1
    assert layout.steps["p", "", "name"].input.rows == CROPS
    assert set(layout.steps["p", "", "name"].outputs) == {"scores"}


def test_pipelines_share_a_slot_and_only_crops_need_frames() -> None:
    alone = Layout.of([plan(FIND)])
    both = Layout.of([plan(FIND), plan(FIND, name="q")])
    assert both.slot_bytes == alone.slot_bytes
    assert not alone.frames
    assert Layout.of([plan(FIND, ON_CROPS)]).frames


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(3, Layout.of([plan(FIND, ON_CROPS)]), 8_000_000)
    yield made
    made.close()


async def test_slots_never_share_a_byte(memory: Memory) -> None:
    slots = [await memory.take() for _ in range(3)]
    area = memory.layout.steps["p", "", "find"].input
    for number, slot in enumerate(slots):
        slot.array(area)[:] = number + 1
    for number, slot in enumerate(slots):
        assert (slot.array(area) == number + 1).all()
    assert sorted(slot.index for slot in slots) == [0, 1, 2]


async def test_a_full_memory_makes_the_next_one_wait_for_a_free_slot(memory: Memory) -> None:
    slots = [await memory.take() for _ in range(3)]
    waiting = asyncio.create_task(memory.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    memory.give(slots[1])
    assert (await waiting).index == slots[1].index


async def test_a_condemned_slot_is_not_given_out_again(memory: Memory) -> None:
    slot = await memory.take()
    slot.condemned = True
    memory.give(slot)
    others = [await memory.take(), await memory.take()]
    assert slot.index not in {other.index for other in others}
    assert memory.worn


async def test_when_all_are_condemned_those_who_wait_are_told(memory: Memory) -> None:
    slots = [await memory.take() for _ in range(3)]
    waiting = [asyncio.create_task(memory.take()) for _ in range(2)]
    await asyncio.sleep(0)
    for slot in slots:
        slot.condemned = True
        memory.give(slot)
    for task in waiting:
        with pytest.raises(InferenceUnavailable):
            await task


async def test_what_a_large_image_took_is_given_back_to_the_kernel(memory: Memory) -> None:
    slot = await memory.take()
    offset, size = slot.put_image(b"\xff" * (KEEP + 1))
    assert memory.scratch.map[offset + size - 1] == 255
    memory.give(slot)
    assert memory.scratch.map[offset + size - 1] == 0


async def test_a_tensor_is_offered_by_name_only_once_the_server_shares_the_segment(memory: Memory) -> None:
    slot = await memory.take()
    area = memory.layout.steps["p", "", "name"].input
    assert slot.shared(area, 2) is None
    assert memory.offered is not None
    memory.segment_name = memory.offered.name
    shared = slot.shared(area, 2)
    assert shared is not None
    assert (shared.segment, shared.shape) == (memory.offered.name, (2, 32, 32, 3))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs Linux's /dev/shm")
async def test_closing_leaves_nothing_behind(memory: Memory) -> None:
    assert memory.offered is not None
    path = Path(FOLDER, memory.offered.name)
    assert path.exists()
    view = (await memory.take()).array(memory.layout.steps["p", "", "find"].input)
    memory.close()
    memory.close()
    assert not path.exists()
    assert np.isfinite(view).all()  # who still holds an array may read it
