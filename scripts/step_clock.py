"""Lightning callbacks that time a run: its steps, and when it reached which accuracy."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import lightning as L


class StepClock(L.Callback):
    """Writes the median seconds per step to the file that the variable STEP_CLOCK names."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Record when the step ended."""
        self.times.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the median."""
        del pl_module
        steps = [
            later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)
        ]
        if trainer.is_global_zero:
            Path(os.environ["STEP_CLOCK"]).write_text(str(statistics.median(steps)))


class AccuracyClock(L.Callback):
    """Writes seconds and validation accuracy to the file that the variable ACCURACY_CLOCK names.

    One JSON list `[seconds since the start, accuracy]` per line, after each validation.
    """

    def on_fit_start(self, *_: object) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the accuracy."""
        del pl_module
        if trainer.is_global_zero:
            row = [
                time.perf_counter() - self.start,
                float(trainer.callback_metrics["val/accuracy"]),
            ]
            with Path(os.environ["ACCURACY_CLOCK"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
