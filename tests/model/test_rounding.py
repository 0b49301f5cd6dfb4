"""8-bit sums round to the same step on every processor."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from catordog.model.bundled import BUNDLED_FIRST
from catordog.model.export import eight_bits

ERROR_OF_FLOAT32 = 3e-5
"""Of a sum of up to 256 steps."""


def sum_of_two(scales):
    """A model that adds two 8-bit tensors, in QDQ format."""
    tensors = [numpy_helper.from_array(np.array(128, np.uint8), "zero")]
    for name, scale in zip("abc", scales, strict=True):
        tensors.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
    nodes = [
        helper.make_node("DequantizeLinear", [name, f"{name}_scale", "zero"], [f"{name}_wide"])
        for name in "ab"
    ]
    nodes.append(helper.make_node("Add", ["a_wide", "b_wide"], ["sum"]))
    nodes.append(helper.make_node("QuantizeLinear", ["sum", "c_scale", "zero"], ["c"]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.UINT8, [None]) for name in "ab"]
    outputs = [helper.make_tensor_value_info("c", TensorProto.UINT8, [None])]
    return helper.make_model(helper.make_graph(nodes, "sum", inputs, outputs, tensors))


def margins(model):
    """How close each sum comes to the middle between two steps, in steps."""
    sums = eight_bits.quantised_sums(model)
    return [eight_bits.rounding_margin(terms, result) for _, terms, result in sums]


def test_no_sum_of_the_included_first_stage_is_near_a_boundary():
    found = margins(onnx.load(BUNDLED_FIRST))
    assert len(found) == 9
    assert min(found) > ERROR_OF_FLOAT32


def test_settling_moves_sums_away_from_boundaries():
    model = sum_of_two((0.25, 0.5, 0.5))
    assert margins(model) == [0]
    eight_bits.settle(model)
    assert margins(model)[0] > ERROR_OF_FLOAT32
