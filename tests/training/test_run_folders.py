"""One folder per run, and the checkpoints that a run leaves in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

import catordog
from catordog.cli import main

TINY = [
    *("--data", "drawn:n=100,size=32", "--data.size", "32", "--data.batch_size", "16"),
    *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}", "--model.lr", "0.05"),
    *("--trainer.max_epochs", "1"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*words: object) -> None:
    assert main(["train", *TINY, *map(str, words)]) == 0


def content(file: str | Path) -> dict:
    return torch.load(file, weights_only=True)


def files(folder: str = ".") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


LOGGERS = {
    "no logger": ["--trainer.logger", "false"],
    "CSVLogger": ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"],
    "TensorBoardLogger": [
        *("--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs"),
    ],
}


@pytest.mark.parametrize("logger", LOGGERS.values(), ids=LOGGERS.keys())
def test_every_run_gets_its_own_folder_whatever_the_logger(logger):
    train(*logger)
    before = files("runs")
    train(*logger)
    train(*logger, "--name", "pets")
    for run in ("run/version_0", "run/version_1", "pets/version_0"):
        names = {path.name for path in Path("runs", run).rglob("*") if path.is_file()}
        assert {"config.yaml", "best.ckpt", "last.ckpt"} <= names
    after = files("runs")
    assert {name: after[name] for name in before} == before


def test_fast_dev_run_saves_nothing_and_leaves_other_runs_alone(capsys):
    train("--trainer.logger", "false")
    before = files()
    capsys.readouterr()
    train("--trainer.fast_dev_run", "true")
    out, err = capsys.readouterr()
    assert files() == before
    assert "tried out, nothing was saved; train with:" in err
    assert "calibrated" not in err
    assert shlex.split(out)[-2:] == ["--trainer.fast_dev_run", "false"]
    assert main(shlex.split(out)[1:]) == 0
    assert Path("runs/run/version_1/checkpoints/best.ckpt").is_file()


def test_default_root_dir_holds_the_runs(capsys):
    train("--trainer.default_root_dir", "out/here")
    assert not Path("runs").exists()
    assert Path("out/here/run/version_0/checkpoints/best.ckpt").is_file()
    words = shlex.split(capsys.readouterr().out)
    assert words[2] == "out/here/run/version_0/checkpoints/best.ckpt"
    train("--trainer.default_root_dir", "out/here", "--ckpt_path", "last",
          "--trainer.max_epochs", 2)  # fmt: skip
    assert content("out/here/run/version_0/checkpoints/last.ckpt")["epoch"] == 1


def test_a_run_that_fails_before_training_leaves_no_folder(capsys):
    assert main(["train", *TINY, "--data.val", "0"]) == 2
    assert "--data.val 0 leaves no validation photos" in capsys.readouterr().err
    assert main(["train", *TINY, "--trainer.strategy", "deepspeed"]) == 2
    assert not files()


NEVER_VALIDATES = [
    ["--trainer.limit_val_batches", "0"],
    ["--trainer.check_val_every_n_epoch", "5"],
    ["--trainer.max_steps", "3"],
    ["--trainer.val_check_interval", "1000"],
]


@pytest.mark.parametrize("words", NEVER_VALIDATES, ids=lambda words: words[0])
def test_a_run_that_never_validates_keeps_its_last_weights_and_is_calibrated(capsys, words):
    train(*words)
    err = capsys.readouterr().err
    assert "the run has never validated: its last weights are kept as best.ckpt" in err
    best = Path("runs/run/version_0/checkpoints/best.ckpt")
    weights, last = content(best)["state_dict"], content(best.with_name("last.ckpt"))
    assert all(torch.equal(weights[name], value) for name, value in last["state_dict"].items())
    assert last["global_step"] > 0
    assert catordog.load(best).model.temperature != 1


def test_a_validation_interval_above_an_epoch_counts_over_all_epochs(capsys):
    train("--trainer.val_check_interval", 6, "--trainer.max_epochs", 2)
    err = capsys.readouterr().err
    assert "--trainer.val_check_interval 6 counts over all epochs" in err
    assert content("runs/run/version_0/checkpoints/best.ckpt")["global_step"] == 6


@pytest.mark.parametrize("words", [["--trainer.max_steps", "3"], ["--trainer.logger", "false"]])
def test_a_run_resumes_in_its_folder_and_repeats_no_step(words):
    train(*words)
    last = Path("runs/run/version_0/checkpoints/last.ckpt")
    assert content(last)["global_step"] == (3 if "3" in words else 4)
    train("--trainer.max_epochs", 2, "--trainer.max_steps", -1, *LOGGERS["no logger"],
          "--ckpt_path", "last")  # fmt: skip
    assert (content(last)["epoch"], content(last)["global_step"]) == (1, 8)
    assert [path.name for path in Path("runs/run").iterdir()] == ["version_0"]


def test_a_users_model_checkpoint_saves_beside_ours_in_the_runs_folder():
    train("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss")
    names = {path.name for path in Path("runs/run/version_0/checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt"} < names
    assert not Path("runs/checkpoints").exists()


@pytest.mark.parametrize("callback", ["RichProgressBar", "EarlyStopping"])
def test_a_users_callback_joins_ours_and_stdout_is_still_one_command(capsys, callback):
    monitor = ["--trainer.callbacks.monitor", "val/loss"] if callback == "EarlyStopping" else []
    train("--trainer.callbacks+", callback, *monitor, "--trainer.num_sanity_val_steps", 2)
    assert re.fullmatch(r"catordog evaluate \S+ --data \S+ --split test\n", capsys.readouterr().out)
