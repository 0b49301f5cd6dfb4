"""ONNX files are cut, extended and described without the package `onnx`, which agrees."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from catordog.model.backbone import Backbone
from catordog.model.backends.onnx import Graph
from catordog.model.onnx_graph import LinearLayer, cut, metadata_of, with_input_size, with_metadata
from catordog.model.protobuf import BYTES, FIXED32, FIXED64, VARINT, parse, serialise
from model.tiny_backbone import CONCEPTS, FEATURES, SIZE, backbone_bytes

OUTPUTS = {"logits": 3, "features": FEATURES, "concepts": CONCEPTS}


@pytest.fixture(scope="module")
def layer():
    generator = np.random.default_rng(1)
    weight, bias = generator.normal(size=(FEATURES + CONCEPTS, 3)), generator.normal(size=3)
    return LinearLayer(("features", "concepts"), "logits", weight, bias)


@pytest.fixture(scope="module")
def extended(layer):
    return cut(backbone_bytes(), OUTPUTS, append=layer)


def test_the_appended_layer_computes_the_logits_and_the_old_ones_are_gone(layer, extended):
    model = onnx.load_from_string(extended)
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == list(OUTPUTS)
    assert "head.w" not in {weight.name for weight in model.graph.initializer}
    photos = np.random.default_rng(2).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    logits, features, concepts = Graph(extended).run(photos, list(OUTPUTS))
    _, *before = Graph(backbone_bytes()).run(photos, list(OUTPUTS))
    assert (features == before[0]).all()
    assert (concepts == before[1]).all()
    expected = np.concatenate([features, concepts], axis=1) @ layer.weight + layer.bias
    assert np.allclose(logits, expected, atol=1e-4)


def test_a_network_that_averages_over_all_positions_takes_another_size():
    nodes = [
        helper.make_node("GlobalAveragePool", ["photos"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    photos = helper.make_tensor_value_info("photos", TensorProto.FLOAT, ["n", 3, 32, 32])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [photos], [features])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    smaller = with_input_size(model, 16)
    onnx.checker.check_model(onnx.load_from_string(smaller), full_check=True)
    pixels = np.random.default_rng(4).normal(size=(2, 3, 16, 16)).astype(np.float32)
    assert Graph(smaller).input_shape == ["n", 3, 16, 16]
    (found,) = Graph(smaller).run(pixels, ["features"])
    assert np.allclose(found, pixels.mean(axis=(2, 3)), atol=1e-6)


def test_the_bundled_backbone_takes_smaller_photos():
    backbone = Backbone.read(size=64)
    pixels = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert backbone.preprocess.size == 64
    assert backbone.concepts(backbone.features(pixels)).shape == (2, 1000)


def test_a_part_can_start_from_a_value_in_the_middle():
    part = cut(backbone_bytes(), {"concepts": CONCEPTS}, inputs={"features": FEATURES})
    onnx.checker.check_model(onnx.load_from_string(part), full_check=True)
    features = np.ones((2, FEATURES), np.float32)
    (concepts,) = Graph(part).run(features, ["concepts"])
    assert concepts.shape == (2, CONCEPTS)


def test_the_same_network_gives_the_same_bytes_out_of_any_file(extended):
    trunk = {"features": FEATURES, "concepts": CONCEPTS}
    assert cut(extended, trunk) == cut(backbone_bytes(), trunk)


def test_metadata_is_replaced_and_the_network_stays(extended):
    described = with_metadata(extended, {"catordog": "é\n{}", "more": ""})
    assert metadata_of(described) == {"catordog": "é\n{}", "more": ""}
    assert onnx.load_from_string(described).graph == onnx.load_from_string(extended).graph
    assert metadata_of(extended) == {}


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07", backbone_bytes()[:500]])
def test_what_is_no_onnx_model_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"message|model|number|wire type|field"):
        cut(data, {"features": FEATURES})


def test_a_value_that_the_network_lacks_is_named():
    with pytest.raises(ValueError, match="'mid'"):
        cut(backbone_bytes(), {"mid": 4})


values = st.one_of(
    st.tuples(st.integers(1, 2**29 - 1), st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(BYTES), st.binary(max_size=200)),
    st.tuples(st.integers(1, 40), st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    st.tuples(st.integers(1, 40), st.just(FIXED32), st.binary(min_size=4, max_size=4)),
)


slow_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow_machine
@given(st.lists(values, max_size=8))
def test_every_field_survives_reading_and_writing(fields):
    assert parse(serialise(fields)) == fields


@slow_machine
@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_value_error(data):
    try:
        fields = parse(data)
    except ValueError:
        return
    assert parse(serialise(fields)) == fields
