"""After training: the temperature is fitted, stored, used, and promises hold."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import catordog
from catordog.cli import main
from catordog.confidence.temperature import fit_temperature
from catordog.errors import CatordogError
from catordog.evaluation.evaluate import evaluate
from catordog.model.calibrate import calibrate
from catordog.model.checkpoint import load_checkpoint, rewrite
from catordog.photos import synthetic


@pytest.fixture
def copy(drawn_run, tmp_path):
    path = tmp_path / "copy.ckpt"
    path.write_bytes(drawn_run.checkpoint.read_bytes())
    return path


def test_training_ends_with_a_calibrated_model(drawn_run):
    model = load_checkpoint(drawn_run.checkpoint).model
    said = re.search(
        r"calibrated on ([\d,]+) validation photos \([\d.]+% right\): "
        r"temperature ([\d.]+), loss ([\d.]+) before and ([\d.]+) after",
        drawn_run.ended.err,
    )
    assert said is not None, drawn_run.ended.err
    assert float(said[2]) == pytest.approx(model.temperature, abs=1e-3)
    assert float(said[4]) <= float(said[3])
    assert len(model.nonconformity) == int(said[1].replace(",", ""))
    assert list(model.nonconformity) == sorted(model.nonconformity)


def test_it_is_the_best_temperature_of_the_validation_photos(drawn_run):
    result = evaluate(catordog.load(drawn_run.checkpoint), "drawn", "val")
    assert result.temperature == pytest.approx(
        fit_temperature(result.logits, result.labels), rel=1e-3
    )


def test_logits_stay_raw_and_weights_as_they_are(drawn_run, copy):
    before = load_checkpoint(drawn_run.checkpoint)
    rewrite(copy, catordog.load(copy).model)
    after = load_checkpoint(copy)
    assert after.model == before.model
    assert all(torch.equal(after.state[key], value) for key, value in before.state.items())
    picture = np.asarray(synthetic.draw(3).image)
    assert (
        catordog.load(copy).logits(picture) == catordog.load(drawn_run.checkpoint).logits(picture)
    ).all()


def test_a_model_file_can_still_go_on_training(drawn_run, copy):
    content = torch.load(copy, weights_only=True)
    assert {"optimizer_states", "lr_schedulers", "epoch", "catordog"} <= content.keys()


def test_no_photos_leave_the_file_alone(copy):
    before = copy.read_bytes()
    with pytest.raises(CatordogError, match="no validation photo"):
        calibrate(copy, [])
    assert copy.read_bytes() == before


def test_two_photos_that_are_right_make_nothing_certain(copy, capsys):
    classifier = catordog.load(copy)
    pixels = np.stack([classifier.model.preprocess.pixels(synthetic.draw(n).image) for n in (0, 1)])
    answers = classifier.logits_of_pixels(pixels).argmax(axis=1)
    model = calibrate(copy, [(pixels, answers)])
    assert 0.5 < model.temperature < 1
    assert "2 validation photos tell little" in capsys.readouterr().err


class TestErrorRate:
    def test_a_lower_one_says_not_sure_more_often(self, drawn_run, tmp_path, capsys):
        folder = tmp_path / "new"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for number in range(60):
            knob = number / 59
            image = synthetic.picture(knob, generator, 64)
            image.save(folder / f"{number:02}.png")
        unsure = []
        for rate in (0.2, 0.002):
            words = ["predict", str(folder), "--model", str(drawn_run.checkpoint)]
            words += ["--format", "jsonl", "--error-rate", str(rate)]
            assert main(words) == 0
            rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            unsure.append(sum(row["verdict"] == "not sure" for row in rows))
        assert unsure[0] <= unsure[1]
        assert unsure[1] > 0

    def test_evaluate_holds_the_promise_against_the_truth(self, drawn_run, tmp_path, capsys):
        file = tmp_path / "e.json"
        words = ["evaluate", str(drawn_run.checkpoint), "--data", "drawn", "--json", str(file)]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "with an error budget of 1.00%" in out
        found = json.loads(file.read_text())
        assert [promise["error_rate"] for promise in found["promises"]] == [0.01, 0.05]
        for promise in found["promises"]:
            low = promise["missed_ci95"][0]
            assert low <= 1.6 * promise["error_rate"]
            assert promise["answered"] + promise["not_sure"] + promise["neither"] == pytest.approx(
                1
            )
        assert found["uncalibrated"].keys() >= {"nll", "brier", "ece", "ci95"}

    def test_too_small_a_promise_is_refused_before_any_photo_is_read(self, drawn_run, capsys):
        for command in (
            ["predict", "nowhere.jpg", "--model"],
            ["evaluate", "--data", "drawn"],
        ):
            words = [*command, str(drawn_run.checkpoint), "--error-rate", "0.0001"]
            assert main(words) == 2
            err = capsys.readouterr().err
            assert "error rate" in err or "nowhere" in err

    def test_a_model_that_was_not_calibrated_says_so(self, copy, capsys, tmp_path):
        model = catordog.load(copy).model
        rewrite(copy, type(model)(**{**_fields(model), "strangeness": ()}))
        synthetic.draw(0).image.save(tmp_path / "a.png")
        words = ["predict", str(tmp_path / "a.png"), "--model", str(copy), "--error-rate", "0.1"]
        assert main(words) == 2
        assert "not calibrated" in capsys.readouterr().err

    def test_what_it_cant_tell_is_said_before_any_photo_is_read(self, copy, capsys):
        model = catordog.load(copy).model
        rewrite(copy, type(model)(**{**_fields(model), "novelty": None}))
        words = ["evaluate", str(copy), "--data", "drawn", "--neither", "nowhere"]
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.startswith("catordog: error: this model can't detect photos of no class")
        assert "50 validation photos or more" in err

    def test_both_rules_at_once_are_refused(self, drawn_run, capsys):
        words = ["predict", "a.png", "--threshold", "0.5", "--error-rate", "0.1"]
        assert main(words) == 2
        assert "give one" in capsys.readouterr().err


def _fields(model):
    return {name: getattr(model, name) for name in model.__slots__}


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan"), "many"])
def test_damaged_scores_are_refused(copy, score):
    content = torch.load(copy, weights_only=True)
    content["catordog"]["strangeness"] = [0.1, score]
    torch.save(content, copy)
    with pytest.raises(CatordogError, match="incomplete or damaged"):
        catordog.load(copy)
