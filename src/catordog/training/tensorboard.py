"""All that goes to TensorBoard: the graph, photos, figures, and hyperparameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
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
            info(f"TensorBoard gets no graph of this network ({str(error).splitlines()[0]})")
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


def _board(trainer: L.Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            writer: SummaryWriter = logger.experiment
            return writer
    return None


def log_hyperparameters(cli: Any) -> None:
    """The HParams tab: the settings of this run beside what they gave."""
    logger = cli.trainer.logger
    if not isinstance(logger, TensorBoardLogger):
        return
    metrics = {
        name: float(value)
        for name, value in cli.trainer.callback_metrics.items()
        if name in {"val/loss", "val/accuracy"}
    }
    chosen = {
        "source": cli.datamodule.source,
        "size": cli.datamodule.preprocess.size,
        "batch_size": cli.datamodule.batch_size,
        "epochs": cli.trainer.max_epochs,
        "precision": str(cli.trainer.precision),
        "seed": cli.datamodule.seed,
    }
    model = {
        name: value if isinstance(value, (int, float, str, bool)) else str(value)
        for name, value in cli.model.hparams.items()
        if not name.startswith("_")
    }
    logger.log_hyperparams({**model, **chosen}, {f"hparams/{k}": v for k, v in metrics.items()})
    logger.save()


def log_figures(folder: Path, tag: str, figures: Mapping[str, Figure]) -> None:
    """Add figures to the TensorBoard of a finished run.

    Args:
        folder: of the run.
        tag: of the group, such as `validation`.
        figures: by name.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as board:
        for name, figure in figures.items():
            board.add_figure(f"{tag}/{name}", figure)
