"""Odd and broken images through the confined decoder children: the answers of the pure decoder, and no child dies."""

from collections.abc import AsyncIterator

import pytest

from eyeline.core.errors import InputError
from eyeline.pipeline.contract import InputContract
from eyeline.pipeline.decode import decode
from eyeline.worker.decoders import DecoderPool
from eyeline.worker.memory import Layout, Memory
from eyeline.worker.orders import Order, Room
from tests.unit.pipeline.odd_images import Odd, all_odd

CONTRACT = InputContract(name="images", size=(32, 32), fit="stretch")
Answer = tuple[int, int] | str


@pytest.fixture
async def memory() -> Memory:
    return Memory(2, Layout(slot_bytes=8192, frames=False), 25_000_000)


@pytest.fixture
async def pool(memory: Memory) -> AsyncIterator[DecoderPool]:
    children = DecoderPool(1, wall_seconds=10.0)
    await children.open(memory)
    yield children
    await children.close()


async def through_a_child(odd: Odd, pool: DecoderPool, memory: Memory) -> Answer:
    slot = await memory.take()
    try:
        room = Room(CONTRACT, slot.index * memory.layout.slot_bytes)
        order = Order(slot.put_image(odd.data), (room,), None, "apply", 50_000_000, 25_000_000)
        prepared = await pool.decode(order)
    except InputError as error:
        return error.code
    else:
        return prepared.width, prepared.height
    finally:
        memory.give(slot)


def here(odd: Odd) -> Answer:
    try:
        decoded = decode(odd.data)
    except InputError as error:
        return error.code
    return decoded.width, decoded.height


@pytest.mark.filterwarnings("ignore:::PIL")
async def test_a_child_answers_like_the_decoder_itself_for_every_odd_image(pool: DecoderPool, memory: Memory) -> None:
    images = all_odd()
    answers = {odd.name: await through_a_child(odd, pool, memory) for odd in images}
    assert answers == {odd.name: here(odd) for odd in images}
    assert len(answers) >= 400
