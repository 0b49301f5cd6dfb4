"""Callbacks that tests add to runs: to see what a network sees, and to hold a run at a moment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import lightning as L


class Recorder(L.Callback):
    """Records the training photos' sizes and labels, and the class weights, of this process."""

    sizes: ClassVar[list[tuple[int, int]]] = []
    """Epoch and width of every batch."""
    labels: ClassVar[list[int]] = []
    class_weights: ClassVar[list[list[float] | None]] = []

    def on_fit_start(self, trainer, pl_module):
        self.sizes.clear()
        self.labels.clear()
        weights = pl_module.class_weights
        self.class_weights[:] = [None if weights is None else weights.tolist()]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.sizes.append((trainer.current_epoch, batch[0].shape[-1]))
        self.labels.extend(batch[1].tolist())


class Gate(L.Callback):
    """Holds a run before a batch until the file `go` is there, so that a test can act on it.

    The file `waiting` tells that the run has arrived.
    """

    def __init__(self, epoch: int = 2, batch: int = 0) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) != (self.epoch, self.batch):
            return
        Path("waiting").touch()
        end = time.monotonic() + 60
        while not Path("go").exists():
            assert time.monotonic() < end, "no file 'go' within a minute"
            time.sleep(0.01)
