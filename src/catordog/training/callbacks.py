"""What happens beside the training: figures for TensorBoard, lines for people, a clean stop."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from catordog.errors import CatordogError
from catordog.terminal import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

GRID_PHOTOS = 36


class TensorBoardFigures(L.Callback):
    """The network's graph, the photos as it sees them, and the confusion matrix."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the graph once; a network that can't be traced trains all the same."""
        board = _board(trainer)
        if board is None or trainer.ckpt_path:
            return
        training = pl_module.training
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the tracer's, about shapes
                example = pl_module.example_input_array
                assert isinstance(example, torch.Tensor)
                board.add_graph(pl_module.eval(), example.to(pl_module.device))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            say(f"TensorBoard gets no graph of this network ({str(error).splitlines()[0]})")
        finally:
            pl_module.train(training)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: tuple[torch.Tensor, torch.Tensor],
        batch_idx: int,
    ) -> None:
        """Log a grid of training photos after augmentation, at the start of every epoch."""
        del pl_module, outputs
        board = _board(trainer)
        if board is None or batch_idx > 0:
            return
        from torchvision.utils import make_grid

        preprocess = trainer.datamodule.preprocess  # type: ignore[attr-defined]
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std)
        )
        photos = (batch[0][:GRID_PHOTOS].float().cpu() * std + mean).clamp(0, 1)
        grid = make_grid(photos, nrow=math.isqrt(GRID_PHOTOS))
        board.add_image("training photos", grid, trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the confusion matrix of the validation photos."""
        counts = pl_module.confusion.compute().cpu()
        pl_module.confusion.reset()
        board = _board(trainer)
        if board is not None and not trainer.sanity_checking:
            figure = confusion_figure(counts.tolist(), pl_module.classes)
            board.add_figure("confusion matrix", figure, trainer.current_epoch)


def confusion_figure(counts: list[list[int]], classes: tuple[str, ...]) -> Figure:
    """The confusion matrix as a figure: counts `[C][C]`, a row for each true class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + len(classes), 1.2 + len(classes)), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true, row in enumerate(counts):
        for said, count in enumerate(row):
            dark = shares[true][said] > 0.5
            axes.text(
                said,
                true,
                f"{count:,}\n{shares[true][said]:.1%}",
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


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
        say("  ".join([*parts, f"| {time.monotonic() - self._start:.0f} s"]))


class CleanStop(L.Callback):
    """Ctrl-C ends the run between two steps, with the last checkpoint written.

    In the middle of a step half of the weights may have moved already. A second Ctrl-C stops at
    once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for Ctrl-C."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say("\nstopping after this step; Ctrl-C again stops at once and loses the epoch")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save and stop; the last step of an epoch is followed by validation, which saves."""
        if self.asked and not trainer.is_last_batch:
            trainer.save_checkpoint(checkpoint_folder(trainer) / "last.ckpt")
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop between epochs: the validation before has saved."""
        del trainer, pl_module
        if self.asked:
            raise KeyboardInterrupt

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        del trainer, pl_module, stage
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


def checkpoint_folder(trainer: L.Trainer) -> Path:
    """Where this run's checkpoints are."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath:
            return Path(callback.dirpath)
    return Path(trainer.default_root_dir)


def _board(trainer: L.Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            writer: SummaryWriter = logger.experiment
            return writer
    return None
