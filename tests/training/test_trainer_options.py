"""Options of Lightning's Trainer: each works, or is refused in words before any work."""

from __future__ import annotations

import re
from pathlib import Path

import lightning as L
import pytest
import torch

import catordog
from catordog.cli import main
from catordog.errors import CatordogError
from catordog.training.module import ClassifierModule
from training.test_run_folders import TINY

AVERAGE = ["--trainer.callbacks+", "catordog.training.callbacks.MovingAverage"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(capsys, *words: str) -> Path:
    """The best checkpoint of a run whose stdout is one command."""
    assert main(["train", *TINY, *words]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"catordog evaluate \S+ --data \S+ --split test\n", out)
    assert "Warning" not in err
    return Path(out.split()[2])


@pytest.mark.parametrize("precision", ["64", "64-true", "16-true", "bf16-true", "bf16-mixed"])
def test_every_precision_trains_a_model_that_predicts_in_float32(capsys, precision):
    best = trained(capsys, "--trainer.precision", precision)
    logits = catordog.load(best).logits([torch.zeros(3, 40, 40, dtype=torch.uint8)])
    assert logits.dtype == "float32"
    stored = torch.load(best, weights_only=True)["state_dict"]["network.head.weight"]
    expected = {"64": torch.float64, "16": torch.float16, "bf16": torch.bfloat16}
    kind, _, mode = precision.partition("-")
    assert stored.dtype == (torch.float32 if mode == "mixed" else expected[kind])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_every_precision_goes_with_muon_whitening_and_averaged_weights(capsys, precision):
    trained(capsys, "--trainer.precision", precision, "--model.optimizer", "muon",
            "--model.whiten", "true", *AVERAGE)  # fmt: skip


def test_a_profile_is_written_into_the_runs_folder(capsys):
    best = trained(capsys, "--trainer.profiler", "simple")
    assert "training_step" in (best.parents[1] / "fit-profile.txt").read_text()


def test_the_model_summary_does_not_mix_with_the_command_on_stdout(capsys):
    trained(capsys, "--trainer.enable_model_summary", "true")


def test_max_time_ends_the_run_with_a_calibrated_model(capsys):
    best = trained(capsys, "--trainer.max_time", "00:00:00:01", "--trainer.max_epochs", "500")
    assert catordog.load(best).model.temperature != 1


REFUSED = [
    (["--trainer.accelerator", "gpu"], "--trainer.accelerator gpu: PyTorch finds no such device"),
    (["--trainer.barebones", "true"], "--trainer.barebones true leaves no model"),
    (["--trainer.enable_checkpointing", "false"], "enable_checkpointing false leaves no model"),
    (["--trainer.devices", "9999"], "--trainer.devices 9999: this machine has"),
    (["--trainer.devices", "0"], "--trainer.devices 0: give 1 or more"),
    (["--trainer.devices", "2", "--data.batch_size", "15"], "give a multiple of 2"),
    (["--trainer.max_epochs", "0"], "--trainer.max_epochs 0 trains nothing"),
    (["--trainer.max_steps", "0"], "--trainer.max_steps 0 trains nothing"),
    (["--trainer.limit_train_batches", "0"], "limit_train_batches 0 trains nothing"),
    (["--trainer.precision", "transformer-engine"], "transformer_engine, which is not installed"),
    (["--trainer.precision", "13"], "--trainer.precision 13: expected 64, 32, 16"),
    (["--trainer.strategy", "deepspeed"], "you must have DeepSpeed installed"),
    (["--model.network", "resnet18", "--model.network_args", "null", "--data.batch_size", "1"],
     "batch norm needs at least 2 photos"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cant_work_is_refused_in_words_before_any_photo_is_read(
    capsys, monkeypatch, words, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main(["train", *TINY, *words]) == 2
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("catordog: error:")]
    assert out == ""
    assert len(errors) == 1
    assert message in errors[0]
    assert "unexpected" not in errors[0]
    assert "100 photos" not in err
    assert not Path("runs").is_dir() or not any(Path("runs/run").iterdir())


def test_a_batch_of_one_photo_in_a_users_own_loop_is_explained():
    module = ClassifierModule(["cat", "dog"], size=32, network="resnet18")
    batch = [(torch.zeros(3, 32, 32), 0)]
    trainer = L.Trainer(max_steps=1, logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with pytest.raises(CatordogError, match="batch norm needs at least 2 photos"):
        trainer.fit(module, torch.utils.data.DataLoader(batch))


@pytest.mark.parametrize("seed", ["-1", "99999999999", "true", "1.5", "x"])
def test_a_seed_out_of_range_is_one_line(capsys, seed):
    assert main(["train", "--data", "drawn:n=20", "--seed_everything", seed]) == 2
    assert f"seed_everything {seed}: give a whole number" in capsys.readouterr().err
