"""MovingAverage: statistics of batch norms, from photos as prediction shows them."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import catordog
from catordog.cli import main
from catordog.errors import CatordogError
from catordog.photos.datasets import open_dataset
from catordog.photos.splits import SplitFractions
from catordog.training.callbacks import MovingAverage
from catordog.training.module import ClassifierModule
from training.test_fit import SMALL
from training.test_module import NETWORK, SIZE, photos

AVERAGE = ("--trainer.callbacks+", "catordog.training.callbacks.MovingAverage")
STRONG = ("--data.augment.brightness", "1", "--data.augment.erase", "1")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(*words: str) -> Path:
    assert main(["train", *SMALL, *AVERAGE, "--trainer.max_epochs", "2", *words]) == 0
    return max(Path("runs/run").glob("version_*")) / "checkpoints/best.ckpt"


def distance_to_predicted_photos(checkpoint: Path) -> float:
    """Of the first batch norm's means from those of training photos, in standard deviations."""
    classifier = catordog.load(checkpoint)
    train = open_dataset("drawn:n=400,size=32").split("train", SplitFractions(0.1, 0.2))
    preprocess = classifier.model.preprocess
    pixels = [preprocess.pixels(photo.image(preprocess.size)) for photo in train]
    inputs = torch.from_numpy(preprocess.normalise(np.stack(pixels)))
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    weight = state["network.stem.0.weight"]
    responses = F.conv2d(inputs, weight, stride=2, padding=1)
    means, deviations = responses.mean((0, 2, 3)), responses.std((0, 2, 3))
    return float(((means - state["network.stem.1.running_mean"]) / deviations).abs().max())


def test_training_leaves_norms_the_statistics_of_augmented_photos():
    assert distance_to_predicted_photos(trained(*STRONG)) > 0.03


@pytest.mark.parametrize(
    "more",
    [
        ("--data.size", "40"),
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--data.cache", "false"), marks=pytest.mark.slow),
    ],
)
def test_norms_have_the_statistics_of_photos_as_prediction_shows_them(more):
    renewed = trained(*STRONG, "--trainer.callbacks.norm_photos", "1000", *more)
    assert distance_to_predicted_photos(renewed) < 0.01


@pytest.mark.parametrize("transfer", ["frozen_norms=true", "frozen=0.5", "head_epochs=1"])
def test_norms_that_stay_frozen_are_not_renewed(capsys, transfer):
    words = ["--trainer.callbacks.norm_photos", "64", f"--model.transfer.{transfer}"]
    assert main(["train", *SMALL, *AVERAGE, *words]) == 2
    assert "set norm_photos to 0" in capsys.readouterr().err


def test_a_negative_number_of_norm_photos_is_refused(capsys):
    assert main(["train", *SMALL, *AVERAGE, "--trainer.callbacks.norm_photos", "-1"]) == 2
    assert "norm_photos = -1 is below 0" in capsys.readouterr().err


def test_norms_need_photos_of_a_data_module(tmp_path):
    module = ClassifierModule(["cat", "dog"], size=SIZE, network_args=NETWORK)
    trainer = L.Trainer(
        callbacks=[MovingAverage(norm_photos=8)], accelerator="cpu", logger=False,
        enable_progress_bar=False, default_root_dir=tmp_path, max_epochs=1,
    )  # fmt: skip
    with pytest.raises(CatordogError, match="needs the photos of PhotosDataModule"):
        trainer.fit(module, DataLoader(TensorDataset(*photos(16)), batch_size=8))
