"""`catordog train`: fit a network, then calibrate its best checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run(words: Sequence[str]) -> int:
    """Run `catordog train`; see `fit.train` for the exit codes."""
    if not sys.stderr.isatty():
        # Progress bars of other packages come from tqdm, which reads this when it is imported.
        os.environ.setdefault("TQDM_DISABLE", "1")
    from catordog.training.fit import train

    return train(words, calibrate_and_log)


def calibrate_and_log(best: Path, photos: Any) -> None:
    """Calibrate a checkpoint, and add the figures of its validation photos to TensorBoard."""
    from catordog.model.calibrate import calibrate
    from catordog.model.checkpoint import run_folder

    found = calibrate(best, photos)
    folder = run_folder(best)
    if any(folder.glob("events.out.tfevents.*")):
        from catordog.report.figures import figures_of
        from catordog.training.tensorboard import log_figures

        model = found.model
        figures = figures_of(found.logits, found.labels, model.classes, model.temperature)
        log_figures(folder, "validation", figures)
