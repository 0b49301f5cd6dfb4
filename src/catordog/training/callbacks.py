"""Callbacks of every run: averaged weights, a line per epoch, checkpoints and a clean stop."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import update_bn

from catordog.errors import CatordogError
from catordog.terminal import info
from catordog.training.runs import LAST
from catordog.training.transfer import Transfer

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM) + (
    (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()
)
"""What ends a run cleanly: Ctrl-C, and what schedulers send before they kill."""

_BATCHES_BETWEEN_CHECKS = 10
"""Several ranks, or a GPU, are asked only so often: each question holds up a step."""


class MovingAverage(WeightAveraging):
    """Validates and saves an exponential moving average of the weights.

    As Lightning's, but it forgets the first steps faster: after a few dozen steps, a plain average
    would mostly consist of the initial weights.

    Args:
        decay: in 0…1; the average spans about `1 / (1 - decay)` steps, and at most a tenth of
            all steps so far.
        norm_photos: before each validation, recompute the running statistics of batch norms from so
            many training photos, prepared as for prediction; 0: average those of training, which
            random crops and the size of training photos have shaped. It makes long runs with strong
            augmentation more accurate (`docs/recipes.md`).

    Raises:
        CatordogError: an argument is out of its range; or, when training starts, there are no
            photos to compute from, or `model.transfer` keeps the statistics of frozen layers.
    """

    def __init__(self, decay: float = 0.99, norm_photos: int = 0) -> None:
        if not 0 <= decay < 1:
            raise CatordogError(f"MovingAverage: decay = {decay} is not within 0…1")
        if norm_photos < 0:
            raise CatordogError(f"MovingAverage: norm_photos = {norm_photos} is below 0")
        self.norm_photos = norm_photos

        def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
            weight = min(decay, (1 + int(count)) / (10 + int(count)))
            if not averaged.is_floating_point():
                return current
            # With bf16-true or 16-true, the average stays in float32.
            return torch.lerp(current.to(averaged.dtype), averaged, weight)

        super().__init__(avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the network, and check that its statistics may be computed."""
        super().setup(trainer, pl_module, stage)
        if not self.norm_photos:
            return
        if not hasattr(_data(trainer), "views"):
            raise CatordogError("MovingAverage: norm_photos needs the photos of PhotosDataModule")
        if getattr(pl_module, "transfer", Transfer()).keeps_norms:
            raise CatordogError(
                "MovingAverage: norm_photos would replace batch-norm statistics that "
                "model.transfer keeps (head_epochs, frozen, frozen_norms): set norm_photos to 0"
            )

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the averaged weights, with statistics of their own."""
        super().on_validation_epoch_start(trainer, pl_module)
        if self.norm_photos and trainer.state.fn == "fit":
            with trainer.precision_plugin.forward_context():
                update_bn(_data(trainer).views(self.norm_photos), pl_module, pl_module.device)


class EpochLines(L.Callback):
    """A plain line per epoch, for logs and for terminals without a progress bar.

    It follows when the epoch is saved: what a line says is not lost.
    """

    def __init__(self) -> None:
        self._start = 0.0
        self._line = ""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare the line: loss and accuracy of the epoch."""
        del pl_module
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not metrics:  # the run has resumed at the end of this epoch
            return
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
        self._line = "  ".join([*parts, f"| {time.monotonic() - self._start:.0f} s"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the epoch before."""
        del trainer, pl_module
        self._print()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the last epoch."""
        del trainer, pl_module
        self._print()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Print the line of an epoch that was stopped at its end."""
        del trainer, pl_module, exception
        self._print()

    def _print(self) -> None:
        if self._line:
            info(self._line)
        self._line = ""


class LongValidationInterval(L.Callback):
    """Allows a `val_check_interval` of more batches than an epoch has: counts over all epochs."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning would refuse the interval as soon as it counts the batches, after this."""
        del pl_module, stage
        interval, data = trainer.val_check_interval, _data(trainer)
        if data is None or trainer.check_val_every_n_epoch is None or not isinstance(interval, int):
            return
        batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if interval > batches:
            trainer.check_val_every_n_epoch = None
            info(
                f"an epoch has {batches} batches: --trainer.val_check_interval {interval} counts "
                "over all epochs"
            )


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt`: after every epoch, every few minutes within one, and when stopped.

    Ctrl-C, and SIGTERM or SIGUSR1 from a scheduler, end the run between two steps, since within a
    step half of the weights may have changed already. A second signal stops at once.

    A network whose loss is not finite is never saved, and `fast_dev_run` saves nothing.

    Args:
        minutes: between two checkpoints within an epoch.
        folder: of the run's checkpoints; None: the trainer's `default_root_dir`. In a distributed
            run, all ranks take the folder of the first.
    """

    def __init__(self, minutes: float = 5.0, folder: Path | None = None) -> None:
        if minutes <= 0:
            raise CatordogError(f"--save_every {minutes}: give minutes, above 0")
        self.seconds = 60 * minutes
        self.folder = folder
        self._saved_step = -1
        self.stop_signal = 0
        self._handlers: dict[int, Any] = {}
        self._saved_at = 0.0
        self._not_finite: Tensor | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Agree on the folder."""
        del pl_module, stage
        self.folder = Path(trainer.strategy.broadcast(self.folder or trainer.default_root_dir))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle signals, in place of Lightning."""
        del pl_module
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._handlers[number] = signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.stop_signal:
            raise KeyboardInterrupt
        self.stop_signal = number
        again = "Ctrl-C again" if number == signal.SIGINT else "the same signal again"
        info(f"\nstopping after this step; {again} stops at once and loses the work since {LAST}")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is due, and stop when asked to."""
        del batch
        self._record_loss(outputs)
        if trainer.global_step == trainer.max_steps and not trainer.is_last_batch:
            self._check_finite(trainer, pl_module)
            self._save(trainer)  # so that the epoch can be resumed
            return
        single_cpu = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if not (single_cpu or batch_idx % _BATCHES_BETWEEN_CHECKS == 0):
            return
        self._check_finite(trainer, pl_module)
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # the end of the epoch saves; or there are gradients, which are not saved
        due = time.monotonic() - self._saved_at > self.seconds
        self.stop_signal = _max_over_ranks(trainer, self.stop_signal)
        if self.stop_signal or _max_over_ranks(trainer, int(due and trainer.is_global_zero)):
            self._save(trainer)
        if self.stop_signal:
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop between epochs: the end of the last one has saved."""
        del pl_module
        self.stop_signal = _max_over_ranks(trainer, self.stop_signal)
        if self.stop_signal:
            raise KeyboardInterrupt

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to validate and save a network whose loss is not finite."""
        self._check_finite(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after a validation within an epoch."""
        del pl_module
        fitting = not trainer.sanity_checking and trainer.state.fn == "fit"
        if fitting and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after every epoch, when other callbacks have seen its validation loss."""
        if trainer.global_step != self._saved_step:
            self._check_finite(trainer, pl_module)
            self._save(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        del trainer, pl_module, stage
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _save(self, trainer: L.Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(checkpoint_folder(trainer) / LAST)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _record_loss(self, outputs: Any) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else outputs
        if isinstance(loss, Tensor):  # stays on its device: reading it would wait for the GPU
            bad = ~loss.detach().isfinite()
            self._not_finite = bad if self._not_finite is None else self._not_finite | bad

    def _check_finite(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._not_finite is None or not bool(self._not_finite):
            return
        last = checkpoint_folder(trainer) / LAST
        saved = f"the last good checkpoint is {last}" if last.is_file() else "nothing was saved"
        lr = float(pl_module.hparams["lr"])
        raise CatordogError(
            f"the loss is no longer finite (epoch {trainer.current_epoch + 1}, step "
            f"{trainer.global_step}), probably because the learning rate is too high; {saved}; "
            f"train again with --model.lr {lr / 10:g}, or measure one with --find lr"
        )


def _data(trainer: L.Trainer) -> Any:
    """The data module; None: the trainer has DataLoaders alone."""
    return getattr(trainer, "datamodule", None)


def _max_over_ranks(trainer: L.Trainer, number: int) -> int:
    """The largest number of any rank; all ranks get the same answer."""
    if trainer.world_size == 1:
        return number
    tensor = torch.tensor(number, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(tensor, reduce_op="max"))


def checkpoint_folder(trainer: L.Trainer) -> Path:
    """Where this run's checkpoints are."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, LastCheckpoint) and callback.folder:
            return callback.folder
    return Path(trainer.default_root_dir)
