"""`neither` for any model, decided by the general backbone of the included model beside it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import catordog
from catordog.cli import main
from catordog.errors import CatordogError
from catordog.model.formats import format_of
from catordog.photos.synthetic import draw
from conftest import named, write_folder
from model.small import FORMATS, write_model


@pytest.fixture(scope="module", params=FORMATS)
def original(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def calibrated(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    path = folder / original.name
    shutil.copy(original, path)
    data = write_folder(folder / "pets", named(60))
    assert main(["calibrate", str(path), "--data", str(data), "--split", "all", "--general"]) == 0
    return path


def noise(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


def test_a_network_with_random_weights_tells_its_classes_from_noise(calibrated):
    classifier = catordog.load(calibrated)
    drawn = classifier.predict([draw(index).image for index in range(10)], threshold=0)
    noisy = classifier.predict([noise(index) for index in range(10)], threshold=0)
    assert sum(prediction.verdict == "neither" for prediction in drawn) <= 2
    assert all(prediction.verdict == "neither" for prediction in noisy)


def test_raw_logits_stay_as_they_were(original, calibrated):
    images = [draw(index).image for index in range(3)]
    before, after = (catordog.load(path).logits(images) for path in (original, calibrated))
    assert np.array_equal(before, after)


def test_another_backbone_than_the_one_it_was_fitted_on_is_refused(calibrated, tmp_path):
    path = tmp_path / calibrated.name
    shutil.copy(calibrated, path)
    classifier = catordog.load(path)
    format_of(path).rewrite(path, replace(classifier.model, backbone="0123"))
    with pytest.raises(CatordogError, match="--general"):
        catordog.load(path)


def test_calibrating_without_it_goes_back_to_the_networks_own_features(calibrated, tmp_path):
    path = tmp_path / calibrated.name
    shutil.copy(calibrated, path)
    data = write_folder(tmp_path / "pets", named(60))
    assert main(["calibrate", str(path), "--data", str(data), "--split", "all"]) == 0
    assert catordog.load(path).model.backbone is None
