"""Test-time augmentation: which photos are flipped, and what becomes of their outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import catordog
from catordog.confidence.softmax import softmax
from catordog.errors import CatordogError
from catordog.model.classifier import Classifier
from catordog.model.info import ModelInfo
from catordog.model.tta import average_flip
from catordog.photos.synthetic import draw
from model.small import FORMATS, INFO, write_model

PHOTOS = [draw(index, 31, size=60 + 7 * index).image for index in range(20)]


def sides(photos):
    """Logits are the sums of the left and the right half; features are the left upper corner."""
    halves = [photos[..., :2].sum((1, 2, 3)), photos[..., 2:].sum((1, 2, 3))]
    return np.stack(halves, axis=1), photos[:, 0, :1, 0]


def three_photos():
    photos = np.zeros((3, 3, 4, 4), np.float32)
    photos[0, 0, 0, 0], photos[1, 0, 0, 0], photos[2, 0, 0, 3] = 1, 9, 2
    return photos


def test_only_photos_below_the_bound_are_flipped_and_averaged():
    ran = []
    logits, features = average_flip(
        lambda x: (ran.append(len(x)), sides(x))[1], three_photos(), 0.9
    )
    assert ran == [3, 2]  # confidences of 0.73, 0.9999 and 0.88
    assert logits.tolist() == [[0.5, 0.5], [9, 0], [1, 1]]
    assert features.tolist() == [[0.5], [9], [1]]


@pytest.mark.parametrize(("below", "ran"), [(1.0, [3, 3]), (0.5, [3]), (0.0, [3])])
def test_a_bound_of_1_flips_all_and_a_bound_that_none_is_below_costs_nothing(below, ran):
    sizes = []
    photos = three_photos() * 1e4  # confidences that round to 1
    average_flip(lambda x: (sizes.append(len(x)), sides(x))[1], photos, below)
    assert sizes == ran


def test_logits_that_are_not_finite_are_passed_on():
    photos = three_photos()
    photos[1] = np.nan
    logits, _ = average_flip(sides, photos, 0.9)
    assert np.isnan(logits[1]).all()
    assert logits[[0, 2]].tolist() == [[0.5, 0.5], [1, 1]]


@pytest.fixture(scope="module")
def bound(tmp_path_factory) -> float:
    """The median confidence of `PHOTOS` without the flip."""
    plain = catordog.load(write_model(tmp_path_factory.mktemp("plain"), "ckpt"))
    return float(np.median(softmax(plain.logits(PHOTOS)).max(axis=1)))


@pytest.mark.parametrize("form", FORMATS)
def test_a_classifier_flips_the_photos_it_is_unsure_about(tmp_path, form, bound):
    classifier = catordog.load(write_model(tmp_path, form, tta_flip=True, tta_flip_below=bound))
    assert (classifier.model.tta_flip, classifier.model.tta_flip_below) == (True, bound)
    pixels = np.stack([classifier.model.preprocess.pixels(photo) for photo in PHOTOS])

    def outputs(**fields):
        changed = Classifier(classifier.backend, replace(classifier.model, **fields))
        return changed.features_of_pixels(pixels)

    plain, always, some = outputs(tta_flip=False), outputs(tta_flip_below=1.0), outputs()
    unsure = softmax(plain[0]).max(axis=1) < bound
    assert unsure.sum() == 10
    for without, flipped, found in zip(plain, always, some, strict=True):
        assert np.allclose(found, np.where(unsure[:, None], flipped, without), atol=1e-5)
    assert np.allclose(classifier.logits_of_pixels(pixels), some[0], atol=1e-5)
    assert not np.allclose(plain[0], always[0], atol=1e-5)
    one_by_one = np.concatenate([classifier.logits(photo) for photo in PHOTOS])
    assert np.allclose(one_by_one, some[0], atol=1e-5)
    assert np.array_equal(outputs(temperature=3.0)[0], some[0])  # calibration keeps raw logits


def test_an_exported_file_flips_the_same_photos_as_its_checkpoint(tmp_path, bound):
    ours, theirs = (
        catordog.load(write_model(tmp_path, form, tta_flip=True, tta_flip_below=bound))
        for form in FORMATS
    )
    assert theirs.model.tta_flip
    assert theirs.model.tta_flip_below == ours.model.tta_flip_below == bound
    assert np.abs(ours.logits(PHOTOS) - theirs.logits(PHOTOS)).max() < 1e-4


def test_older_descriptions_flip_every_photo_and_wrong_bounds_are_refused():
    values = replace(INFO, tta_flip=True).to_dict()
    del values["tta_flip_below"]
    assert ModelInfo.from_dict(values).tta_flip_below == 1
    for wrong in (1.5, -0.1, float("nan"), "much"):
        with pytest.raises(CatordogError, match="damaged"):
            ModelInfo.from_dict({**values, "tta_flip_below": wrong})


def test_training_records_the_bound():
    from catordog.training.module import ClassifierModule

    module = ClassifierModule(["cat", "dog"], size=32, tta_flip=True, tta_flip_below=0.9)
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    assert ModelInfo.from_dict(checkpoint["catordog"]).tta_flip_below == 0.9
    with pytest.raises(CatordogError, match="tta_flip_below 2 is not within"):
        ClassifierModule(["cat", "dog"], size=32, tta_flip_below=2)
