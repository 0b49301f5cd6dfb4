"""The cascade: a small network answers for the photos that it is sure about."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest

import catordog
from catordog.errors import CatordogError, PhotoError
from catordog.model.bundled import BUNDLED, BUNDLED_FIRST
from catordog.model.classifier import Classifier
from catordog.model.first_stage import Bounds, FirstStage, from_json, open_first_stage, to_json
from catordog.photos.photo import Photo
from catordog.photos.synthetic import draw
from conftest import jpeg
from model.small import write_model

ALWAYS, NEVER = Bounds(32, 0.0, 1.0), Bounds(32, 1.0, 0.0)
"""For a network of 32 pixels."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A small and a large classifier with different weights, both with an ood detector."""
    path = write_model(tmp_path_factory.mktemp("stages"), "onnx")
    made = catordog.load(path)
    bundled = catordog.load(BUNDLED)
    return Classifier(made.backend, replace(made.model, ood=None)), bundled


def cascade(networks, bounds):
    small, large = networks
    return Classifier(large.backend, large.model, FirstStage(small, [bounds]))


def photos(n=6):
    return [draw(index).image for index in range(n)]


def test_photos_that_it_is_not_sure_about_get_the_large_networks_answer(networks):
    assert np.array_equal(cascade(networks, NEVER).logits(photos()), networks[1].logits(photos()))


def test_a_model_without_an_ood_detector_is_never_sure(networks):
    assert np.array_equal(cascade(networks, ALWAYS).logits(photos()), networks[1].logits(photos()))


def test_the_included_model_answers_at_the_first_look_that_is_sure_alike_in_any_batch():
    classifier = catordog.load()
    assert classifier.first_stage is not None
    together = classifier.logits(photos(40))
    alone = np.concatenate([classifier.logits(photo) for photo in photos(40)])
    assert np.abs(together - alone).max() < 1e-4
    expected = Classifier(classifier.backend, classifier.model).logits(photos(40))
    for bounds in reversed(classifier.first_stage.bounds):
        pixels = map(classifier.first_stage.preprocess(bounds).pixels, photos(40))
        for row, output in enumerate(classifier.first_stage.look([*pixels], bounds)):
            if classifier.first_stage.is_sure(output, bounds):
                expected[row] = output.logits
    assert np.abs(together - expected).max() < 1e-4


def test_a_photo_that_vanishes_before_it_is_decoded_again_is_reported(networks, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(0))
    calls = []

    def image(photo, near):
        calls.append(near)
        if len(calls) > 1:
            path.unlink(missing_ok=True)
        return photo.image(near)

    ((_, output),) = cascade(networks, NEVER).stream([Photo.from_file(path)], image)
    assert isinstance(output, PhotoError)
    assert str(path) in str(output)


def test_every_form_of_a_photo_gives_the_same_answer(tmp_path):
    classifier = catordog.load()
    data = jpeg(3)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    expected = classifier.logits(path)
    for form in (data, io.BytesIO(data), path.open("rb")):
        assert np.array_equal(classifier.logits(form), expected)


def test_the_large_network_starts_only_when_a_photo_needs_it():
    classifier = catordog.load()
    assert classifier.first_stage is not None
    for bounds, starts in ((ALWAYS, False), (NEVER, True)):
        classifier.first_stage.bounds = (replace(bounds, size=96),)
        classifier.logits(photos(2))
        assert classifier.backend.has_started is starts


def test_a_cascade_can_be_pickled():
    classifier = catordog.load()
    again = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(again.logits(photos(2)), classifier.logits(photos(2)))


def test_a_look_can_answer_for_photos_that_are_clearly_neither():
    logits = np.array([0.1, 0.0], np.float32)
    bounds = Bounds(160, 0.99, 0.9, neither=True)
    assert bounds.allow(logits, 1.0, 1.0)
    assert not bounds.allow(logits, 1.0, 0.999)
    assert not bounds.allow(logits, 1.0, None)
    assert not replace(bounds, neither=False).allow(logits, 1.0, 1.0)


def test_bounds_survive_the_file_and_are_checked():
    bounds = (Bounds(96, 0.99, 0.5), Bounds(160, 0.98, 0.6))
    assert from_json(to_json(bounds)) == bounds
    wrong = Bounds(96, 1.5, 0.0)
    for text in (to_json([wrong]), "[]"):
        with pytest.raises(ValueError, match="its range"):
            from_json(text)


def test_a_file_that_does_not_say_when_it_answers_is_no_first_stage():
    with pytest.raises(CatordogError, match="not a first stage"):
        open_first_stage(BUNDLED)


def test_the_files_of_the_package_fit_into_16_megabytes():
    assert BUNDLED.stat().st_size + BUNDLED_FIRST.stat().st_size <= 16_000_000
