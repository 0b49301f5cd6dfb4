"""`catordog compare`: how models differ, and which differences are significant."""

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
from catordog.report.shown import SHOWN_ON_PAGE
from conftest import jpeg, write_folder

DATA = "drawn:n=2500,seed=4,morph=0.4"


@pytest.fixture
def overconfident(drawn_run, tmp_path):
    """The same weights, and so the same predictions, at a fifth of the temperature."""
    path = tmp_path / "overconfident.ckpt"
    path.write_bytes(drawn_run.checkpoint.read_bytes())
    model = catordog.load(path).model
    rewrite(path, replace(model, temperature=model.temperature / 5))
    return path


@pytest.fixture(scope="module")
def weaker(drawn_run, tmp_path_factory):
    """A network trained for one epoch of few pictures."""
    folder = tmp_path_factory.mktemp("weaker")
    words = ["train", "--config", "drawn.yaml", "--trainer.max_epochs", "1"]
    words += ["--data", "drawn:n=1200"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(words) == 0
    return folder / "runs/drawn/version_0/checkpoints/best.ckpt"


@pytest.mark.slow
def test_models_that_differ_in_temperature_differ_in_loss_and_calibration_only(
    drawn_run, overconfident
):
    result = compare([str(drawn_run.checkpoint), str(overconfident)], DATA)
    (pair,) = result.pairs
    assert pair.accuracy_difference == 0
    assert pair.mcnemar_p == 1
    assert not pair.accuracies_differ
    assert pair.losses_differ
    assert pair.nll_ci95[0] > 0  # the overconfident one's loss is higher
    assert pair.calibrations_differ
    assert pair.ece_ci95[0] > 0
    assert result.disagreements == []


@pytest.mark.slow
def test_a_better_network_is_named_with_its_evidence(drawn_run, weaker, capsys, tmp_path):
    file, page = tmp_path / "c.json", tmp_path / "c.html"
    words = [
        "compare",
        str(weaker),
        str(drawn_run.checkpoint),
        "--data",
        "drawn:n=2500,seed=4,morph=0.1",
    ]
    assert main([*words, "--json", str(file), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "B is more accurate" in out
    assert "B has the lower loss" in out
    found = json.loads(file.read_text())
    assert found.keys() >= {"n", "models", "mcnemar_p", "disagreements"}
    assert [each["model"] for each in found["models"]] == [str(weaker), str(drawn_run.checkpoint)]
    (pair,) = found["pairs"]
    assert found["mcnemar_p"] == pair["mcnemar_p"] < 0.001
    gain = (pair["only_second"] - pair["only_first"]) / found["n"]
    assert pair["accuracy_difference"] == pytest.approx(gain)
    assert pair["accuracy_ci95"][0] < gain < pair["accuracy_ci95"][1]
    discordant = pair["only_first"] + pair["only_second"]
    assert len(found["disagreements"]) == discordant  # of two classes, one of two is right
    for each in found["disagreements"]:
        assert each["label"] in each["said"]
    text = page.read_text("utf-8")
    assert text.count("<img") == min(SHOWN_ON_PAGE, discordant)
    assert "B is more accurate" in text


@pytest.mark.slow
def test_mcnemars_test_is_the_exact_one(drawn_run, weaker):
    from scipy.stats import binom

    (pair,) = compare([str(weaker), str(drawn_run.checkpoint)], DATA).pairs
    fewer = min(pair.only_first, pair.only_second)
    assert pair.mcnemar_p == pytest.approx(min(1, 2 * binom.cdf(fewer, pair.discordant, 0.5)))


@pytest.mark.slow
def test_three_models_make_three_pairs(drawn_run, overconfident, weaker):
    result = compare([str(drawn_run.checkpoint), str(overconfident), str(weaker)], DATA)
    assert [(pair.first, pair.second) for pair in result.pairs] == [(0, 1), (0, 2), (1, 2)]
    highest = [max(one.confidence[index] for one in result.results)
               for index in result.disagreements]  # fmt: skip
    assert np.all(np.diff(highest) <= 1e-12)


def test_unreadable_photos_are_named_and_left_out(drawn_run, overconfident, tmp_path, capsys):
    files = {f"{'cat' if i % 2 == 0 else 'dog'}/{i}.jpg": jpeg(i) for i in range(20)}
    pets = write_folder(tmp_path / "pets", {**files, "cat/broken.jpg": jpeg(0)[:99]})
    words = ["compare", str(drawn_run.checkpoint), str(overconfident), "--data", str(pets)]
    assert main([*words, "--split", "all"]) == 1
    out, err = capsys.readouterr()
    assert "20 photos" in out
    assert "broken.jpg" in err


@pytest.mark.slow
def test_classifiers_can_be_compared_as_well_as_paths(drawn_run, overconfident):
    models = [str(drawn_run.checkpoint), str(overconfident)]
    data = "drawn:n=200,seed=4"
    loaded = compare([catordog.load(model) for model in models], data, "all")
    assert loaded.pairs == compare(models, data, "all").pairs


def test_models_that_cant_be_compared_are_refused(drawn_run, tmp_path):
    model = str(drawn_run.checkpoint)
    with pytest.raises(CatordogError, match="two or more models, and got 1"):
        compare([model], DATA)
    other = tmp_path / "other.ckpt"
    other.write_bytes(drawn_run.checkpoint.read_bytes())
    known = catordog.load(other).model
    rewrite(other, replace(known, classes=("cat", "fox")))
    with pytest.raises(CatordogError, match="knows cat, fox"):
        compare([model, str(other)], DATA)
    rewrite(other, replace(known, split_fractions=type(known.split_fractions)(0.2, 0.3)))
    with pytest.raises(CatordogError, match="held out different photos"):
        compare([model, str(other)], DATA)
