"""Explanations by occlusion: the evidence lies on the animal, and heat maps on the photo."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import catordog
from catordog.cli import main
from catordog.evaluation.explain import GRID, explain
from catordog.model.backends.torch import TorchBackend
from catordog.model.classifier import Classifier
from catordog.model.networks import build_network
from catordog.photos import synthetic
from catordog.photos.preprocess import Preprocess
from catordog.report.explanation import draw, heat
from catordog.report.pictures import check_replaceable
from conftest import jpeg, picture, save

SIZE = 64


def picture_and_animal(index: int) -> tuple[Image.Image, np.ndarray]:
    """A synthetic picture, and the mask of the animal on it: `bool [64, 64]`."""
    masks: list[np.ndarray] = []
    original = synthetic._Animal.draw

    def recorded(self) -> None:
        before = np.array(self.pen._image)
        original(self)
        masks.append((np.array(self.pen._image) != before).any(axis=-1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic._Animal, "draw", recorded)
        image = synthetic.draw(index, 31, size=SIZE).image
    return image, masks[0].reshape(SIZE, 2, SIZE, 2).any(axis=(1, 3))


def enlarged(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def classifier(drawn_run):
    return catordog.load(drawn_run.checkpoint)


@pytest.mark.slow
def test_the_evidence_lies_on_the_animal(classifier):
    hits, fractions = [], []
    for index in range(60):
        image, animal = picture_and_animal(index)
        explanation = explain(classifier, image)
        found = enlarged(explanation.maps[explanation.prediction.label])
        hits.append(animal.flat[found.argmax()])
        fractions.append((found.clip(0) * animal).sum() / found.clip(0).sum())
    assert np.mean(hits) >= 0.95
    assert np.mean(fractions) > 0.7


@pytest.mark.slow
def test_random_weights_give_an_unrelated_map(classifier):
    """Sanity check of Adebayo et al. (2018): a map that survives it shows edges, not evidence."""
    alike = []
    for index in range(20):
        torch.manual_seed(index)
        network = build_network("residual", 2, classifier.model.network_args, size=SIZE)
        untrained = Classifier(TorchBackend(network, SIZE), classifier.model)
        image, _ = picture_and_animal(index)
        label = classifier.predict(image).label
        maps = [explain(each, image).maps[label].ravel() for each in (classifier, untrained)]
        alike.append(np.corrcoef(*maps)[0, 1])
    assert abs(np.mean(alike)) < 0.25


def test_hiding_the_strongest_region_lowers_the_logit_more_than_hiding_the_weakest(classifier):
    image, _ = picture_and_animal(2)
    explanation = explain(classifier, image)
    label = explanation.prediction.label
    values, unchanged = explanation.maps[label], explanation.prediction.logits[label]
    cell = SIZE // GRID
    logits = []
    for region in (values.argmax(), values.argmin()):
        row, column = divmod(int(region), GRID)
        box = (column * cell - 4, row * cell - 4, column * cell + 10, row * cell + 10)
        hidden = image.copy()
        hidden.paste(tuple(int(x) for x in np.asarray(image).mean(axis=(0, 1))), box)
        logits.append(float(classifier.logits(hidden)[0, classifier.classes.index(label)]))
    assert logits[0] < logits[1]
    assert logits[0] < unchanged


def test_the_heat_map_covers_the_part_of_the_photo_that_the_network_sees():
    """For each resize rule, a corner of the map is a corner of the network's input."""
    values = np.zeros((GRID, GRID), np.float32)
    values[:3, :3] = 1
    photo = Image.new("RGB", (400, 200), (128, 128, 128))

    def lit(resize: str) -> tuple[int, int, int, int]:
        shown = np.asarray(heat(photo, values, Preprocess(64, resize)), int)
        rows, columns = np.nonzero(np.abs(shown - 128).max(axis=-1) > 60)
        return columns.min(), columns.max(), rows.min(), rows.max()

    left, right, top, bottom = lit("squash")
    assert (left, top) == (0, 0)
    assert right == pytest.approx(100, abs=20)
    assert bottom == pytest.approx(50, abs=12)
    left, right, top, bottom = lit("crop")  # the middle 200 × 200
    assert left == pytest.approx(100, abs=2)
    assert right == pytest.approx(150, abs=12)
    values[1:3] = 0  # only the padding above the photo
    assert not (np.asarray(heat(photo, values, Preprocess(64, "pad"))) != 128).any()


class TestTheCommand:
    def test_it_draws_three_panels(self, shared_photos, tmp_path, capsys):
        photo = shared_photos / "oxford-iiit-pet-60" / "images" / "Abyssinian_1.jpg"
        out = tmp_path / "e.png"
        assert main(["explain", str(photo), "--out", str(out)]) == 0
        printed = capsys.readouterr()
        assert printed.out == f"{out}\n"
        assert "cat" in printed.err
        with Image.open(out) as picture:
            assert picture.format == "PNG"
            assert picture.width > 2.5 * picture.height

    @pytest.mark.slow
    def test_without_out_it_writes_into_the_current_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a b.jpg").write_bytes(jpeg(0))
        assert main(["explain", "a b.jpg"]) == 0
        assert (tmp_path / "a b-explained.png").exists()

    def test_the_longest_name_is_shortened(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / ("ü" * 125 + "x.jpg")).write_bytes(jpeg(0))
        assert main(["explain", "ü" * 125 + "x.jpg"]) == 0
        (written,) = tmp_path.glob("*.png")
        assert written.name == "ü" * 120 + "-explained.png"

    def test_only_an_explanation_is_replaced(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        words = ["explain", "a.jpg", "--out", "e.png"]
        assert main(words) == 0
        check_replaceable("--out", Path("e.png"), "explain")
        (tmp_path / "empty.png").write_bytes(b"")  # as a shell makes it
        check_replaceable("--out", Path("empty.png"), "explain")
        for content in (save(picture(1), "PNG"), b"a text"):
            (tmp_path / "e.png").write_bytes(content)
            capsys.readouterr()
            assert main(words) == 2
            assert "--out e.png exists" in capsys.readouterr().err
            assert (tmp_path / "e.png").read_bytes() == content

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["gone.jpg"], "gone.jpg"),
            (["text.jpg"], "not a photo"),
            (["a.jpg", "--out", "e.gif"], "PNG"),
            (["a.jpg", "--model", "gone.ckpt"], "no such file"),
        ],
    )
    def test_wrong_usage_is_one_line(self, tmp_path, monkeypatch, capsys, words, message):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "text.jpg").write_bytes(b"a text")
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert main(["explain", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


def test_very_long_and_very_tall_photos_can_be_drawn(classifier):
    for size in ((900, 60), (60, 900)):
        image = Image.open(io.BytesIO(jpeg(0))).convert("RGB").resize(size)
        page = draw(image, explain(classifier, image), classifier.model.preprocess)
        assert page.width < 4000
        assert page.height < 600


def test_a_flip_below_a_confidence_leaves_no_trace(classifier):
    """Hiding a corner may lower the confidence below it, and the flip would be averaged."""
    image = synthetic.draw(3, 31, size=SIZE).image
    backend = classifier.backend
    plain = Classifier(backend, replace(classifier.model, tta_flip=False))
    confidence = max(plain.predict(image).confidences.values())
    below = replace(classifier.model, tta_flip=True, tta_flip_below=confidence - 1e-6)
    expected, found = explain(plain, image), explain(Classifier(backend, below), image)
    for name, values in expected.maps.items():
        assert np.array_equal(values, found.maps[name])
