"""Quantise an ONNX file to 8 bits, so that every processor computes the same logits.

Weights take 7 of the 8 bits, since sums of processors without VNNI would overflow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

Scale = tuple[float, int]
"""Scale and zero point of a quantised tensor."""


_LINEAR = {"Gemm", "MatMul"}


def first_convolutions(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The convolutions among nodes, in their order, that follow no other layer."""
    after: set[str] = set()  # outputs that depend on a layer
    first = []
    for node in nodes:
        if not after.isdisjoint(node.input):
            after.update(node.output)
        elif node.op_type in {"Conv", *_LINEAR}:
            after.update(node.output)
            first += [node] if node.op_type == "Conv" else []
    return first


def last_linear(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The linear layers among nodes, in their order, that no other linear layer follows."""
    before: set[str] = set()  # inputs that a linear layer depends on
    last = []
    for node in reversed(nodes):
        linear_node = node.op_type in _LINEAR
        if linear_node and before.isdisjoint(node.output):
            last.append(node)
        if linear_node or not before.isdisjoint(node.output):
            before.update(node.input)
    return last[::-1]


def following(
    nodes: Sequence[onnx.NodeProto], others: Sequence[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """The nodes, in their order, that depend on an output of others."""
    after = {output for node in others for output in node.output}
    found = []
    for node in nodes:
        if not after.isdisjoint(node.input):
            after.update(node.output)
            found.append(node)
    return found


def quantise(
    source: bytes,
    batches: Iterable[npt.NDArray[np.float32]],
    kept: Callable[[Sequence[onnx.NodeProto]], Sequence[onnx.NodeProto]],
) -> onnx.ModelProto:
    """Quantise a network.

    Args:
        source: an ONNX file with an input `photos`.
        batches: photos that set the ranges, normalised, `[N, 3, S, S]` each.
        kept: chooses the layers that stay in 32 bits.
    """

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"photos": batch}

    with tempfile.TemporaryDirectory() as made:
        original, ready, small = (str(Path(made) / f"{name}.onnx") for name in "abc")
        Path(original).write_bytes(source)
        quant_pre_process(original, ready, skip_symbolic_shape=True)
        wide = [node.name for node in kept(onnx.load(ready).graph.node)]
        quantization.quantize_static(
            ready,
            small,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=wide,
        )
        model = onnx.load(small)
    settle(model)
    return model


def settle(model: onnx.ModelProto) -> None:
    """Keep sums of two quantised tensors off the boundaries of rounding.

    A sum of two 8-bit steps may lie within a float's error of the middle between two steps of the
    result. Processors that multiply and add in one go then round it differently from those that
    don't, and the network passes the difference on. The scale of each sum is enlarged by up to
    0.3 %, to the value where the closest of the 65,536 sums is farthest from a boundary.

    Args:
        model: in QDQ format; changed in place.
    """
    for tensor, terms, (scale, zero) in quantised_sums(model):
        candidates = np.float32(scale) * (1 + np.arange(300, dtype=np.float32) / 100_000)
        margins = [rounding_margin(terms, (float(each), zero)) for each in candidates]
        best = candidates[int(np.argmax(margins))]
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(best), tensor.name))


def quantised_sums(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, list[Scale], Scale]]:
    """For each sum of two tensors: the result's scale in the file, and the scales of all three."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}

    def scale_of(node: onnx.NodeProto) -> Scale:
        scale, zero = (numpy_helper.to_array(tensors[name]) for name in node.input[1:3])
        return float(scale), int(zero)

    for node in model.graph.node:
        terms = [makers.get(name) for name in node.input]
        result = readers.get(node.output[0]) if node.op_type == "Add" else None
        if result is not None and result.op_type == "Relu":
            result = readers.get(result.output[0])
        if result is None or result.op_type != "QuantizeLinear":
            continue
        quantised = [term for term in terms if term and term.op_type == "DequantizeLinear"]
        if len(quantised) == 2:
            yield tensors[result.input[1]], [scale_of(term) for term in quantised], scale_of(result)


def rounding_margin(terms: Sequence[Scale], result: Scale) -> float:
    """How close the sum of two 8-bit numbers comes to the middle between two steps, in steps.

    Args:
        terms: scale and zero point of both.
        result: of the sum.
    """
    steps = np.arange(256)
    first, second = ((steps - zero) * (scale / result[0]) for scale, zero in terms)
    sums = first[:, None] + second[None] + result[1]
    sums = sums[(sums > -1) & (sums < 256)]
    return float(np.abs(sums - np.floor(sums) - 0.5).min())
