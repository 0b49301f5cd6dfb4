"""Photos of several classes: a model file with regional evidence names the others, too."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import catordog
from catordog.confidence.verdict import judge
from catordog.errors import CatordogError
from conftest import CATORDOG, ROOT
from model.small import write_model

onnx = pytest.importorskip("onnx")
sys.path.insert(0, str(ROOT / "scripts"))
from release import regions  # noqa: E402 - a script

CLASSES = ("cat", "dog")
LIMIT = 0.25


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("regions"), "onnx")


def layer(depth, seed=0):
    made = np.random.default_rng(seed)
    return made.normal(size=(depth, 2)).astype(np.float32), np.array([0.5, -0.5], np.float32)


def with_regions(plain, path, weight, bias):
    model = regions.add_regions(onnx.load(plain), weight, bias, limit=LIMIT)
    path.write_bytes(model.SerializeToString())
    return catordog.load(path)


@pytest.fixture
def photos(tmp_path):
    made = np.random.default_rng(1)
    for index in range(3):
        pixels = made.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return [tmp_path / f"{index}.png" for index in range(3)]


def test_regional_evidence_changes_no_logit_and_no_feature(plain, tmp_path):
    depth = catordog.load(plain).backend.shapes["features"][1]
    weight, bias = layer(depth)
    model = with_regions(plain, tmp_path / "m.onnx", weight, bias)
    inputs = np.random.default_rng(2).normal(size=(3, 3, 32, 32)).astype(np.float32)
    before = catordog.load(plain).backend.features(inputs)
    *after, found = model.backend.run(inputs, ("logits", "features", "regions"))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    maps = regions.feature_map(onnx.load(plain))
    exposed = onnx.load(plain)
    exposed.graph.output.append(onnx.helper.make_empty_tensor_value_info(maps))
    (tmp_path / "maps.onnx").write_bytes(exposed.SerializeToString())
    values = catordog.load(tmp_path / "maps.onnx").backend.run(inputs, [maps])[0]
    expected = regions.evidence(values, weight, bias) - LIMIT
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("evidence", "also"),
    [([1, 1], ("cat",)), ([-1, 1], ()), ([1, -1], ()), ([-1, -1], ()), (None, None)],
)
def test_another_class_is_named_only_beside_a_label_that_is_seen_itself(evidence, also):
    prediction = judge([0.0, 4.0], CLASSES, regions=evidence)
    assert prediction.also == also
    assert prediction.in_words() == ("dog 98 %, also cat" if also else "dog 98 %")
    plain = judge([0.0, 4.0], CLASSES)
    assert (prediction.verdict, prediction.confidences) == (plain.verdict, plain.confidences)


def test_a_photo_of_neither_names_no_other_class():
    prediction = judge([0.0, 4.0], CLASSES, regions=[1, 1], ood_score=1.0)
    assert (prediction.verdict, prediction.also) == ("neither", ())


def test_rows_have_what_the_photo_also_shows(plain, tmp_path, photos):
    depth = catordog.load(plain).backend.shapes["features"][1]
    everywhere = np.zeros((depth, 2), np.float32), np.ones(2, np.float32)
    path = tmp_path / "both.onnx"
    classifier = with_regions(plain, path, *everywhere)
    (other,) = classifier.predict(photos[0], threshold=0, accept=1).also
    ended = {
        style: subprocess.run(
            [*CATORDOG, "predict", *photos, "--model", path, "--format", style],
            capture_output=True, check=True, text=True,
        ).stdout
        for style in ("jsonl", "csv")
    }  # fmt: skip
    row = json.loads(ended["jsonl"].splitlines()[0])
    assert row["also"] == [other]
    assert other != row["label"]
    cells = next(csv.DictReader(ended["csv"].splitlines()))
    assert (cells["also"], cells["error"]) == (other, "")


def test_a_model_without_regional_evidence_predicts_as_before(plain, photos):
    classifier = catordog.load(plain)
    prediction = classifier.predict(photos[0])
    assert prediction.also is None
    assert "also" not in prediction.to_dict()
    with pytest.raises(CatordogError, match="no output 'regions'"):
        classifier.backend.run(np.zeros((1, 3, 32, 32), np.float32), ("regions",))


def test_evidence_of_other_classes_than_the_model_has_is_refused(plain, tmp_path):
    depth = catordog.load(plain).backend.shapes["features"][1]
    with pytest.raises(CatordogError, match="not the one that it describes"):
        with_regions(plain, tmp_path / "m.onnx", np.ones((depth, 3)), np.ones(3, np.float32))


def test_the_layer_finds_both_classes_where_only_a_region_shows_each():
    made = np.random.default_rng(0)
    present = made.integers(0, 2, (400, 2)).astype(np.float32)
    maps = made.normal(0, 0.3, (400, 8, 6, 6)).astype(np.float32)
    for index, (cat, dog) in enumerate(present):
        maps[index, 0, :3, :3] += 2 * cat
        maps[index, 1, 3:, 3:] += 2 * dog
    weight, bias = regions.fit(maps[:300], present[:300], epochs=60, rate=0.3)
    found = regions.evidence(maps[300:], weight, bias) > 0
    assert (found == present[300:].astype(bool)).mean() > 0.95
