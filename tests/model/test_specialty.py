"""What a backbone knows best: sets of it reject everything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import catordog
from catordog.cli import main
from catordog.confidence.ood_output import fit_output
from catordog.confidence.specialty import Specialty
from catordog.model.backbone import Backbone
from catordog.model.feature_cache import features_of
from catordog.model.knowledge import SPECIALTY_KEY, Knowledge
from catordog.model.onnx_graph import with_metadata
from catordog.model.teaching_photos import find_photos
from catordog.photos.decode import DEFAULT_RULES
from catordog.report.teach_text import teach_text
from conftest import save, write_folder
from model.tiny_backbone import FEATURES, colours, specialty_of, write_backbone

WHITE = Image.new("RGB", (40, 32), (255, 255, 255))


@pytest.fixture
def backbone(tmp_path):
    return write_backbone(tmp_path)


@pytest.fixture
def data(tmp_path):
    return colours(tmp_path / "colours", red=12, green=12)


@pytest.fixture
def expert(backbone, data, tmp_path):
    """The backbone, with a specialty: red and green against whatever is as bright as white."""
    trunk = Backbone.read(backbone)
    photos = find_photos(data, DEFAULT_RULES).photos
    own = features_of(photos, trunk, DEFAULT_RULES)[0]["features"].astype(np.float32)
    white = trunk.features(trunk.preprocess.pixels(WHITE)[None])
    weight = (white - own.mean(axis=0)).T
    bias = 1 - (own @ weight).min(axis=0)
    raw = own @ weight + bias
    assert (white @ weight + bias).item() > 1.2 * raw.max()
    ranks = fit_output(np.linspace(raw.min(), 1.1 * raw.max(), 200))
    specialty = Specialty("colours", weight, bias, np.ones(1, np.float32), ranks)
    file = tmp_path / "expert.onnx"
    metadata = Knowledge(specialty=specialty).to_metadata()
    file.write_bytes(with_metadata(backbone.read_bytes(), metadata))
    return file


def test_a_file_keeps_the_scores():
    specialty = specialty_of(30, units=4)
    again = Specialty.from_dict(json.loads(json.dumps(specialty.to_dict())))
    assert Specialty.from_dict(again.to_dict()) == again
    features = np.random.default_rng(1).normal(size=(50, 30)).astype(np.float32)
    assert np.allclose(again.raw(features), specialty.raw(features), atol=0.3)
    assert 0 <= again.scores(features).min() <= again.scores(features).max() <= 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight", ""), ("weight", "AAAA"), ("weight", "?"), ("steps", [1.0]), ("bias", []),
        ("output", [float("nan")] * 4), ("quantiles", [0.0]), ("steps", [[1.0] * 4]),
        ("name", 3), ("name", "a\nb"), ("name", "a" * 61),
    ],
)  # fmt: skip
def test_a_damaged_specialty_is_refused(key, value):
    values = specialty_of(30, units=4).to_dict() | {key: value}
    with pytest.raises(ValueError, match=r"specialty|base64|ood\.|padding|broadcast|shape"):
        Specialty.from_dict(values)


def test_a_model_of_what_the_backbone_knows_best_rejects_everything_else(data, expert, tmp_path):
    taught = catordog.teach(data, backbone=expert)
    file = tmp_path / "m.onnx"
    taught.save(file)
    assert "photos of anything but colours are called 'neither'" in teach_text(taught)
    assert Backbone.read(file).knowledge == Backbone.read(expert).knowledge
    for model in (
        taught,
        catordog.load(file),
        catordog.teach(None, add_to=file),
        catordog.teach(None, add_to=file, forget=True),
    ):
        assert model.predict(WHITE).ood_score == 1
    catordog.calibrate(file, data, "all")
    assert catordog.load(file).predict(WHITE).ood_score == 1
    own = [
        prediction.verdict for prediction in catordog.load(file).predictions(
            sorted(data.rglob("*.png"))
        )
    ]  # fmt: skip
    assert own.count("neither") <= 2


def test_where_it_knows_one_class_less_well_it_has_no_say(data, expert):
    bright = (Image.new("RGB", (40, 32), (255, 255, 250 - number)) for number in range(5))
    write_folder(data / "white", {f"{i}.png": save(image, "PNG") for i, image in enumerate(bright)})
    taught = catordog.teach(data, backbone=expert)
    assert taught.classifier.model.ood.specialty is None
    assert taught.predict(Image.new("RGB", (40, 32), (255, 255, 249))).verdict != "neither"


@pytest.mark.parametrize(("strangers", "covered"), [(0, True), (1, True), (2, False)])
def test_one_in_ten_photos_of_a_class_may_be_strange(strangers, covered):
    raw = np.r_[np.zeros(10 - strangers), np.full(strangers, 5.0), np.zeros(90)]
    one = np.ones(1, np.float32)
    specialty = Specialty("ones", one[:, None], 0 * one, one, fit_output(np.linspace(0, 1, 200)))
    labels = np.r_[np.zeros(10, int), np.ones(90, int)]
    assert specialty.covers(raw[:, None].astype(np.float32), labels) is covered


def test_damaged_metadata_are_refused(data, backbone, tmp_path, capsys):
    file = tmp_path / "damaged.onnx"
    for text, reason in (
        ("{}", "is damaged"),
        ("[]", "is damaged"),
        ("no JSON", "is damaged"),
        (json.dumps(specialty_of(5).to_dict()), f"takes 5 features, not {FEATURES}"),
    ):
        file.write_bytes(with_metadata(backbone.read_bytes(), {SPECIALTY_KEY: text}))
        assert main(["teach", str(data), "--backbone", str(file)]) == 2
        assert f"is no general backbone: catordog.specialty {reason}" in capsys.readouterr().err


def test_the_included_backbone_knows_cats_and_dogs_best():
    specialty = Backbone.read().knowledge.specialty
    assert (specialty.name, specialty.width) == ("cats and dogs", 1280)
