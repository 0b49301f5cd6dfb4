"""A general backbone that is small enough for tests: it sees colours in places."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catordog.confidence.ood_output import fit_output
from catordog.confidence.specialty import Specialty
from conftest import save, write_folder

SIZE, FEATURES, CONCEPTS = 16, 24, 12

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@cache
def backbone_bytes() -> bytes:
    """An ONNX model with logits of two classes, features and concepts."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        values = generator.normal(size=shape) / np.sqrt(shape[0] if len(shape) > 1 else 1)
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("AveragePool", ["photos"], ["p"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("Gemm", ["features", "head.w", "head.b"], ["logits"]),
        helper.make_node("Gemm", ["features", "c.w", "c.b"], ["concepts"]),
    ]
    weights = [
        weight("w", 48, FEATURES), weight("head.w", FEATURES, 2), weight("head.b", 2),
        weight("c.w", FEATURES, CONCEPTS), weight("c.b", CONCEPTS),
    ]  # fmt: skip

    def value(name: str, *shape: object) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("photos", "n", 3, SIZE, SIZE)],
        [
            value("logits", "n", 2),
            value("features", "n", FEATURES),
            value("concepts", "n", CONCEPTS),
        ],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"someone": "else's"})
    content: bytes = model.SerializeToString()
    return content


def write_backbone(folder: Path) -> Path:
    file = folder / "backbone.onnx"
    file.write_bytes(backbone_bytes())
    return file


def coloured(name: str, seed: int) -> bytes:
    """A PNG file of mostly this colour, a different one for each seed."""
    generator = np.random.default_rng([seed, *map(ord, name)])
    noise = generator.integers(-40, 41, (4, 4, 3)) + generator.integers(-25, 26, 3)
    pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
    return save(Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC), "PNG")


def colours(folder: Path, **counts: int) -> Path:
    """A folder with a sub-folder of so many photos for each colour."""
    files = {
        f"{name}/{i}.png": coloured(name, i) for name, count in counts.items() for i in range(count)
    }
    return write_folder(folder, files)


def specialty_of(width, units=1, seed=0):
    """A random specialty of features of this width."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(width, units)).astype(np.float32)
    output = generator.normal(size=units).astype(np.float32)
    ranks = fit_output(generator.normal(size=200).astype(np.float32))
    return Specialty("colours", weight, np.ones(units, np.float32), output, ranks)
