"""Calibration: after training, and by `catordog calibrate` and `catordog.calibrate`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import catordog
from catordog.cli import main
from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import fit_temperature, log_loss
from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError
from catordog.evaluation.evaluate import evaluate
from catordog.model.calibrate import calibrate_on
from catordog.model.checkpoint import load_checkpoint, rewrite
from catordog.photos import synthetic
from catordog.photos.datasets import open_dataset
from conftest import named, write_folder
from model.small import FORMATS, write_checkpoint, write_model


@pytest.fixture
def copy(drawn_run, tmp_path):
    path = tmp_path / "copy.ckpt"
    path.write_bytes(drawn_run.checkpoint.read_bytes())
    return path


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A flat folder of 60 cats and dogs."""
    return write_folder(tmp_path_factory.mktemp("pets"), named(60))


@pytest.fixture(scope="module", params=FORMATS)
def original(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), request.param, temperature=3.0)


@pytest.fixture
def small(original, tmp_path):
    """A model file of each format, to be calibrated; its weights are random."""
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    return path


class TestTheCommand:
    def test_it_writes_temperature_conformal_scores_and_ood_and_keeps_logits(
        self, small, pets, capsys
    ):
        before = catordog.load(small)
        assert main(["calibrate", str(small), "--data", str(pets), "--split", "all"]) == 0
        out, err = capsys.readouterr()
        after = catordog.load(small)
        labels = np.array([photo.label for photo in open_dataset(str(pets)).photos])
        logits = after.logits([photo.path for photo in open_dataset(str(pets)).photos])
        assert (logits == before.logits([p.path for p in open_dataset(str(pets)).photos])).all()
        assert after.model.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-3)
        assert len(after.model.nonconformity) == 60
        assert after.model.ood is not None
        unchanged = {"temperature": 3.0, "nonconformity": (), "ood": None}
        assert replace(after.model, **unchanged) == before.model
        assert out == f"{small}\n"
        assert f"temperature 3.000 before and {after.model.temperature:.3f} after" in err
        assert "calibrated on 60 photos" in err
        nll = [log_loss(softmax(logits, t), labels).mean() for t in (3, after.model.temperature)]
        assert f"NLL {nll[0]:.4f} before and {nll[1]:.4f} after" in err

    def test_it_uses_validation_photos_unless_told_otherwise(self, small, pets, capsys):
        fractions = catordog.load(small).model.split_fractions
        n = len(open_dataset(str(pets)).split("val", fractions))
        assert main(["calibrate", str(small), "--data", str(pets)]) == 0
        err = capsys.readouterr().err
        assert f"calibrated on {n} validation photos" in err
        assert f"too few validation photos ({n}): treat confidence as rough" in err
        assert len(catordog.load(small).model.nonconformity) == n

    @pytest.mark.parametrize("split", ["train", "all"])
    def test_it_warns_of_training_photos(self, small, pets, split, capsys):
        assert main(["calibrate", str(small), "--data", str(pets), "--split", split]) == 0
        assert f"--split {split} includes training photos" in capsys.readouterr().err

    def test_classes_are_matched_by_name(self, small, tmp_path):
        files = {f"{name}/{i}.jpg": data for i, (name, data) in enumerate(
            (("Dogs" if name.startswith("dog") else "Cats"), data)
            for name, data in named(12).items())}  # fmt: skip
        write_folder(tmp_path / "plural", files)
        result = catordog.calibrate(small, str(tmp_path / "plural"), "all")
        assert result.n == 12
        assert result.labels.tolist() == [0] * 6 + [1] * 6

    def test_a_class_that_the_model_lacks_is_refused(self, small, tmp_path, capsys):
        files = {f"{kind}/{i}.jpg": data for i, data in enumerate(named(6).values())
                 for kind in ("cat", "fox")}  # fmt: skip
        write_folder(tmp_path / "foxes", files)
        self.refused(small, tmp_path / "foxes", "has the class 'fox'", capsys)

    def test_a_split_without_photos_is_refused(self, small, tmp_path, capsys):
        data = self.in_splits(tmp_path / "pets", "train", "val")
        self.refused(small, data, "no test photos", capsys, "--split", "test")

    def test_unreadable_photos_alone_are_refused(self, small, tmp_path, capsys):
        data = self.in_splits(tmp_path / "pets", "train", "val")
        for path in (data / "val").rglob("*.jpg"):
            path.write_bytes(b"not a photo")
        self.refused(small, data, "none of the 4 photos could be read", capsys)

    def in_splits(self, folder, *splits):
        """Four photos in each split."""
        for split in splits:
            write_folder(
                folder, {f"{split}/{name[:3]}/{name}": named(4)[name] for name in named(4)}
            )
        return folder

    def refused(self, model, data, words, capsys, *options):
        """Exit code 2, one line, and the file as it was."""
        before = model.read_bytes()
        assert main(["calibrate", str(model), "--data", str(data), *options]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert [line.startswith("catordog: error:") for line in err.splitlines()] == [True]
        assert model.read_bytes() == before

    def test_an_unreadable_photo_is_skipped_named_and_gives_exit_code_1(
        self, small, tmp_path, capsys
    ):
        write_folder(tmp_path / "pets", {**named(8), "cat.99.jpg": b"not a photo"})
        words = ["calibrate", str(small), "--data", str(tmp_path / "pets"), "--split", "all"]
        assert main(words) == 1
        err = capsys.readouterr().err
        assert "cat.99.jpg" in err
        assert "1 photo could not be read" in err
        assert len(catordog.load(small).model.nonconformity) == 8

    @pytest.mark.parametrize("name", ["gone.ckpt", "gone.onnx"])
    def test_a_missing_model_is_named(self, pets, tmp_path, name, capsys):
        assert main(["calibrate", str(tmp_path / name), "--data", str(pets)]) == 2
        assert f"{name}: no such file" in capsys.readouterr().err

    def test_the_bundled_model_is_not_changed(self, pets, capsys):
        assert main(["calibrate", "bundled", "--data", str(pets)]) == 2
        assert "give the copy" in capsys.readouterr().err


def test_python_returns_what_the_command_prints(small, pets):
    result = catordog.calibrate(small, pets, split="all")
    assert isinstance(result, catordog.Calibration)
    assert (result.n, result.logits.shape, result.failures) == (60, (60, 2), ())
    assert result.model.to_dict() == catordog.load(small).model.to_dict()
    assert result.temperature_before == 3.0
    assert result.temperature == fit_temperature(result.logits, result.labels)
    assert result.nll == log_loss(softmax(result.logits, result.temperature), result.labels).mean()
    assert result.accuracy == (result.logits.argmax(axis=1) == result.labels).mean()


def test_an_onnx_file_is_rewritten_without_the_package_onnx(original, tmp_path, monkeypatch):
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    monkeypatch.setitem(sys.modules, "onnx", None)
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    result = calibrate_on(path, [(pixels, np.array([0, 1, 0, 1]))])
    assert catordog.load(path).model.temperature == result.temperature != 3.0


def test_no_photos_are_an_error_and_the_file_is_unchanged(small):
    before = small.read_bytes()
    with pytest.raises(CatordogError, match="there are no validation photos"):
        calibrate_on(small, [])
    assert small.read_bytes() == before


def test_two_right_photos_leave_doubt(copy, capsys):
    classifier = catordog.load(copy)
    pixels = np.stack([classifier.model.preprocess.pixels(synthetic.draw(n).image) for n in (0, 1)])
    answers = classifier.logits_of_pixels(pixels).argmax(axis=1)
    result = calibrate_on(copy, [(pixels, answers)])
    assert 0.5 < result.temperature < 1
    assert "too few validation photos (2)" in capsys.readouterr().err


class TestAfterTraining:
    def test_training_ends_with_a_calibrated_model(self, drawn_run):
        model = load_checkpoint(drawn_run.checkpoint).model
        line = re.search(
            r"calibrated on ([\d,]+) validation photos \(accuracy [\d.]+ %\): temperature 1.000 "
            r"before and ([\d.]+) after, NLL ([\d.]+) before and ([\d.]+) after",
            drawn_run.ended.err,
        )
        assert line is not None, drawn_run.ended.err
        assert float(line[2]) == pytest.approx(model.temperature, abs=1e-3)
        assert float(line[4]) <= float(line[3])
        assert len(model.nonconformity) == int(line[1].replace(",", ""))
        assert list(model.nonconformity) == sorted(model.nonconformity)

    @pytest.mark.slow
    def test_the_temperature_is_the_best_one_for_the_validation_photos(self, drawn_run):
        result = evaluate(catordog.load(drawn_run.checkpoint), "drawn", "val")
        assert result.temperature == pytest.approx(
            fit_temperature(result.logits, result.labels), rel=1e-3
        )

    def test_rewriting_changes_neither_logits_nor_weights(self, drawn_run, copy):
        before = load_checkpoint(drawn_run.checkpoint)
        rewrite(copy, catordog.load(copy).model)
        after = load_checkpoint(copy)
        assert after.model == before.model
        assert all(torch.equal(after.state[key], value) for key, value in before.state.items())
        picture = np.asarray(synthetic.draw(3).image)
        original = catordog.load(drawn_run.checkpoint)
        assert (catordog.load(copy).logits(picture) == original.logits(picture)).all()

    def test_a_calibrated_checkpoint_can_be_resumed(self, copy):
        content = torch.load(copy, weights_only=True)
        assert {"optimizer_states", "lr_schedulers", "epoch", "catordog"} <= content.keys()


class TestErrorRate:
    def test_a_lower_one_gives_not_sure_more_often(self, drawn_run, tmp_path, capsys):
        model = Path(shutil.copy(drawn_run.checkpoint, tmp_path))
        catordog.calibrate(
            model, "drawn:n=300,morph=0.5,seed=3", "all"
        )  # whose labels are doubtful
        folder = tmp_path / "new"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for number in range(60):
            image = synthetic.picture(number / 59, generator, 64)
            image.save(folder / f"{number:02}.png")
        unsure = []
        for rate in (0.2, 0.01):
            words = ["predict", str(folder), "--model", str(model)]
            words += ["--format", "jsonl", "--error-rate", str(rate)]
            assert main(words) == 0
            rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            unsure.append(sum(row["verdict"] == "not sure" for row in rows))
        assert unsure[0] < unsure[1]

    @pytest.mark.slow
    def test_evaluate_compares_error_rates_with_misses(self, drawn_run, tmp_path, capsys):
        file, model = tmp_path / "e.json", tmp_path / "m.ckpt"
        model.write_bytes(drawn_run.checkpoint.read_bytes())
        # The demo's 853 validation pictures happen to be easier than others.
        assert main(["calibrate", str(model), "--data", "drawn:n=24000"]) == 0
        assert main(["evaluate", str(model), "--data", "drawn", "--json", str(file)]) == 0
        out = capsys.readouterr().out
        assert "with an error budget of 1.00 %" in out
        found = json.loads(file.read_text())
        assert [check["error_rate"] for check in found["promises"]] == [0.01, 0.05]
        for check in found["promises"]:
            outside = round(check["outside_set"] * found["n"])
            assert wilson(outside, found["n"])[0] <= 1.6 * check["error_rate"]
            assert check["missed"] == pytest.approx(check["outside_set"] + check["rejected"])
            total = check["answered"] + check["not_sure"] + check["neither"]
            assert total == pytest.approx(1)
        assert found["uncalibrated"].keys() >= {"nll", "brier", "ece", "ci95"}

    def test_a_rate_that_is_too_low_is_refused_before_any_photo_is_read(self, drawn_run, capsys):
        words = [
            "evaluate",
            str(drawn_run.checkpoint),
            "--data",
            "nowhere",
            "--error-rate",
            "0.0001",
        ]
        assert main(words) == 2
        assert "an error rate of 0.0001 is too low" in capsys.readouterr().err

    def test_a_model_that_is_not_calibrated_has_none(self, tmp_path, capsys):
        path = write_checkpoint(tmp_path / "m.ckpt")
        synthetic.draw(0).image.save(tmp_path / "a.png")
        words = ["predict", str(tmp_path / "a.png"), "--model", str(path), "--error-rate", "0.1"]
        assert main(words) == 2
        assert "calibrate it with 'catordog calibrate'" in capsys.readouterr().err

    def test_a_model_without_ood_detector_is_refused_before_any_photo_is_read(
        self, tmp_path, capsys
    ):
        path = write_checkpoint(tmp_path / "m.ckpt")
        words = ["evaluate", str(path), "--data", "drawn", "--neither", "nowhere"]
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.startswith("catordog: error: this model can't detect photos of no class")
        assert "50 validation photos or more" in err

    def test_threshold_and_error_rate_together_are_refused(self, capsys):
        words = ["predict", "a.png", "--threshold", "0.5", "--error-rate", "0.1"]
        assert main(words) == 2
        assert "give one" in capsys.readouterr().err


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan"), "many"])
def test_damaged_scores_are_refused(tmp_path, score):
    path = write_checkpoint(tmp_path / "m.ckpt")
    content = torch.load(path, weights_only=True)
    content["catordog"]["nonconformity"] = [0.1, score]
    torch.save(content, path)
    with pytest.raises(CatordogError, match="incomplete or damaged"):
        catordog.load(path)
