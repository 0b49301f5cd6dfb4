"""Write the networks as ONNX files that the package can ship, and calibrate them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from catordog.files import write_bytes
from catordog.model.export import eight_bits
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
    """Quantise a network to 8 bits, without its linear layers.

    Args:
        source: an ONNX file.
        out: the quantised file.
        inputs: photos that set the ranges, `[N, 3, S, S]` for each size.
    """
    batches = [part for each in inputs for part in np.split(each, len(each) // 16)]
    model = eight_bits.quantise(source.read_bytes(), batches, eight_bits.linear)
    write_bytes(out, model.SerializeToString())


def to_onnx(
    network: Any, path: Path, size: int, names: list[str], *, any_size: bool = False
) -> onnx.ModelProto:
    """A network as ONNX, without what the exporter adds."""
    from release.features import export

    export(network.eval(), path, size, names, any_size=any_size)
    model = onnx.load(path)
    tidy(model)
    return model
