"""ONNX graph surgery for import: what a foreign graph takes, and the same graph taking uint8 RGB pixels.

A worker then sends a quarter of the bytes and no preprocessing can be forgotten: it is part of the weights.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from eyeline.core.errors import ConfigError
from eyeline.pipeline.contract import InputContract

_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
#: Elements of the largest array that a graph may ask for by a constant shape: 4 GB of float32.
_MAX_MADE = 1 << 30


@dataclass(frozen=True)
class GraphInput:
    """The one input of a foreign graph; a length is None where the file leaves it open."""

    name: str
    kind: int  # TensorProto's number of the element type
    batch: int | None
    height: int | None
    width: int | None
    layout: str  # nchw | nhwc


def parse(weights: bytes) -> Any:
    """The model in memory. `check_graph` has seen these bytes before: nothing outside of them is read."""
    return onnx.load_model_from_string(weights)


def metadata(model: Any) -> dict[str, str]:
    """What the exporter wrote into the file: key → value."""
    return {entry.key: entry.value for entry in model.metadata_props}


def input_of(model: Any, where: str) -> GraphInput:
    """The image input. Raises ConfigError where there are several, or none that takes pictures."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ConfigError(f"{where} has {len(inputs)} inputs ({names}); a model of one image input is wanted")
    kind = inputs[0].type.tensor_type
    lengths = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
    told = (
        f"{inputs[0].name} {TensorProto.DataType.Name(kind.elem_type).lower()} {[length or '?' for length in lengths]}"
    )
    if kind.elem_type not in (*_FLOATS, TensorProto.UINT8):
        raise ConfigError(f"{where} takes {told}; float32, float16 or uint8 pixels are wanted: export it so")
    if len(lengths) != 4 or 3 not in (lengths[1], lengths[3]):
        raise ConfigError(f"{where} takes {told}; colour images [N, 3, H, W] or [N, H, W, 3] are wanted")
    layout = "nchw" if lengths[1] == 3 else "nhwc"
    height, width = lengths[2:] if layout == "nchw" else lengths[1:3]
    return GraphInput(inputs[0].name, kind.elem_type, lengths[0], height, width, layout)


def check_sizes(model: Any, where: str) -> None:
    """Refuse graphs that would make an array of absurd size while they are loaded. Raises ConfigError."""
    constants = _constants(model.graph)
    for node in _nodes(model.graph):
        shape = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}.get(node.op_type)
        if shape is None or len(node.input) <= shape or node.input[shape] not in constants:
            continue
        tensor = constants[node.input[shape]]
        lengths = numpy_helper.to_array(tensor).astype(object).ravel() if len(tensor.dims) <= 1 else []
        if np.prod([max(1, int(length)) for length in lengths], dtype=object) > _MAX_MADE:
            raise ConfigError(
                f"{where}: node {node.name or node.op_type!r} asks for an array of {list(lengths)}; that is no model for images"
            )


def _constants(graph: Any) -> dict[str, Any]:
    """Name → tensor of everything that is fixed: stored, or given by a Constant node."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in _nodes(graph):
        if node.op_type == "Constant":
            found.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
    return found


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def only(weights: bytes, names: Sequence[str]) -> bytes:
    """The graph with these outputs alone, as float32: what a decoder does not read is not computed."""
    model = parse(weights)
    kept = [output for output in model.graph.output if output.name in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    _float_outputs(model)
    return model.SerializeToString()  # type: ignore[no-any-return]


def fold(weights: bytes, contract: InputContract) -> tuple[bytes, str]:
    """The graph with its preprocessing inside: uint8 RGB [N, H, W, 3] in, float32 out; and the new input's name.

    contract: what the graph takes as it is (dtype float32; colour, layout, mean and scale).
    """
    model = parse(weights)
    given = input_of(model, contract.name)
    name = _free_name(model)
    height, width = contract.size
    nodes, constants = _preprocessing(contract, given, name)
    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name in stored]
    del model.graph.input[:]
    model.graph.input.extend(
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [given.batch or "N", height, width, 3]), *kept]
    )
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
    model.graph.initializer.extend(constants)
    _float_outputs(model)
    model.ir_version = max(model.ir_version, 4)  # before, every stored tensor had to be an input too
    return model.SerializeToString(), name


def _preprocessing(contract: InputContract, given: GraphInput, name: str) -> tuple[list[Any], list[Any]]:
    """Turn, reorder, cast, subtract, multiply: the cheap steps on bytes first. The last one writes the old input's name."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    constants: list[Any] = []
    axis, shape = (1, (1, 3, 1, 1)) if contract.layout == "nchw" else (3, (1, 1, 1, 3))

    def constant(label: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(value, f"eyeline_{label}"))
        return f"eyeline_{label}"

    if contract.layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if contract.color == "bgr":
        steps.append(("Gather", [constant("bgr", np.array([2, 1, 0], np.int64))], {"axis": axis}))
    steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if any(contract.mean):
        steps.append(("Sub", [constant("mean", np.array(contract.mean, np.float32).reshape(shape))], {}))
    if any(value != 1 for value in contract.scale):
        steps.append(("Mul", [constant("scale", np.array(contract.scale, np.float32).reshape(shape))], {}))
    if given.kind == TensorProto.FLOAT16:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT16}))
    names = [name, *(f"eyeline_step{number}" for number in range(1, len(steps))), given.name]
    nodes = [
        helper.make_node(kind, [names[at], *more], [names[at + 1]], name=f"eyeline_{at}_{kind}", **attributes)
        for at, (kind, more, attributes) in enumerate(steps)
    ]
    return nodes, constants


def _float_outputs(model: Any) -> None:
    """Answers of another type (float16, the integers of a class map) leave as float32, which is what decoders read."""
    for output in model.graph.output:
        if output.type.tensor_type.elem_type == TensorProto.FLOAT:
            continue
        inner = f"eyeline_plain_{output.name}"
        for node in model.graph.node:
            _renamed(node.input, output.name, inner)
            _renamed(node.output, output.name, inner)
        model.graph.node.append(helper.make_node("Cast", [inner], [output.name], to=TensorProto.FLOAT))
        output.type.tensor_type.elem_type = TensorProto.FLOAT


def _renamed(names: Any, old: str, new: str) -> None:
    for at, name in enumerate(names):
        if name == old:
            names[at] = new


def _free_name(model: Any) -> str:
    taken: set[str] = set()
    for node in _nodes(model.graph):
        taken.update(node.input, node.output)
    taken.update(value.name for value in (*model.graph.input, *model.graph.initializer))
    return next(name for name in ("images", "pixels", "eyeline_pixels") if name not in taken)


def any_batch(weights: bytes) -> Iterator[bytes]:
    """The graph with its batch left open, in the ways that may work, the plainest first; each is to be tried on numbers."""
    model = parse(weights)
    _open_batch([*model.graph.input, *model.graph.output])
    del model.graph.value_info[:]  # the shapes noted along the way are those of one batch size
    yield model.SerializeToString()
    for first in (-1, 0):  # 0 copies the length of what comes in
        patched = onnx.ModelProto()
        patched.CopyFrom(model)
        if _open_reshapes(patched.graph, first):
            yield patched.SerializeToString()


def _open_batch(values: Iterable[Any]) -> None:
    for value in values:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].dim_value in (0, 1):
            dims[0].Clear()
            dims[0].dim_param = "N"


def _open_reshapes(graph: Any, first: int) -> bool:
    """Exporters write a batch of 1 into the shapes of Reshape; True where one was opened."""
    stored = _constants(graph)
    opened = False
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in stored:
            continue
        shape = numpy_helper.to_array(stored[node.input[1]]).copy()
        if len(shape) < 2 or shape[0] != 1 or (first == -1 and (shape == -1).any()):
            continue
        shape[0] = first
        name = f"eyeline_shape_{node.output[0]}"
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name
        opened = True
    return opened
