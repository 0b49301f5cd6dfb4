"""A Lightning callback that measures the median time of a training step, for scaling.py."""

from __future__ import annotations

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
