"""Write the networks as ONNX files that the package can ship, and calibrate them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from catordog.files import write_bytes
from catordog.model.info import ModelInfo
from catordog.model.onnx_file import KEY

OUTPUTS = ["logits", "features", "concepts", "ood"]
FIRST = ["logits", "ood"]
"""Outputs of both files; the large one gets `regions` afterwards."""

NARROW = 20_000
"""Weights with more numbers are stored in 8 bits, per output channel."""


def shrink(model: onnx.ModelProto, wide: Sequence[str] = ()) -> None:
    """Store weights in 8 bits with a scale per channel, others in 16; widened at loading.

    Args:
        model: changed in place.
        wide: beginnings of the names of weights that keep 16 bits.
    """
    graph, nodes = model.graph, []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        name = tensor.name
        if values.dtype != np.float32 or values.size < 256:
            continue
        if values.size < NARROW or name.startswith(tuple(wide)):
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
            continue
        axes = tuple(range(1, values.ndim))
        scale = np.abs(values).max(axis=axes, keepdims=True) / 127
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        steps = np.rint(values / scale).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(steps, f"{name}.steps"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(
            helper.make_node("Cast", [f"{name}.steps"], [f"{name}.wide"], to=TensorProto.FLOAT)
        )
        nodes.append(helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def tidy(model: onnx.ModelProto) -> None:
    """Leave out what the exporter adds: paths of source files, and its name."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    model.producer_name, model.producer_version = "catordog", ""


def write(model: onnx.ModelProto, path: Path, info: ModelInfo, **metadata: str) -> None:
    """Write a model file with its description."""
    values = {KEY: json.dumps(info.to_dict(), ensure_ascii=False, allow_nan=False), **metadata}
    helper.set_model_props(model, values)
    write_bytes(path, model.SerializeToString())


def quantise(source: Path, out: Path, inputs: Sequence[npt.NDArray[np.float32]]) -> None:
    """Quantise a network to 8 bits: 7 for weights, so that no processor's sums overflow.

    Args:
        source: an ONNX file.
        out: the quantised file.
        inputs: photos that set the ranges, `[N, 3, S, S]` for each size.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([part for each in inputs for part in np.split(each, len(each) // 16)])

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.left, None)
            return None if part is None else {"photos": part}

    ready = out.with_suffix(".ready.onnx")
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    last = [node.name for node in onnx.load(ready).graph.node if node.op_type in {"Gemm", "MatMul"}]
    quantization.quantize_static(
        str(ready),
        str(out),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=last,
    )
    ready.unlink()
    model = onnx.load(out)
    settle(model)
    write_bytes(out, model.SerializeToString())


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


Scale = tuple[float, int]
"""Scale and zero point of a quantised tensor."""


def quantised_sums(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, list[Scale], Scale]]:
    """For each sum of two tensors: the result's scale in the file, and the scales of all three."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}

    def scale_of(node: onnx.NodeProto) -> Scale:
        scale, zero = (numpy_helper.to_array(tensors[name]) for name in node.input[1:3])
        return float(scale), int(zero)

    for node in model.graph.node:
        if node.op_type == "Add":
            result = readers[node.output[0]]
            terms = [scale_of(makers[name]) for name in node.input]
            yield tensors[result.input[1]], terms, scale_of(result)


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


def to_onnx(
    network: Any, path: Path, size: int, names: list[str], *, any_size: bool = False
) -> onnx.ModelProto:
    """A network as ONNX, without what the exporter adds."""
    from release.features import export

    export(network.eval(), path, size, names, any_size=any_size)
    model = onnx.load(path)
    tidy(model)
    return model
