"""What happens beside the training: figures for TensorBoard, lines for people, a clean stop."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from torch import Tensor

from catordog.errors import CatordogError
from catordog.terminal import info
from catordog.training.runs import LAST

if TYPE_CHECKING:
    pass


class MovingAverage(WeightAveraging):
    """The weights that are kept are an exponential moving average over the last steps.

    Lightning's own, but that it forgets its first steps faster: over a few dozen steps of a small
    data set, a plain average would mostly be the weights that the network began with.

    Args:
        decay: in 0…1; the average spans about `1 / (1 - decay)` steps, and at most a tenth of
            those that there were.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise CatordogError(f"MovingAverage: decay = {decay} is not within 0…1")

        def average(kept: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
            share = min(decay, (1 + int(count)) / (10 + int(count)))
            return torch.lerp(now, kept, share) if kept.is_floating_point() else now

        super().__init__(avg_fn=average)


class EpochLines(L.Callback):
    """A plain line an epoch, for logs and for screens without a bar."""

    def __init__(self) -> None:
        self._start = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how the epoch went."""
        del pl_module
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        total = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else "?"
        parts = [f"epoch {trainer.current_epoch + 1:>3}/{total}"]
        parts += [
            f"{words} {metrics[name]:.4f}"
            for name, words in (
                ("train/loss_epoch", "train loss"),
                ("train/accuracy", "accuracy"),
                ("val/loss", "| val loss"),
                ("val/accuracy", "accuracy"),
            )
            if name in metrics
        ]
        info("  ".join([*parts, f"| {time.monotonic() - self._start:.0f} s"]))


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: after every epoch, every few minutes within one, and when it is stopped.

    Ctrl-C, and SIGTERM or SIGUSR1 from a scheduler, end the run between two steps: in the middle
    of a step half of the weights may have moved already. A second one stops at once.

    No checkpoint is written of a network whose loss is no longer a number.

    Args:
        minutes: between two checkpoints within an epoch.
    """

    def __init__(self, minutes: float = 5.0) -> None:
        if minutes <= 0:
            raise CatordogError(f"--save_every {minutes}: give minutes, above 0")
        self.seconds = 60 * minutes
        self.asked = 0
        self._before: dict[int, Any] = {}
        self._saved_at = 0.0
        self._bad: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals, in place of Lightning."""
        del trainer, pl_module
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number
        again = "Ctrl-C again" if number == signal.SIGINT else "the same signal again"
        info(f"\nstopping after this step; {again} stops at once and loses what came after {LAST}")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is time to, and stop where somebody asked for it."""
        del batch
        self._note(outputs)
        at_once = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if not (at_once or batch_idx % _BATCHES_BETWEEN_TALKS == 0):
            return  # asking other ranks, or a GPU, would hold every step up
        self._check(trainer, pl_module)
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # validation follows, and saves; or gradients wait that no checkpoint holds
        due = time.monotonic() - self._saved_at > self.seconds
        self.asked = _highest(trainer, self.asked)
        if self.asked or _highest(trainer, int(due and trainer.is_global_zero)):
            self._save(trainer)
        if self.asked:
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop between epochs: the validation before has saved."""
        del pl_module
        self.asked = _highest(trainer, self.asked)
        if self.asked:
            raise KeyboardInterrupt

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make sure that what is about to be measured, and kept, are numbers."""
        self._check(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after every epoch."""
        del pl_module
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._save(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        del trainer, pl_module, stage
        while self._before:
            signal.signal(*self._before.popitem())

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(checkpoint_folder(trainer) / LAST)
        self._saved_at = time.monotonic()

    def _note(self, outputs: Any) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else outputs
        if isinstance(loss, Tensor):
            bad = ~loss.detach().isfinite()
            self._bad = bad if self._bad is None else self._bad | bad

    def _check(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bad is None or not bool(self._bad):
            return
        last = checkpoint_folder(trainer) / LAST
        kept = f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint was kept"
        lr = float(pl_module.hparams["lr"])
        raise CatordogError(
            f"the loss is no longer a number (epoch {trainer.current_epoch + 1}, step "
            f"{trainer.global_step}): most likely the learning rate is too high; {kept}; train "
            f"again with --model.lr {lr / 10:g}, or let --find lr measure one"
        )


STOPS = (signal.SIGINT, signal.SIGTERM) + ((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ())
"""What ends a run cleanly: Ctrl-C, and what schedulers send before they kill."""

_BATCHES_BETWEEN_TALKS = 10


def _highest(trainer: L.Trainer, number: int) -> int:
    """The highest number that any of the processes says; all of them get the same answer."""
    if trainer.world_size == 1:
        return number
    said = torch.tensor(number, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(said, reduce_op="max"))


def checkpoint_folder(trainer: L.Trainer) -> Path:
    """Where this run's checkpoints are."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath:
            return Path(callback.dirpath)
    return Path(trainer.default_root_dir)
