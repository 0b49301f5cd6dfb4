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
from PIL import Image, ImageCms, ImageOps

import catordog
from catordog.errors import CatordogError, PhotoError
from catordog.model.classifier import Classifier
from catordog.photos.photo import Photo
from catordog.photos.synthetic import draw
from conftest import jpeg, save


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


MODES = [
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"),
    *("CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"),
]


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The picture in a colour mode of Pillow."""
    if mode == "LAB":
        profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
        return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in {"P", "PA"}:  # its own 256 colours, as files have them; the default ones are coarse
        return image.quantize(256).convert(mode)
    between = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    return (image.convert(between) if between else image).convert(mode)


class TestAnyKindOfImage:
    @pytest.mark.parametrize("mode", MODES)
    def test_an_image_of_any_mode_has_the_label_of_the_photo(self, classifier, mode):
        images = [in_mode(picture(index), mode) for index in range(8)]
        assert all(image.mode == mode for image in images)
        grey = len(images[0].getbands()) < 3 and mode not in {"P", "PA"}
        expected = [picture(i).convert("L" if grey else "RGB") for i in range(8)]
        wanted = classifier.logits(expected)
        found = classifier.logits(images)
        if mode != "1":  # black and white are not enough to recognise an animal
            assert (found.argmax(1) == wanted.argmax(1)).all()
        assert np.isfinite(found).all()

    @pytest.mark.parametrize(
        "change",
        {
            "float 0…255": lambda x: x.astype(np.float32),
            "double 0…255": lambda x: x.astype(np.float64),
            "half 0…1": lambda x: (x / 255).astype(np.float16),
            "float 0…1": lambda x: (x / 255).astype(np.float32),
            "float 0…1, one pixel at 1.5": lambda x: one_bright_pixel(x / 255),
            "int32": lambda x: x.astype(np.int32),
            "int64": lambda x: x.astype(np.int64),
            "uint16 0…255": lambda x: x.astype(np.uint16),
            "uint16 0…65535": lambda x: x.astype(np.uint16) * 257,
            "uint16 of 12 bits": lambda x: x.astype(np.uint16) << 4,
            "float 0…65535": lambda x: x.astype(np.float32) * 257,
            "opaque": lambda x: np.dstack([x, np.full(x.shape[:2], 255, np.uint8)]),
            "channels first": lambda x: np.moveaxis(x, 2, 0),
            "not contiguous": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
            "big-endian": lambda x: x.astype(">u2"),
            "tensor": lambda x: torch.from_numpy(x.copy()).permute(2, 0, 1),
            "tensor 0…1": lambda x: torch.from_numpy(x / 255.0).permute(2, 0, 1),
            "tensor of bfloat16": lambda x: torch.from_numpy(x / 255.0).permute(2, 0, 1).bfloat16(),
            "tensor with a gradient": lambda x: torch.tensor(x / 255.0, requires_grad=True),
        }.items(),
        ids=lambda item: item[0],
    )
    def test_an_array_of_any_type_shows_the_same_photo(self, classifier, change):
        wanted = classifier.logits([picture(index) for index in range(4)])
        found = classifier.logits([change[1](np.asarray(picture(i))) for i in range(4)])
        assert np.abs(found - wanted).max() < 0.15 * np.abs(wanted).max()
        assert (found.argmax(1) == wanted.argmax(1)).all()

    @pytest.mark.parametrize("shape", [(64, 64), (64, 64, 1), (1, 64, 64)])
    @pytest.mark.parametrize("scale", [1, 1 / 255])
    def test_a_grey_array_shows_the_grey_photo(self, classifier, shape, scale):
        grey = picture(0).convert("L")
        array = np.asarray(grey).reshape(shape)
        array = array if scale == 1 else array * scale
        assert np.allclose(classifier.logits(array), classifier.logits(grey), atol=0.05)

    def test_an_array_of_four_dimensions_is_a_batch(self, classifier):
        images = [picture(index) for index in range(3)]
        wanted = classifier.logits(images)
        batch = np.stack([np.asarray(image) for image in images])
        assert np.array_equal(classifier.logits(batch), wanted)
        tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
        assert np.array_equal(classifier.logits(tensor), wanted)
        assert len(classifier.predict(batch)) == len(list(classifier.predictions(tensor))) == 3

    def test_an_array_of_paths_is_several_photos(self, classifier, tmp_path):
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert classifier.logits(np.array([str(tmp_path / "a.jpg")] * 2)).shape == (2, 2)

    @pytest.mark.parametrize("form", [bytearray, memoryview])
    def test_bytes_may_be_any_buffer(self, classifier, form):
        assert classifier.predict(form(jpeg(0))).label == "cat"

    @pytest.mark.parametrize("nothing", [[], (), np.empty((0, 8, 8, 3), np.uint8), iter([])])
    def test_no_photos_give_no_rows(self, classifier, nothing):
        assert classifier.logits(nothing).shape == (0, 2)


def one_bright_pixel(array: np.ndarray) -> np.ndarray:
    """The array with one pixel above its range."""
    result = array.copy()
    result[0, 0] = 1.5
    return result


NO_PHOTOS = [
    (None, "None is no photo: give a path"),
    (7, "a value of type int is no photo"),
    ([None], "None is no photo"),
    ([["a.jpg"]], "a value of type list is no photo"),
    (b"", "empty file"),
    ("", "No such file|not a file|a folder|directory"),
    (io.StringIO("text"), "open it in binary mode"),
    (np.empty((0, 4, 3), np.uint8), "no photo"),
    (np.zeros(12), r"float64 \[12\] is no photo"),
    (np.zeros((6, 4, 5)), r"\[6, 4, 5\] is no photo"),
    (np.zeros((4, 4, 3), complex), "complex128"),
    (np.zeros((1, 2, 4, 4, 3)), "no photo"),
    (torch.zeros(5, 5, 5), r"\[5, 5, 5\] is no photo"),
    (Image.new("RGB", (0, 5)), "without pixels"),
]


@pytest.mark.parametrize(("value", "words"), NO_PHOTOS, ids=[repr(row[1]) for row in NO_PHOTOS])
def test_a_value_that_is_no_photo_is_refused_in_words(classifier, value, words):
    for method in (classifier.logits, classifier.predict):
        with pytest.raises(CatordogError, match=words) as caught:
            method(value)
        assert "\n" not in str(caught.value)


def test_a_value_that_is_no_photo_costs_a_stream_only_itself(classifier):
    found = list(classifier.predictions([picture(0), None, np.zeros(3), picture(1)]))
    assert [isinstance(each, PhotoError) for each in found] == [False, True, True, False]


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


@pytest.mark.slow
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


def test_an_unreadable_file_or_image_is_refused(classifier, tmp_path):
    with pytest.raises(PhotoError, match="No such file"):
        classifier.logits(tmp_path / "missing.jpg")
    (tmp_path / "cut.png").write_bytes(save(picture(0), "PNG")[:3000])
    with pytest.raises(PhotoError, match=r"image: .*truncated"):
        classifier.logits(Image.open(tmp_path / "cut.png"))


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
        ("damaged", "preprocess.size"),
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
    both = Classifier(classifier.backend, replace(classifier.model, tta_flip=True))
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


def test_a_photo_is_decoded_once_for_its_logits_and_its_picture(classifier, monkeypatch):
    read, decoded = Photo.image, []
    monkeypatch.setattr(Photo, "image", lambda *args: decoded.append(args) or read(*args))
    prediction = classifier.predict(jpeg(1, size=300))
    assert len(decoded) == 1
    assert Image.open(io.BytesIO(prediction.picture)).size == (150, 150)


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
