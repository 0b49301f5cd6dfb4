"""`catordog train`: fit a network, then calibrate its best checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """Train a network on labelled photos, then calibrate it on validation photos."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; further ones are LightningCLI's."""
    parser.add_argument("--config", "-c", action="append", metavar="FILE", help="settings, as YAML")
    parser.add_argument("--data", metavar="D", help="the photos")


def run(args: argparse.Namespace) -> int:
    """Train and calibrate; see `fit.train` for the exit codes."""
    if not sys.stderr.isatty():
        # Progress bars of other packages come from tqdm, which reads this when it is imported.
        os.environ.setdefault("TQDM_DISABLE", "1")
    from catordog.training.fit import train

    return train(args.words, calibrate_and_log)


def calibrate_and_log(best: Path, photos: Any) -> None:
    """Calibrate a checkpoint, and add the figures of its validation photos to TensorBoard."""
    from catordog.model.calibrate import calibrate_on
    from catordog.model.checkpoint import run_folder

    found = calibrate_on(best, photos)
    folder = run_folder(best)
    if any(folder.glob("events.out.tfevents.*")):
        from catordog.evaluation.predictions import Predictions
        from catordog.report.figures import figures_of
        from catordog.training.tensorboard import log_figures

        model = found.model
        predictions = Predictions(model.classes, found.labels, found.logits, model.temperature)
        log_figures(folder, "validation", figures_of(predictions))
