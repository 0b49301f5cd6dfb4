from __future__ import annotations

import io

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
from conftest import jpeg

SIDE = 64


def picture_and_animal(index: int) -> tuple[Image.Image, np.ndarray]:
    """A drawn picture, and where on it the animal is: `bool [64, 64]`."""
    seen: list[np.ndarray] = []
    original = synthetic._Animal.draw

    def spied(self) -> None:
        before = np.array(self.pen._image)
        original(self)
        seen.append((np.array(self.pen._image) != before).any(axis=-1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic._Animal, "draw", spied)
        image = synthetic.draw(index, 31, size=SIDE).image
    return image, seen[0].reshape(SIDE, 2, SIDE, 2).any(axis=(1, 3))


def enlarged(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def classifier(drawn_run):
    return catordog.load(drawn_run.checkpoint)


def test_the_map_lies_on_the_animal(classifier):
    hits, shares = [], []
    for index in range(60):
        image, animal = picture_and_animal(index)
        explanation = explain(classifier, image)
        found = enlarged(explanation.maps[explanation.prediction.label])
        hits.append(animal.flat[found.argmax()])
        shares.append((found.clip(0) * animal).sum() / found.clip(0).sum())
    assert np.mean(hits) >= 0.95
    assert np.mean(shares) > 0.7


def test_random_weights_destroy_the_map(classifier):
    """The sanity check of Adebayo et al. (2018): what survives it would be edges, not reasons."""
    alike = []
    for index in range(20):
        torch.manual_seed(index)
        network = build_network("residual", 2, size=SIDE)
        untrained = Classifier(TorchBackend(network, SIDE), classifier.model)
        image, _ = picture_and_animal(index)
        label = classifier.predict(image).label
        maps = [explain(each, image).maps[label].ravel() for each in (classifier, untrained)]
        alike.append(np.corrcoef(*maps)[0, 1])
    assert abs(np.mean(alike)) < 0.25


def test_hiding_the_strongest_part_takes_more_from_the_logit_than_hiding_the_weakest(classifier):
    image, _ = picture_and_animal(2)
    explanation = explain(classifier, image)
    label = explanation.prediction.label
    values, whole = explanation.maps[label], explanation.prediction.logits[label]
    cell = SIDE // GRID
    logits = []
    for place in (values.argmax(), values.argmin()):
        row, column = divmod(int(place), GRID)
        box = (column * cell - 4, row * cell - 4, column * cell + 10, row * cell + 10)
        hidden = image.copy()
        hidden.paste(tuple(int(x) for x in np.asarray(image).mean(axis=(0, 1))), box)
        logits.append(float(classifier.logits(hidden)[0, classifier.classes.index(label)]))
    assert logits[0] < logits[1]
    assert logits[0] < whole


def test_the_map_is_of_what_the_network_sees():
    """However the photo got into its square: a corner of the map is a corner of that."""
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
    values[1:3] = 0  # only the rim above the photo, where there is none of it
    assert not (np.asarray(heat(photo, values, Preprocess(64, "pad"))) != 128).any()


class TestTheCommand:
    def test_it_draws_three_panels_of_any_photo(self, shared_photos, tmp_path, capsys):
        photo = shared_photos / "oxford-iiit-pet-60" / "images" / "Abyssinian_1.jpg"
        out = tmp_path / "e.png"
        assert main(["explain", str(photo), "--out", str(out)]) == 0
        said = capsys.readouterr()
        assert said.out == f"{out}\n"
        assert "cat" in said.err
        with Image.open(out) as picture:
            assert picture.format == "PNG"
            assert picture.width > 2.5 * picture.height

    def test_without_a_name_it_lies_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a b.jpg").write_bytes(jpeg(0))
        assert main(["explain", "a b.jpg"]) == 0
        assert (tmp_path / "a b-explained.png").exists()

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["gone.jpg"], "gone.jpg"),
            (["text.jpg"], "not a photo"),
            (["a.jpg", "--out", "e.gif"], "PNG"),
            (["a.jpg", "--model", "gone.ckpt"], "no such file"),
        ],
    )
    def test_wrong_usage_is_one_line(self, tmp_path, monkeypatch, capsys, words, says):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "text.jpg").write_bytes(b"a text")
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert main(["explain", *words]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert len(said.splitlines()) == 1


def test_very_long_and_very_tall_photos_can_be_drawn(classifier):
    for size in ((900, 60), (60, 900)):
        image = Image.open(io.BytesIO(jpeg(0))).convert("RGB").resize(size)
        page = draw(image, explain(classifier, image), classifier.model.preprocess)
        assert page.width < 4000
        assert page.height < 600
