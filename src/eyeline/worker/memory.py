"""The memory that a worker shares: with its decoder children all of it, with the inference server only the tensors.

One slot for each image in hand. Encoded images and decoded frames lie in anonymous `scratch` memory; what models read
and write lies in a named segment that the inference server maps. A slot whose request got no answer is condemned: the
server might still write into it, so it is used again only in a new segment.
"""

import asyncio
import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import ConfigError, InferenceUnavailable
from eyeline.core.telemetry import logger
from eyeline.inference.base import ServedModel, SharedTensor
from eyeline.inference.shm import Segment
from eyeline.pipeline.geometry import CROP_PIXELS
from eyeline.pipeline.plan import Plan, PlannedStep
from eyeline.worker.orders import Room

log = logger("worker")

#: Crops of one image that are inferred together.
CROPS = 8
#: Scratch memory beyond this much is given back to the kernel after an image that used it.
KEEP = 4_000_000
#: Room for what is remembered of a frame: enough for 12 megapixels. Memory is taken only as it is used.
SIGNATURE_BYTES = 9_003_008
_ALIGN = 4096
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Area:
    """A tensor's place within a slot; `shape` without the batch dimension, `rows` images at most."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int

    @property
    def end(self) -> int:
        """The first byte behind it, aligned."""
        count = self.rows * int(np.prod(self.shape)) * self.dtype.itemsize
        return -(-(self.offset + count) // _ALIGN) * _ALIGN


@dataclass(frozen=True)
class StepAreas:
    """Where a step's model reads and writes; an output of unknown size has no area and comes in the answer."""

    input: Area
    outputs: Mapping[str, Area]


@dataclass(frozen=True)
class Layout:
    """How a slot is divided: for each pipeline its steps' areas, from offset 0 (a slot serves one image at a time).

    A variant of a plan has areas of its own only where they differ: one with the same shapes disturbs nobody.
    """

    steps: Mapping[tuple[str, str, str], StepAreas] = field(default_factory=dict)
    slot_bytes: int = _ALIGN
    frames: bool = False

    @classmethod
    def of(cls, plans: Iterable[tuple[Plan, Mapping[str, ServedModel]]]) -> "Layout":
        """Room for every step of every plan, variants last; `plans` come with what serves under each model's name."""
        steps: dict[tuple[str, str, str], StepAreas] = {}
        size, frames = _ALIGN, False
        for plan, served in plans:
            offset = 0
            for step in plan.models:
                areas, offset = _areas(step, served[step.model], offset)
                if steps.get((plan.pipeline, "", step.name)) != areas:
                    steps[plan.pipeline, plan.variant, step.name] = areas
            size, frames = max(size, offset), frames or bool(plan.on_crops)
        return cls(steps, size, frames)

    def areas(self, plan: Plan, step: PlannedStep) -> StepAreas:
        """Where this step of a plan reads and writes."""
        own = self.steps.get((plan.pipeline, plan.variant, step.name))
        return own or self.steps[plan.pipeline, "", step.name]


def _areas(step: PlannedStep, served: ServedModel, offset: int) -> tuple[StepAreas, int]:
    contract = step.contract.input
    rows = 1 if step.on is None else max(1, min(CROPS, contract.max_batch))
    entry = Area(offset, contract.shape, np.dtype(contract.dtype), rows)
    end, outputs = entry.end, {}
    for name, shape in served.outputs.items():
        if all(side > 0 for side in shape):
            outputs[name] = Area(end, tuple(shape), _FLOAT, rows)
            end = outputs[name].end
    return StepAreas(entry, outputs), end


class Scratch:
    """Anonymous memory that children inherit; not bounded by the size of /dev/shm, taken only as it is touched."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = _anonymous_file()
        os.ftruncate(self.descriptor, size)
        self.map = mmap.mmap(self.descriptor, size)

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """An array in place."""
        return np.frombuffer(self.map, dtype, int(np.prod(shape)), offset).reshape(shape)

    def release(self, offset: int, size: int) -> None:
        """Give whole pages back to the kernel; they read as zero again."""
        if hasattr(mmap, "MADV_REMOVE"):
            with contextlib.suppress(OSError):
                self.map.madvise(mmap.MADV_REMOVE, offset, size)

    def close(self) -> None:
        """Unmap. Memory that arrays still point into goes when the last of them does. Idempotent."""
        if self.descriptor >= 0:
            with contextlib.suppress(BufferError):
                self.map.close()
            os.close(self.descriptor)
            self.descriptor = -1


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("eyeline-scratch")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Slot:
    """One image's share of the memory."""

    def __init__(self, memory: "Memory", index: int) -> None:
        self._memory = memory
        self._base = index * memory.layout.slot_bytes
        self._image = index * memory.image_bytes
        self._frame = memory.frames_at + index * memory.frame_bytes
        self._signature = memory.signatures_at + index * SIGNATURE_BYTES
        self._used = 0
        self.index = index
        self.condemned = False

    def put_image(self, data: bytes) -> tuple[int, int]:
        """Copy the encoded image in; (offset, bytes) of it."""
        self._memory.scratch.map[self._image : self._image + len(data)] = data
        self._used = len(data)
        return self._image, len(data)

    def frame_room(self) -> tuple[int, int]:
        """(offset, bytes) for a decoded frame."""
        return self._frame, self._memory.frame_bytes

    def frame(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The decoded frame that a child left there; size: its (height, width)."""
        return self._memory.scratch.view(self._frame, (*size, 3), np.uint8)

    def signature_room(self) -> tuple[int, int]:
        """(offset, bytes) for what tells a repeated frame."""
        return self._signature, SIGNATURE_BYTES

    def signature(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """What a child left there; size: its (height, width)."""
        return self._memory.scratch.view(self._signature, (*size, 3), np.uint8)

    def room(self, step: PlannedStep, areas: StepAreas) -> Room:
        """Where a child writes the tensor of a step on the whole image."""
        return Room(step.contract.input, self._base + areas.input.offset, step.roi)

    def array(self, area: Area, rows: int = 1) -> NDArray[Any]:
        """The first `rows` rows of an area, in place."""
        return self._memory.tensors.view(self._base + area.offset, (rows, *area.shape), area.dtype)

    def shared(self, area: Area, rows: int = 1) -> SharedTensor | None:
        """The same as the inference server sees it; None where it does not share this memory."""
        segment = self._memory.segment_name
        if segment is None:
            return None
        return SharedTensor(segment, self._base + area.offset, (rows, *area.shape), area.dtype)

    def clear(self) -> None:
        """Give back what an unusually large image took."""
        if self._used > KEEP:
            self._memory.scratch.release(self._image, self._memory.image_bytes)
        self._used = 0


class Memory:
    """`count` slots of a layout. Raises nothing where shared memory is short: tensors are then sent instead."""

    def __init__(self, count: int, layout: Layout, max_bytes: int) -> None:
        self.count = count
        self.layout = layout
        self.image_bytes = -(-max_bytes // _ALIGN) * _ALIGN
        self.frame_bytes = CROP_PIXELS * 3 if layout.frames else 0
        self.frames_at = count * self.image_bytes
        self.signatures_at = self.frames_at + count * self.frame_bytes
        self.scratch = Scratch(self.signatures_at + count * SIGNATURE_BYTES)
        self.tensors = _tensor_memory(count * layout.slot_bytes)
        self.segment_name: str | None = None  # set once the inference server has mapped it
        self.condemned = 0
        self._free: asyncio.LifoQueue[int] = asyncio.LifoQueue()
        for index in reversed(range(count)):
            self._free.put_nowait(index)

    @property
    def offered(self) -> Segment | None:
        """The segment to register with an inference server, where there is one."""
        return self.tensors if isinstance(self.tensors, Segment) else None

    @property
    def worn(self) -> bool:
        """Whether so many slots are condemned that new memory should take over."""
        return self.condemned * 4 >= self.count

    async def take(self) -> Slot:
        """A free slot; waits for one. Raises InferenceUnavailable where all are condemned."""
        index = await self._free.get()
        if index < 0:
            self._free.put_nowait(index)
            raise InferenceUnavailable("every slot of the shared memory waits for an answer that did not come")
        return Slot(self, index)

    def give(self, slot: Slot) -> None:
        """Take a slot back; a condemned one is not given out again."""
        slot.clear()
        if slot.condemned:
            self.condemned += 1
            if self.condemned == self.count:
                self._free.put_nowait(-1)  # tells those who wait, one after the other
        else:
            self._free.put_nowait(slot.index)

    def close(self) -> None:
        """Unmap all of it and remove the segment's name. Idempotent."""
        self.scratch.close()
        self.tensors.close()
        if isinstance(self.tensors, Segment):
            self.tensors.unlink()


def _tensor_memory(size: int) -> Segment | Scratch:
    try:
        return Segment.create(size)
    except ConfigError as error:
        log.warning("no shared memory; tensors are sent through the socket", error=str(error))
        return Scratch(size)
