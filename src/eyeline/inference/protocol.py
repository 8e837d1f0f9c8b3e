"""The Open Inference Protocol v2 on the wire: JSON header, binary tensors behind it, shared memory by reference.

Server and client both speak through this file. https://github.com/kserve/open-inference-protocol names the fields;
the binary and shared memory extensions are Triton's.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from eyeline.core.errors import InputError
from eyeline.core.types import ModelRef
from eyeline.inference.base import Canary, GoldenCheck
from eyeline.pipeline.contract import ModelContract

#: Length of the JSON part of a body that carries binary tensors behind it.
HEADER_LENGTH = "inference-header-content-length"
#: Seconds that the caller still waits; the total deadline of a request.
TIMEOUT = "x-eyeline-timeout"

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


class TensorParameters(msgspec.Struct, omit_defaults=True):
    """Where a tensor's data are, when they are not in the JSON."""

    binary_data_size: int | None = None
    binary_data: bool | None = None
    shared_memory_region: str | None = None
    shared_memory_offset: int = 0
    shared_memory_byte_size: int | None = None
    classification: int | None = None


class RequestInput(msgspec.Struct, omit_defaults=True):
    """One input tensor."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Any = None
    parameters: TensorParameters = msgspec.field(default_factory=TensorParameters)


class RequestOutput(msgspec.Struct, omit_defaults=True):
    """One output that is asked for."""

    name: str
    parameters: TensorParameters = msgspec.field(default_factory=TensorParameters)


class RequestParameters(msgspec.Struct, omit_defaults=True):
    """What concerns the whole request. `timeout` is in microseconds, as Triton has it."""

    binary_data_output: bool = False
    timeout: int | None = None


class InferRequest(msgspec.Struct, omit_defaults=True):
    """The JSON of `POST …/infer`."""

    inputs: tuple[RequestInput, ...]
    id: str = ""
    outputs: tuple[RequestOutput, ...] = ()
    parameters: RequestParameters = msgspec.field(default_factory=RequestParameters)


class ResponseOutput(msgspec.Struct, omit_defaults=True):
    """One output tensor of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any = None
    parameters: TensorParameters | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The JSON of an answer."""

    model_name: str
    outputs: list[ResponseOutput]
    model_version: str = ""
    id: str = ""


class Failure(msgspec.Struct):
    """The JSON of a refusal."""

    error: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What our own servers say of a model under `parameters.eyeline` of its Triton-style config."""

    contract: ModelContract
    ref: ModelRef
    fingerprint: str
    outputs: dict[str, tuple[int, ...]]
    canary: Canary | None = None
    golden: GoldenCheck | None = None


request_decoder = msgspec.json.Decoder(InferRequest)
response_decoder = msgspec.json.Decoder(InferResponse)
encoder = msgspec.json.Encoder()


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's word for a NumPy dtype. Raises InputError where it has none."""
    name = DATATYPES.get(dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype)
    if name is None:
        raise InputError(f"dtype {dtype} has no name in the Open Inference Protocol; use one of {', '.join(DTYPES)}")
    return name


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The inverse of `datatype_of`. Raises InputError."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InputError(f"datatype {datatype!r} is not supported; use one of {', '.join(DTYPES)}")
    return dtype


def split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """(JSON, binary tensors) of a body. Raises InputError where the header's length is no length within it."""
    view = memoryview(body)
    if header_length is None:
        return view, view[:0]
    if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
        raise InputError(f"{HEADER_LENGTH}: {header_length[:40]!r} is no length within a body of {len(body)} bytes")
    length = int(header_length)
    return view[:length], view[length:]


def nbytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Bytes of a tensor. Raises InputError for a negative or absurd shape."""
    total = dtype.itemsize
    for length in shape:
        if length < 0:
            raise InputError(f"shape {list(shape)} has a negative length")
        total *= length
    if total > 1 << 40:
        raise InputError(f"shape {list(shape)} is {total} bytes; no request is that large")
    return total


def from_bytes(data: memoryview, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A tensor in place over its bytes. Raises InputError where the length does not fit the shape."""
    wanted = nbytes(shape, dtype)
    if len(data) != wanted:
        raise InputError(f"{len(data)} bytes of data for shape {list(shape)} {datatype_of(dtype)}, which has {wanted}")
    return np.frombuffer(data, dtype).reshape(shape)


def encode_request(
    request_id: str,
    inputs: Sequence[RequestInput],
    tensors: Sequence[NDArray[Any]],
    outputs: Sequence[RequestOutput],
    timeout: float,
) -> tuple[bytes, int | None]:
    """Body and, where binary tensors follow the JSON, the length of the JSON."""
    parameters = RequestParameters(binary_data_output=True, timeout=int(timeout * 1e6))
    request = InferRequest(inputs=tuple(inputs), id=request_id, outputs=tuple(outputs), parameters=parameters)
    header = encoder.encode(request)
    if not tensors:
        return header, None
    return b"".join((header, *(np.ascontiguousarray(tensor).data.cast("B") for tensor in tensors))), len(header)


def decode_response(body: bytes, header_length: str | None) -> tuple[InferResponse, dict[str, NDArray[Any]]]:
    """An answer and those of its tensors that it carries (not those left in shared memory)."""
    header, rest = split(body, header_length)
    response = _response_of(header)
    tensors: dict[str, NDArray[Any]] = {}
    for output in response.outputs:
        where = output.parameters or TensorParameters()
        dtype = dtype_of(output.datatype)
        if where.binary_data_size is not None:
            tensors[output.name] = from_bytes(rest[: where.binary_data_size], output.shape, dtype)
            rest = rest[where.binary_data_size :]
        elif output.data is not None:
            tensors[output.name] = np.asarray(output.data, dtype).reshape(output.shape)
    return response, tensors


def _response_of(header: memoryview) -> InferResponse:
    """JSON has no NaN; servers in Python write one all the same, and it is the picture's fault, not an outage."""
    try:
        return response_decoder.decode(header)
    except msgspec.DecodeError:
        said = bytes(header)
        if b"NaN" not in said and b"Infinity" not in said:
            raise
        return msgspec.convert(json.loads(said), InferResponse)


def describe(tensors: Mapping[str, tuple[int, ...]]) -> str:
    """Names and shapes in words, for messages."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in tensors.items())
