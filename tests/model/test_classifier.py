"""The Classifier: photos in any form to raw logits and predictions."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import catordog
from catordog.errors import CatordogError, PhotoError
from catordog.model.backends.torch import TorchBackend
from catordog.model.classifier import Classifier
from catordog.photos.synthetic import draw
from conftest import jpeg


@pytest.fixture(scope="module")
def classifier(drawn_run):
    return catordog.load(drawn_run.checkpoint)


def picture(index: int) -> Image.Image:
    return draw(index, 555, size=64).image


def test_the_file_has_everything_that_a_classifier_needs(classifier):
    assert classifier.classes == ("cat", "dog")
    assert classifier.model.preprocess.size == 64
    assert classifier.model.network == "residual"


def test_logits_are_raw(classifier):
    logits = classifier.logits([picture(index) for index in range(40)])
    assert logits.shape == (40, 2)
    assert logits.dtype == np.float32
    assert logits.min() < 0 < logits.max()
    assert not np.allclose(np.exp(logits).sum(1), 1)


def test_every_form_of_a_photo_gives_the_same_logits(classifier, tmp_path):
    path = tmp_path / "a.png"
    picture(3).save(path)
    data, array = path.read_bytes(), np.asarray(picture(3))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [path, str(path), data, io.BytesIO(data), picture(3), array, tensor]
    rows = [classifier.logits(form)[0] for form in forms]
    assert all(np.array_equal(row, rows[0]) for row in rows)
    assert np.allclose(
        classifier.logits([path, data, picture(3), array, tensor]), rows[0], atol=1e-4
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I;16"])
def test_an_image_of_any_mode_gives_finite_logits(classifier, mode):
    image = Image.new(mode, (70, 50)) if mode == "I;16" else picture(0).convert(mode)
    assert np.isfinite(classifier.logits(image)).all()


def test_one_photo_gives_one_prediction_and_several_a_list(classifier):
    one = classifier.predict(picture(0))
    assert one.label == "cat"
    confidences = catordog.softmax(list(one.logits.values()), classifier.model.temperature)
    assert one.confidence == pytest.approx(confidences.max())
    assert [p.label for p in classifier.predict([picture(i) for i in range(4)])] == [
        "cat", "dog", "cat", "dog",
    ]  # fmt: skip
    assert classifier.predict([]) == []


class TestRules:
    def test_the_threshold_decides_what_is_not_sure(self, classifier):
        confidence = classifier.predict(picture(0), accept=1).confidence
        above, below = np.nextafter(confidence, 1), np.nextafter(confidence, 0)
        assert classifier.predict(picture(0), threshold=above, accept=1).verdict == "not sure"
        assert classifier.predict(picture(0), threshold=below, accept=1).verdict == "cat"

    def test_the_error_rate_decides_by_the_prediction_set(self, classifier):
        model = replace(classifier.model, nonconformity=tuple(np.linspace(0, 1, 99)), ood=None)
        strict = Classifier(classifier.backend, model)
        pictures = [picture(index) for index in range(12)]
        for error_rate in (0.02, 0.5):
            quantile = strict.quantile_for(error_rate)
            for prediction in strict.predict(pictures, error_rate=error_rate):
                possible = sum(1 - p <= quantile for p in prediction.confidences.values())
                expected = {0: "neither", 1: prediction.label}.get(possible, "not sure")
                assert prediction.verdict == expected

    def test_accept_decides_what_is_neither(self, classifier):
        prediction = classifier.predict(Image.new("RGB", (64, 64), "red"))
        assert prediction.ood_score > 0.5
        for accept, neither in ((0.5, True), (1, False)):
            rules = {"threshold": 0, "accept": accept}
            found = classifier.predict([Image.new("RGB", (64, 64), "red")], **rules)[0]
            assert (found.verdict == "neither") == neither

    @pytest.mark.parametrize(
        ("rules", "words"),
        [
            ({"threshold": -1}, "not a confidence"),
            ({"accept": 2}, "not a fraction"),
            ({"threshold": 0.5, "error_rate": 0.1}, "give one"),
            ({"error_rate": 1e-9}, "too low"),
        ],
    )
    def test_a_rule_out_of_its_range_is_an_error(self, classifier, rules, words):
        with pytest.raises(CatordogError, match=words):
            classifier.predict(picture(0), **rules)


def test_a_checkpoint_gives_the_same_logits_in_another_process(classifier, drawn_run, tmp_path):
    paths = []
    for index in range(8):
        paths.append(str(tmp_path / f"{index}.jpg"))
        Path(paths[-1]).write_bytes(jpeg(index, size=90))
    here = classifier.logits(paths)
    code = (
        "import catordog, json, sys; "
        "print(json.dumps(catordog.load(sys.argv[1]).logits(sys.argv[2:]).tolist()))"
    )
    words = [sys.executable, "-c", code, str(drawn_run.checkpoint), *paths]
    there = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    assert np.array_equal(here, np.array(there, np.float32))


def test_a_value_that_is_not_a_photo_is_refused(classifier, tmp_path):
    with pytest.raises(PhotoError, match="No such file"):
        classifier.logits(tmp_path / "missing.jpg")
    with pytest.raises(CatordogError, match="uint8"):
        classifier.logits(np.zeros((4, 4, 3)))


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint ran')",))


def broken(drawn_run, tmp_path: Path, name: str) -> Path:
    path = tmp_path / "model.ckpt"
    good = torch.load(drawn_run.checkpoint, weights_only=True)
    if name == "truncated":
        path.write_bytes(drawn_run.checkpoint.read_bytes()[:100_000])
        return path
    if name == "text":
        path.write_text("a model, honestly")
        return path
    if name == "evil":
        good["extra"] = Evil()
    if name == "foreign":
        del good["catordog"]
    if name == "other weights":
        good["state_dict"].pop("network.head.weight")
    if name == "newer":
        good["catordog"]["format"] = 99
    if name == "damaged":
        good["catordog"]["preprocess"]["size"] = "large"
    if name == "no temperature":
        good["catordog"]["temperature"] = 0
    torch.save(good, path)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("truncated", "not a complete checkpoint"),
        ("text", "not a complete checkpoint"),
        ("evil", "can't be read as a checkpoint"),
        ("foreign", "not written by 'catordog train'"),
        ("other weights", "don't fit its network"),
        ("newer", "format 99"),
        ("damaged", "unusable preprocessing"),
        ("no temperature", "damaged"),
    ],
)
def test_a_wrong_checkpoint_says_what_is_wrong(drawn_run, tmp_path, name, words):
    path = broken(drawn_run, tmp_path, name)
    with pytest.raises(CatordogError, match=words) as caught:
        catordog.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CatordogError, match=r"gone\.ckpt: no such file"):
        catordog.load(tmp_path / "gone.ckpt")
    with pytest.raises(CatordogError, match="a folder"):
        catordog.load(tmp_path)


def test_tta_flip_averages_logits_over_the_horizontal_flip(classifier):
    network = classifier.backend.network
    backend = TorchBackend(network, classifier.model.preprocess.size, tta_flip=True)
    both = Classifier(backend, replace(classifier.model, tta_flip=True))
    images = [picture(index) for index in range(20)]
    flipped = [ImageOps.mirror(image) for image in images]
    mean = (classifier.logits(images) + classifier.logits(flipped)) / 2
    assert np.allclose(both.logits(images), mean, atol=1e-5)
    pixels = np.stack([both.model.preprocess.pixels(image) for image in images])
    logits, features = both.features_of_pixels(pixels)
    head = network.head
    again = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert np.allclose(again, logits, atol=1e-5)


class TestManyPhotos:
    def test_they_are_predicted_in_order_and_consumed_as_needed(self, classifier):
        asked = []

        def endless():
            for index in range(10**9):
                asked.append(index)
                yield picture(index)

        found = classifier.predictions(endless())
        labels = [next(found).label for _ in range(40)]
        assert labels == [each.label for each in classifier.predict(map(picture, range(40)))]
        assert len(asked) < 500

    def test_one_photo_is_a_stream_of_one(self, classifier, tmp_path):
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        (found,) = classifier.predictions(str(tmp_path / "a.jpg"))
        assert found.label == "cat"

    def test_an_unreadable_photo_gives_its_error(self, classifier, tmp_path):
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        (tmp_path / "b.jpg").write_bytes(b"no photo")
        one, other, third = classifier.predictions(
            [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"]
        )
        assert one.label == "cat"
        assert isinstance(other, PhotoError)
        assert "not a photo" in other.reason
        assert isinstance(third, PhotoError)

    @pytest.mark.parametrize("model", ["checkpoint", "bundled"])
    def test_threads_get_their_own_predictions(self, classifier, model):
        shared = classifier if model == "checkpoint" else catordog.load()
        images = [picture(index) for index in range(24)]
        wanted = [shared.predict(image) for image in images]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                found = list(pool.map(shared.predict, images))
                assert [each.verdict for each in found] == [each.verdict for each in wanted]
                for mine, other in zip(found, wanted, strict=True):
                    assert mine.logits == pytest.approx(other.logits, abs=1e-4)
                    assert mine.ood_score == other.ood_score


def test_a_notebook_shows_the_photo_with_bars(classifier):
    shown = classifier.predict(picture(0))._repr_html_()
    assert "data:image/jpeg;base64," in shown
    assert "cat" in shown
    assert "logit" in shown
    untrusted = replace(
        classifier.predict(picture(0)), label="<script>", verdict="<script>",
        confidences={"<script>": 1.0}, logits={"<script>": 2.0},
    )  # fmt: skip
    assert "<script>" not in untrusted._repr_html_()
