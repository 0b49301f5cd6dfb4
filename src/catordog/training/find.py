"""`catordog train --find`: measure the learning rate or the batch size with Lightning's Tuner."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.tuner.tuning import Tuner

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.terminal import info

Setting = Literal["lr", "batch_size"]

_MAX_STEPS = 100
_MIN_STEPS = 20


def find_setting(setting: Setting, trainer: L.Trainer, module: Any, data: Any, folder: Path) -> str:
    """Measure a good value of a setting. Nothing is trained; the module keeps its weights.

    Args:
        setting: `lr` raises the learning rate from step to step, and takes the one at which the
            loss falls fastest (Smith 2015); `batch_size` doubles the batch until it no longer fits
            into memory, or holds half of the training photos.
        trainer: of the run that the setting is for.
        module: of that run.
        data: of that run.
        folder: where the plot of losses is written, as `lr.png`.

    Returns:
        The option to use, such as `--model.lr 0.12`.

    Raises:
        CatordogError: the loss falls at no learning rate, or an epoch has too few batches.
    """
    if setting == "batch_size":
        return _batch_size(trainer, module, data)
    return _lr(trainer, module, data, folder)


def _lr(trainer: L.Trainer, module: Any, data: Any, folder: Path) -> str:
    data.trainer = trainer
    data.setup("fit")
    batches = len(data.train_dataloader())
    steps = min(_MAX_STEPS, batches)  # the finder ends with the first epoch
    if steps < _MIN_STEPS:
        raise CatordogError(
            f"--find lr needs {_MIN_STEPS} batches of photos, and there are {batches}: choose a "
            "smaller --data.batch_size"
        )
    with _ratios_kept(module):
        finder = Tuner(trainer).lr_find(
            module, datamodule=data, min_lr=1e-4, max_lr=10, num_training=steps, update_attr=False
        )
    found = finder.suggestion() if finder else None
    if finder is None or found is None or not math.isfinite(found):
        raise CatordogError("--find lr: the loss falls at no learning rate; check the labels")
    plot = folder / "lr.png"
    _plot(finder.results, found, plot)
    info(f"learning rates from 1e-4, {steps} steps: the loss falls fastest at {found:.3g}")
    info(f"plot: {plot}")
    return f"--model.lr {found:.3g}"


@contextmanager
def _ratios_kept(module: Any) -> Iterator[None]:
    """Scale the learning rates of all parameter groups, where the finder would make them equal."""
    configure = module.configure_optimizers

    def configured() -> Any:
        found = configure()
        optimizer = found["optimizer"]
        lr = module.hparams["lr"]
        ratios = [group["initial_lr"] / lr for group in optimizer.param_groups]

        def scale(*_: Any) -> None:
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] *= ratio  # the finder sets it anew after every step

        optimizer.register_step_pre_hook(scale)
        return found

    module.configure_optimizers = configured
    try:
        yield
    finally:
        del module.configure_optimizers


def _batch_size(trainer: L.Trainer, module: Any, data: Any) -> str:
    data.trainer = trainer
    data.setup("fit")
    photos = len(data.train_dataloader().dataset)
    largest = max(2, 2 ** int(math.log2(max(2, photos // 2))))
    # The finder returns its maximum without having tried it.
    untried = 2 * largest
    found = Tuner(trainer).scale_batch_size(
        module, datamodule=data, steps_per_trial=3, init_val=2, max_val=untried
    )
    found = min(found or largest, largest)
    info(f"batches of {found} fit into memory; larger batches need a higher --model.lr")
    return f"--data.batch_size {found}"


def _plot(results: dict[str, list[float]], found: float, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(results["lr"], results["loss"])
    axes.axvline(found, color="tab:orange", linestyle="--", label=f"falls fastest: {found:.3g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend(frameon=False)
    packed = io.BytesIO()
    figure.savefig(packed, format="png", dpi=120)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, packed.getvalue())
