"""An infer request, checked against the model's contract before any work, and the answer that its outputs become."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from eyeline.core.errors import InputError
from eyeline.inference import protocol
from eyeline.inference.base import ServedModel, Tensor
from eyeline.inference.protocol import (
    InferRequest,
    InferResponse,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorParameters,
)
from eyeline.inference.regions import Regions

#: Seconds that a request without a deadline may take.
PATIENCE = 60.0
#: The contract's dtype in the protocol's words.
WANTED = {"uint8": "UINT8", "float32": "FP32"}


@dataclass(frozen=True)
class Reply:
    """What is sent back: a body, and the length of its JSON part where binary tensors follow."""

    body: bytes
    header_length: int | None


def read(body: bytes, header_length: str | None) -> tuple[InferRequest, memoryview]:
    """The request and the binary tensors behind it; lists of numbers become arrays. Raises InputError."""
    header, rest = protocol.split(body, header_length)
    try:
        request = protocol.request_decoder.decode(header)
    except msgspec.MsgspecError as error:
        raise InputError(f"the request is not as the Open Inference Protocol v2 has it: {error}") from error
    for given in request.inputs:
        if given.data is not None:
            given.data = _numbers(given)
    return request, rest


def _numbers(given: RequestInput) -> Tensor:
    try:
        numbers = np.asarray(given.data)
    except (ValueError, OverflowError) as error:
        raise InputError(f"input {given.name!r}: its data are no array: {error}") from error
    if numbers.dtype.kind not in "biuf":
        raise InputError(f"input {given.name!r}: its data are not numbers")
    return numbers


def seconds_left(request: InferRequest, header: str | None) -> float:
    """The total deadline that travels with the request. Raises InputError."""
    left = PATIENCE
    if request.parameters.timeout:
        left = min(left, request.parameters.timeout / 1e6)
    if header is not None:
        try:
            said = float(header)
        except ValueError:
            said = math.nan
        if not math.isfinite(said):
            raise InputError(f"{protocol.TIMEOUT}: {header[:40]!r} is no number of seconds")
        left = min(left, said)
    return left


def inputs_of(
    request: InferRequest, rest: memoryview, served: ServedModel, regions: Regions
) -> tuple[dict[str, Tensor], int]:
    """The input tensor, in place where it can be, and how many images it holds. Raises InputError stating both sides."""
    wanted = served.contract.input
    if len(request.inputs) != 1 or request.inputs[0].name != wanted.name:
        names = ", ".join(repr(given.name) for given in request.inputs) or "none"
        raise InputError(f"the model {served.contract.name!r} has one input, {wanted.name!r}; the request has {names}")
    given = request.inputs[0]
    size = given.shape[0] if given.shape else 0
    fits = given.datatype == WANTED[wanted.dtype] and given.shape[1:] == wanted.shape
    if not fits or not 1 <= size <= wanted.max_batch:
        raise InputError(
            f"the input {wanted.name!r} is {given.datatype} {list(given.shape)}; the model {served.contract.name!r} wants "
            f"{WANTED[wanted.dtype]} [1..{wanted.max_batch}, {', '.join(map(str, wanted.shape))}]"
        )
    return {given.name: _tensor(given, rest, regions)}, size


def _tensor(given: RequestInput, rest: memoryview, regions: Regions) -> Tensor:
    dtype = protocol.dtype_of(given.datatype)
    where = given.parameters
    if where.shared_memory_region is not None:
        return regions.view(where, given.shape, dtype)
    if where.binary_data_size is not None:
        if where.binary_data_size != len(rest):  # the one input is all that can follow
            raise InputError(
                f"input {given.name!r} claims {where.binary_data_size} bytes; {len(rest)} follow the JSON header"
            )
        return protocol.from_bytes(rest[: where.binary_data_size], given.shape, dtype)
    return _from_numbers(given, dtype)


def _from_numbers(given: RequestInput, dtype: np.dtype[np.generic]) -> Tensor:
    if given.data is None:
        raise InputError(f"input {given.name!r} has no data: neither numbers, binary data nor shared memory")
    numbers: Tensor = given.data
    wanted = math.prod(given.shape)
    if numbers.size != wanted:
        raise InputError(
            f"input {given.name!r} has {numbers.size} numbers; its shape {list(given.shape)} wants {wanted}"
        )
    with np.errstate(all="ignore"):
        tensor = numbers.astype(dtype).reshape(given.shape)
    if dtype.kind in "iu" and not np.array_equal(tensor.ravel(), numbers.ravel()):
        raise InputError(f"input {given.name!r}: a value is no {given.datatype}")
    return tensor


@dataclass(frozen=True)
class Answering:
    """Turns a model's outputs into the reply that this request asked for; called in the runtime's thread."""

    served: ServedModel
    request_id: str
    outputs: tuple[RequestOutput, ...]
    binary: bool
    rooms: Mapping[str, Tensor]

    @classmethod
    def for_request(cls, request: InferRequest, served: ServedModel, size: int, regions: Regions) -> "Answering":
        """Checks names and room in shared memory before anything runs. Raises InputError."""
        binary = request.parameters.binary_data_output
        outputs = request.outputs or tuple(RequestOutput(name=name) for name in served.outputs)
        rooms: dict[str, Tensor] = {}
        for output in outputs:
            shape = served.outputs.get(output.name)
            if shape is None:
                has = protocol.describe(dict(served.outputs))
                raise InputError(f"the model {served.contract.name!r} has no output {output.name!r}; it has {has}")
            if output.parameters.classification:
                raise InputError(
                    "the classification extension is not offered; ask for the scores, or use POST /predict"
                )
            if output.parameters.shared_memory_region is not None:
                rooms[output.name] = regions.view(output.parameters, (size, *shape), protocol.DTYPES["FP32"])
        return cls(served, request.id, outputs, binary, rooms)

    def __call__(self, outputs: dict[str, Tensor]) -> Reply:
        """The reply; outputs with room in shared memory are written there."""
        tensors: list[memoryview] = []
        rows = [self._row(wanted, outputs[wanted.name], tensors) for wanted in self.outputs]
        ref = self.served.ref
        response = InferResponse(model_name=ref.name, model_version=ref.version, id=self.request_id, outputs=rows)
        header = protocol.encoder.encode(response)
        if not tensors:
            return Reply(header, None)
        return Reply(b"".join((header, *tensors)), len(header))

    def _row(self, wanted: RequestOutput, value: Tensor, tensors: list[memoryview]) -> ResponseOutput:
        row = ResponseOutput(name=wanted.name, datatype=protocol.datatype_of(value.dtype), shape=value.shape)
        room = self.rooms.get(wanted.name)
        if room is not None:
            room[...] = value
            row.parameters = TensorParameters(
                shared_memory_region=wanted.parameters.shared_memory_region,
                shared_memory_offset=wanted.parameters.shared_memory_offset,
                shared_memory_byte_size=value.nbytes,
            )
        elif wanted.parameters.binary_data if wanted.parameters.binary_data is not None else self.binary:
            tensors.append(np.ascontiguousarray(value).data.cast("B"))
            row.parameters = TensorParameters(binary_data_size=value.nbytes)
        else:
            row.data = value.ravel().tolist()
        return row
