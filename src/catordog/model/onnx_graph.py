"""Edit ONNX files without the package `onnx`: cut out a part, append a layer, read weights.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.model.protobuf import (
    Field,
    bytes_of,
    integer,
    message,
    packed,
    parse,
    serialise,
    text,
    text_of,
    texts_of,
)

Floats = npt.NDArray[np.floating[Any]]
Weights = npt.NDArray[np.float32]

# ModelProto
_GRAPH, _MODEL_METADATA = 7, 14
# StringStringEntryProto
_KEY, _VALUE = 1, 2
# GraphProto
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO, _QUANTIZATION = 1, 2, 5, 11, 12, 13, 14
# NodeProto
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OP_TYPE, _ATTRIBUTE = 1, 2, 3, 4, 5
# AttributeProto
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE = 1, 3, 20
_INT = 2
# TensorProto
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1
_TYPES = {_FLOAT: "<f4", 3: "i1", 10: "<f2"}
# ValueInfoProto, TypeProto, TypeProto.Tensor, TensorShapeProto, its Dimension
_INFO_NAME, _INFO_TYPE, _TENSOR_TYPE, _ELEMENT_TYPE, _SHAPE, _DIM = 1, 2, 1, 1, 2, 1
_DIM_VALUE, _DIM_NAME = 1, 2


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """The affine layer `output = input · weight + bias`.

    Attributes:
        inputs: names of the values `[N, Dᵢ]` that are concatenated to the layer's input.
        output: the name of its output.
        weight: `[Σ Dᵢ, C]`.
        bias: `[C]`.
    """

    inputs: tuple[str, ...]
    output: str
    weight: Floats
    bias: Floats


def cut(
    model: bytes,
    outputs: Mapping[str, int],
    *,
    inputs: Mapping[str, int] | None = None,
    append: LinearLayer | None = None,
) -> bytes:
    """Cut the part out of an ONNX model that computes some of its values.

    Metadata of the model is dropped, too; see `with_metadata`.

    Args:
        model: the bytes of an ONNX file.
        outputs: of the part, in this order: name and D of a value `float32 [N, D]`. The output of
            `append` is one of them.
        inputs: of the part, as name and D; None: those of the model.
        append: a layer that is computed from values of the model.

    Raises:
        ValueError: the bytes are not an ONNX model, or it has no value of such a name.
    """
    fields = parse(model)
    graph = _graph(fields)
    nodes = [parse(value) for value in bytes_of(graph, _NODE)]
    added = set() if append is None else {append.output}
    wanted = {*outputs} - added | ({*append.inputs} if append else set())
    given = set(inputs or ())
    kept: list[list[Field]] = []
    for node in reversed(nodes):  # nodes are in the order of execution
        results = set(texts_of(node, _NODE_OUTPUT))
        if (results & wanted) - given:
            kept.append(node)
            wanted = wanted - results | set(texts_of(node, _NODE_INPUT))
    own_inputs = [(text_of(parse(x), _INFO_NAME), x) for x in bytes_of(graph, _INPUT)]
    initialisers = [(text_of(parse(x), _TENSOR_NAME), x) for x in bytes_of(graph, _INITIALIZER)]
    known = given | {name for name, _ in (*own_inputs, *initialisers)} | {""}
    if missing := sorted(wanted - known):
        raise ValueError(f"it has no value {missing[0]!r}")
    body: list[Field] = [message(_NODE, node) for node in reversed(kept)]
    tensors = [packed(_INITIALIZER, bytes(x)) for name, x in initialisers if name in wanted]
    if append is not None:
        layer_nodes, layer_tensors = _linear(append)
        body += [message(_NODE, node) for node in layer_nodes]
        tensors += [message(_INITIALIZER, tensor) for tensor in layer_tensors]
    taken: list[Field] = (
        [packed(_INPUT, bytes(x)) for name, x in own_inputs if name in wanted]
        if inputs is None
        else [message(_INPUT, _info(name, size)) for name, size in inputs.items()]
    )
    ends = [message(_OUTPUT, _info(name, size)) for name, size in outputs.items()]
    replaced = {_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO, _QUANTIZATION}
    rest = [field for field in graph if field[0] not in replaced]
    new = message(_GRAPH, [*body, *tensors, *taken, *ends, *rest])
    return serialise(
        [*(field for field in fields if field[0] not in {_GRAPH, _MODEL_METADATA}), new]
    )


def with_input_size(model: bytes, size: int) -> bytes:
    """The ONNX model with an input of another size, `[N, 3, size, size]`.

    Only the declared shape changes, so the network itself must take any size, as one that averages
    over all positions does.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    fields = parse(model)
    side = message(_DIM, [integer(_DIM_VALUE, size)])
    graph: list[Field] = []
    for field in _graph(fields):
        if field[0] != _INPUT:
            graph.append(field)
            continue
        info = parse(bytes_of([field], _INPUT)[0])
        tensor = parse(bytes_of(parse(bytes_of(info, _INFO_TYPE)[0]), _TENSOR_TYPE)[0])
        sides = bytes_of(parse(bytes_of(tensor, _SHAPE)[0]), _DIM)
        shape = message(_SHAPE, [*(packed(_DIM, bytes(x)) for x in sides[:2]), side, side])
        new = [*(x for x in tensor if x[0] != _SHAPE), shape]
        kept = [x for x in info if x[0] != _INFO_TYPE]
        kept.append(message(_INFO_TYPE, [message(_TENSOR_TYPE, new)]))
        graph.append(message(_INPUT, kept))
    new_graph = message(_GRAPH, graph)
    return serialise(new_graph if field[0] == _GRAPH else field for field in fields)


def metadata_of(model: bytes) -> dict[str, str]:
    """The metadata of an ONNX model.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    entries = (parse(entry) for entry in bytes_of(parse(model), _MODEL_METADATA))
    return {text_of(entry, _KEY): text_of(entry, _VALUE) for entry in entries}


def output_names(model: bytes) -> list[str]:
    """The names of the outputs of an ONNX model.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    return [text_of(parse(info), _INFO_NAME) for info in bytes_of(_graph(parse(model)), _OUTPUT)]


def layer_weights(model: bytes, kind: str) -> list[tuple[Weights, Weights]]:
    """Weights and biases of all layers of a kind, in the order of execution.

    Weights that are stored in 8 or 16 bits are widened, as the model's own nodes do.

    Args:
        model: the bytes of an ONNX file.
        kind: the type of the layers' nodes, such as `Conv`.

    Raises:
        ValueError: the bytes are not an ONNX model, or weights are stored in another way.
    """
    graph = _graph(parse(model))
    values: dict[str, Weights] = {}
    for data in bytes_of(graph, _INITIALIZER):
        values |= _tensor_values(parse(data))
    found = []
    for data in bytes_of(graph, _NODE):
        node = parse(data)
        inputs, (output, *_) = texts_of(node, _NODE_INPUT), texts_of(node, _NODE_OUTPUT)
        node_kind = text_of(node, _OP_TYPE)
        if node_kind == kind:
            if len(inputs) != 3 or not values.keys() >= {*inputs[1:]}:
                raise ValueError(f"{output!r} has no weight and bias that are known")
            found.append((values[inputs[1]], values[inputs[2]]))
        elif node_kind in {"Cast", "Mul"} and values.keys() >= {*inputs}:
            first, *others = (values[name] for name in inputs)
            values[output] = first * others[0] if others else first
    return found


def with_metadata(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """The ONNX model with this metadata in place of its own.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    entries = [
        message(_MODEL_METADATA, [text(_KEY, key), text(_VALUE, value)])
        for key, value in metadata.items()
    ]
    fields = parse(model)
    _graph(fields)
    return serialise([*(field for field in fields if field[0] != _MODEL_METADATA), *entries])


def _graph(fields: Sequence[Field]) -> list[Field]:
    graphs = bytes_of(fields, _GRAPH)
    if len(graphs) != 1:
        raise ValueError("not an ONNX model")
    return parse(graphs[0])


def _linear(layer: LinearLayer) -> tuple[list[list[Field]], list[list[Field]]]:
    """The nodes and weights of a linear layer."""
    names = [f"{layer.output}.{part}" for part in ("input", "weight", "bias")]
    joined, weight, bias = names
    nodes = [
        _node("Concat", layer.inputs, joined, axis=1),
        _node("Gemm", names, layer.output),
    ]
    return nodes, [_tensor(weight, layer.weight), _tensor(bias, layer.bias)]


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> list[Field]:
    return [
        *(text(_NODE_INPUT, name) for name in inputs),
        text(_NODE_OUTPUT, output),
        text(_NODE_NAME, f"{output}.{kind}"),
        text(_OP_TYPE, kind),
        *(
            message(
                _ATTRIBUTE,
                [
                    text(_ATTRIBUTE_NAME, name),
                    integer(_ATTRIBUTE_INT, value),
                    integer(_ATTRIBUTE_TYPE, _INT),
                ],
            )
            for name, value in attributes.items()
        ),
    ]


def _tensor(name: str, values: Floats) -> list[Field]:
    return [
        *(integer(_DIMS, size) for size in values.shape),
        integer(_DATA_TYPE, _FLOAT),
        text(_TENSOR_NAME, name),
        packed(_RAW_DATA, np.ascontiguousarray(values, dtype="<f4").tobytes()),
    ]


def _tensor_values(tensor: list[Field]) -> dict[str, Weights]:
    """A weight by its name, as float32; empty if it is stored in another way than weights are."""
    numbers = {
        number: [value for found, _, value in tensor if found == number and isinstance(value, int)]
        for number in (_DIMS, _DATA_TYPE)
    }
    raw = bytes_of(tensor, _RAW_DATA)
    kind = _TYPES.get(numbers[_DATA_TYPE][-1]) if numbers[_DATA_TYPE] else None
    if len(raw) != 1 or kind is None:
        return {}
    values = np.frombuffer(raw[0], kind).reshape(numbers[_DIMS]).astype(np.float32)
    return {text_of(tensor, _TENSOR_NAME): values}


def _info(name: str, size: int) -> list[Field]:
    """A value `float32 [n, size]`."""
    shape = [message(_DIM, [text(_DIM_NAME, "n")]), message(_DIM, [integer(_DIM_VALUE, size)])]
    tensor = [integer(_ELEMENT_TYPE, _FLOAT), message(_SHAPE, shape)]
    return [text(_INFO_NAME, name), message(_INFO_TYPE, [message(_TENSOR_TYPE, tensor)])]
