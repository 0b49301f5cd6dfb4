"""`--ckpt_path`: a run resumes with the settings of its checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import catordog
from catordog.cli import main
from catordog.training.runs import newest_run

RUN = Path("runs/pets/version_0")
LAST = RUN / "checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a run whose settings are all unusual."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code = main(
            ["train", "--data", "drawn:n=100,size=32", "--data.size", "32", "--name", "pets",
             "--data.batch_size", "16", "--data.resize", "crop", "--model.optimizer", "adamw",
             "--model.network_args", "{widths: [8, 16], blocks: [1, 1]}", "--model.lr", "0.01",
             "--trainer.callbacks+", "catordog.training.callbacks.MovingAverage",
             "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs",
             "--trainer.max_epochs", "1", "--seed_everything", "5"]
        )  # fmt: skip
    assert code == 0
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, finished):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


def settings(capsys, *words: str) -> dict:
    assert main(["train", *words, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("words", [["--ckpt_path", str(LAST)], ["--name=pets", "--ckpt_path=last"]])
def test_without_config_and_data_every_setting_is_the_checkpoints(capsys, words):
    was = yaml.safe_load((RUN / "config.yaml").read_text())
    now = settings(capsys, *words)
    for name in ("model", "data", "seed_everything", "name"):
        assert now[name] == was[name]
    assert now["trainer"]["callbacks"] == was["trainer"]["callbacks"]
    assert now["trainer"]["logger"] is None  # configs may not name one


def test_with_data_alone_the_other_settings_are_the_checkpoints(capsys):
    now = settings(capsys, "--data", "drawn:n=120", "--ckpt_path", str(LAST))
    assert now["data"]["source"] == "drawn:n=120"
    assert (now["data"]["size"], now["data"]["resize"]) == (32, "crop")
    assert now["model"]["network_args"] == {"widths": [8, 16], "blocks": [1, 1]}
    assert (now["model"]["optimizer"], now["seed_everything"]) == ("adamw", 5)


def test_a_config_with_some_settings_gets_those_of_network_and_data_from_the_checkpoint(capsys):
    Path("more.yaml").write_text("{trainer: {max_epochs: 7}, data: {batch_size: 8}}")
    now = settings(capsys, "--config", "more.yaml", "--ckpt_path", str(LAST))
    assert (now["data"]["size"], now["data"]["batch_size"]) == (32, 8)
    assert now["data"]["source"] == "drawn:n=100,size=32"
    assert now["trainer"]["max_epochs"] == 7


def test_the_run_resumes_in_its_own_folder():
    words = ["--ckpt_path", str(LAST), "--trainer.max_epochs", "2"]
    assert main(["train", *words]) == 0
    assert torch.load(LAST, weights_only=True)["epoch"] == 1
    assert catordog.load(LAST).model.preprocess.size == 32
    assert [path.name for path in RUN.parent.iterdir()] == ["version_0"]


def test_a_checkpoint_without_its_run_needs_data_and_has_the_other_settings_inside(capsys):
    Path("alone.ckpt").write_bytes(LAST.read_bytes())
    assert main(["train", "--ckpt_path", "alone.ckpt"]) == 2
    assert "its photos are unknown: give --data" in capsys.readouterr().err
    now = settings(capsys, "--ckpt_path", "alone.ckpt", "--data", "drawn:n=100")
    assert (now["data"]["size"], now["data"]["resize"]) == (32, "crop")
    assert now["model"]["network_args"] == {"widths": [8, 16], "blocks": [1, 1]}
    assert (now["model"]["optimizer"], now["model"]["lr"]) == ("adamw", 0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.network", "resnet18"], "was trained with model.network residual"),
        (["--model.network_args", "{widths: [8]}"], "was trained with model.network_args"),
        (["--model.optimizer", "sgd"], "was trained with model.optimizer adamw, and this run has"),
        (["--model.lr", "0.5"], "was trained with model.lr 0.01, and this run has 0.5"),
        (["--model.weight_decay", "0.3"], "was trained with model.weight_decay"),
        (["--model.other_lr", "0.5"], "was trained with model.other_lr None, and this run has 0.5"),
        (["--model.transfer.head_lr", "7"], "was trained with model.transfer.head_lr 1.0"),
        (["--trainer.max_epochs", "1", "--name", "new"], "give a higher --trainer.max_epochs"),
    ],
)
def test_settings_that_the_checkpoint_does_not_fit_are_one_line(capsys, words, message):
    assert main(["train", "--ckpt_path", str(LAST), *words]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert "unexpected" not in errors[0]


def weights_only(path: Path) -> None:
    content = torch.load(LAST, weights_only=True)
    del content["optimizer_states"]
    torch.save(content, path)


def test_what_training_cant_resume_from_is_one_line(capsys):
    Path("model.onnx").touch()
    Path("empty").mkdir()
    weights_only(Path("weights.ckpt"))
    for path, message in (
        ("model.onnx", "an .onnx file has no optimiser state"),
        ("runs", f"a folder; give its {LAST}"),
        ("empty", "a folder; there is no last.ckpt in it"),
        ("weights.ckpt", "it has weights but no optimiser state"),
        ("nowhere.ckpt", "no such file"),
    ):
        assert main(["train", "--ckpt_path", path]) == 2
        err = capsys.readouterr().err
        assert f"--ckpt_path {path}: " in err
        assert message in err
        assert len(err.splitlines()) == 1


def test_last_is_of_the_run_that_was_started_last():
    assert newest_run(RUN.parent) == RUN
