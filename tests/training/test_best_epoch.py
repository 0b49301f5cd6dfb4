"""The best epoch is known to a resumed run, too."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from catordog.training.callbacks import LastCheckpoint
from catordog.training.lightning_cli import TrainCLI


class OfEpochs(L.LightningModule):
    """Its validation loss is given for each epoch."""

    losses = (0.5, 0.1, 0.3, 0.4)

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"lr": 0.1})
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.losses[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class KillInThirdEpoch(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 1):
            raise RuntimeError("killed")


def test_a_resumed_run_knows_the_best_epoch_and_early_stopping_goes_on(tmp_path):
    data = DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2)

    def fit(*more: L.Callback, resume: Path | None = None) -> L.Trainer:
        best = ModelCheckpoint(tmp_path, "best", monitor="val/loss", enable_version_counter=False)
        callbacks = [EarlyStopping("val/loss", patience=2), best, LastCheckpoint(5, tmp_path)]
        trainer = L.Trainer(
            max_epochs=4, accelerator="cpu", logger=False, num_sanity_val_steps=0,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
            callbacks=[*callbacks, *more],
        )  # fmt: skip
        trainer.fit(OfEpochs(), data, data, ckpt_path=resume, weights_only=True)
        return trainer

    with pytest.raises(RuntimeError, match="killed"):
        fit(KillInThirdEpoch())
    trainer = fit(resume=tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1
    assert trainer.current_epoch == 4
    assert trainer.early_stopping_callback.wait_count == 2


def test_the_best_checkpoint_is_updated_before_the_last_one_is_written():
    """Else the last one would not know the loss of its own epoch."""
    kinds = [type(each) for each in TrainCLI._callbacks(_cli(), [])]
    assert kinds.index(ModelCheckpoint) < kinds.index(LastCheckpoint)


def _cli() -> Any:
    trainer = types.SimpleNamespace(logger=False)
    config = types.SimpleNamespace(save_every=5, trainer=trainer)
    return types.SimpleNamespace(run_folder=None, config=config)
