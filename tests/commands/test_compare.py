"""`catordog compare`: what two models differ in, and what of it is chance."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import catordog
from catordog.cli import main
from catordog.errors import CatordogError
from catordog.evaluation.compare import compare
from catordog.model.checkpoint import rewrite
from conftest import jpeg, write_folder

DATA = "drawn:n=2500,seed=4,morph=0.4"


@pytest.fixture
def bolder(drawn_run, tmp_path):
    """The same weights, and so the same answers, with confidence five times as bold."""
    path = tmp_path / "bolder.ckpt"
    path.write_bytes(drawn_run.checkpoint.read_bytes())
    model = catordog.load(path).model
    rewrite(path, replace(model, temperature=model.temperature / 5))
    return path


@pytest.fixture(scope="module")
def weaker(drawn_run, tmp_path_factory):
    """A network that has seen one epoch."""
    folder = tmp_path_factory.mktemp("weaker")
    words = ["train", "--config", "drawn.yaml", "--trainer.max_epochs", "1"]
    words += ["--data", "drawn:n=3000"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(words) == 0
    return folder / "runs/drawn/version_0/checkpoints/best.ckpt"


def test_the_same_accuracy_but_another_confidence_comes_out_as_different(drawn_run, bolder):
    result = compare([str(drawn_run.checkpoint), str(bolder)], DATA)
    (pair,) = result.pairs
    assert pair.accuracy_difference == 0
    assert pair.mcnemar_p == 1
    assert not pair.accuracies_differ
    assert pair.confidences_differ
    assert pair.nll_ci95[0] > 0  # the bolder one's loss is higher
    assert result.disagreements == []


def test_a_better_network_is_told_from_a_worse_one(drawn_run, weaker, capsys, tmp_path):
    file, page = tmp_path / "c.json", tmp_path / "c.html"
    words = ["compare", str(weaker), str(drawn_run.checkpoint), "--data", DATA]
    assert main([*words, "--json", str(file), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "B is more accurate" in out
    assert "B's confidence is truer" in out
    found = json.loads(file.read_text())
    assert found.keys() >= {"n", "models", "mcnemar_p", "disagreements"}
    assert [each["model"] for each in found["models"]] == [str(weaker), str(drawn_run.checkpoint)]
    (pair,) = found["pairs"]
    assert found["mcnemar_p"] == pair["mcnemar_p"] < 0.001
    gain = (pair["only_second"] - pair["only_first"]) / found["n"]
    assert pair["accuracy_difference"] == pytest.approx(gain)
    assert pair["accuracy_ci95"][0] < gain < pair["accuracy_ci95"][1]
    torn = pair["only_first"] + pair["only_second"]
    assert len(found["disagreements"]) == torn  # of two classes, one of two is right
    for each in found["disagreements"]:
        assert each["label"] in each["said"]
    text = page.read_text("utf-8")
    assert text.count("<img") == min(48, torn)
    assert "B is more accurate" in text


def test_mcnemars_test_is_the_exact_one(drawn_run, weaker):
    from scipy.stats import binom

    (pair,) = compare([str(weaker), str(drawn_run.checkpoint)], DATA).pairs
    fewer, torn = min(pair.only_first, pair.only_second), pair.only_first + pair.only_second
    assert pair.mcnemar_p == pytest.approx(min(1, 2 * binom.cdf(fewer, torn, 0.5)))


def test_three_models_make_three_pairs(drawn_run, bolder, weaker):
    result = compare([str(drawn_run.checkpoint), str(bolder), str(weaker)], DATA)
    assert [(pair.first, pair.second) for pair in result.pairs] == [(0, 1), (0, 2), (1, 2)]
    surest = [max(one.confidences_of(x).max() for one in result.results)
              for x in result.disagreements]  # fmt: skip
    assert np.all(np.diff(surest) <= 1e-12)


def test_photos_that_cant_be_read_are_named_and_left_out(drawn_run, bolder, tmp_path, capsys):
    files = {f"{'cat' if i % 2 == 0 else 'dog'}/{i}.jpg": jpeg(i) for i in range(20)}
    pets = write_folder(tmp_path / "pets", {**files, "cat/broken.jpg": jpeg(0)[:99]})
    words = ["compare", str(drawn_run.checkpoint), str(bolder), "--data", str(pets)]
    assert main([*words, "--split", "all"]) == 1
    out, err = capsys.readouterr()
    assert "20 photos" in out
    assert "broken.jpg" in err


def test_nonsense_is_one_clear_line(drawn_run, tmp_path):
    model = str(drawn_run.checkpoint)
    with pytest.raises(CatordogError, match="two models"):
        compare([model], DATA)
    other = tmp_path / "other.ckpt"
    other.write_bytes(drawn_run.checkpoint.read_bytes())
    known = catordog.load(other).model
    rewrite(other, replace(known, classes=("cat", "fox")))
    with pytest.raises(CatordogError, match="knows cat, fox"):
        compare([model, str(other)], DATA)
    rewrite(other, replace(known, split_fractions=type(known.fractions)(0.2, 0.3)))
    with pytest.raises(CatordogError, match="other shares"):
        compare([model, str(other)], DATA)
