"""All that goes to TensorBoard: the network's graph, photos, figures, and the HParams tab."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from catordog.terminal import info

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

GRID_PHOTOS = 36


class TensorBoardFigures(L.Callback):
    """Logs the graph of a `ClassifierModule`, augmented photos, and the confusion matrix."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the graph of a new run; a network that can't be traced trains without."""
        writer = _writer(trainer)
        if writer is None or trainer.ckpt_path:
            return
        training = pl_module.training
        try:
            # The tracer prints "No graph saved" on stdout, which is for the next command.
            with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # the tracer warns of shapes that it fixes
                example = pl_module.example_input_array
                assert isinstance(example, torch.Tensor)
                writer.add_graph(pl_module.eval(), example.to(pl_module.device))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            info(f"TensorBoard: no graph of this network ({str(error).splitlines()[0]})")
        finally:
            pl_module.train(training)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: tuple[torch.Tensor, torch.Tensor],
        batch_idx: int,
    ) -> None:
        """Log a grid of augmented training photos at the start of every epoch."""
        del outputs
        writer = _writer(trainer)
        if writer is None or batch_idx > 0 or not len(batch[1]):
            return
        from torchvision.utils import make_grid

        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (pl_module.preprocess.mean, pl_module.preprocess.std)
        )
        photos = (batch[0][:GRID_PHOTOS].float().cpu() * std + mean).clamp(0, 1)
        grid = make_grid(photos, nrow=math.isqrt(GRID_PHOTOS))
        writer.add_image("training photos", grid, trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the confusion matrix of the validation photos."""
        counts = pl_module.confusion.compute().cpu()  # on all ranks: it gathers their counts
        writer = _writer(trainer)
        if writer is not None and not trainer.sanity_checking:
            figure = confusion_figure(counts.tolist(), pl_module.classes)
            writer.add_figure("confusion matrix", figure, trainer.current_epoch)


_WIDEST = 20
"""Classes whose counts a confusion matrix shows; of more, text would take seconds and gigabytes."""


def confusion_figure(counts: list[list[int]], classes: tuple[str, ...]) -> Figure:
    """The confusion matrix as a figure; with many classes, in colours only.

    Args:
        counts: `[C][C]`, a row per true class, a column per predicted class.
        classes: names of the C classes.
    """
    from matplotlib.figure import Figure

    side = min(len(classes), _WIDEST)
    figure = Figure(figsize=(1.6 + side, 1.2 + side), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="predicted", ylabel="true")
    fractions = [[count / max(sum(row), 1) for count in row] for row in counts]
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    if len(classes) > _WIDEST:
        return figure
    for true, row in enumerate(counts):
        for predicted, count in enumerate(row):
            fraction = fractions[true][predicted]
            axes.text(
                predicted,
                true,
                f"{count:,}\n{100 * fraction:.1f} %",
                ha="center",
                va="center",
                color="white" if fraction > 0.5 else "black",
            )
    axes.set_xticks(range(len(classes)), classes, parse_math=False)  # a class may be called $5_$10
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    return figure


def log_hyperparameters(trainer: L.Trainer, module: Any, data: Any) -> None:
    """The HParams tab: the settings of a run beside its validation loss and accuracy."""
    logger = trainer.logger
    if not isinstance(logger, TensorBoardLogger):
        return
    metrics = {
        f"hparams/{name}": float(value)
        for name, value in trainer.callback_metrics.items()
        if name in {"val/loss", "val/accuracy"}
    }
    settings: dict[str, Any] = {
        name: value if isinstance(value, (int, float, str, bool)) else str(value)
        for name, value in module.hparams.items()
        if not name.startswith("_")
    }
    settings |= {
        "source": data.source,
        "size": data.preprocess.size,
        "batch_size": data.batch_size,
        "epochs": trainer.max_epochs,
        "precision": str(trainer.precision),
        "seed": data.seed,
    }
    logger.log_hyperparams(settings, metrics)
    logger.save()


def log_figures(folder: Path, tag: str, figures: Mapping[str, Figure]) -> None:
    """Add figures to the TensorBoard of a finished run.

    Args:
        folder: of the run.
        tag: of the group, such as `validation`.
        figures: by name.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(f"{tag}/{name}", figure)


def has_tensorboard(folder: Path) -> bool:
    """Whether a run has logged to TensorBoard."""
    return any(folder.glob("events.out.tfevents.*"))


def _writer(trainer: L.Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            writer: SummaryWriter = logger.experiment
            return writer
    return None
