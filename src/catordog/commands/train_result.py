"""What a training run has produced, and the words of its command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from catordog.errors import PhotoError
    from catordog.model.calibrate import Calibration
    from catordog.model.info import ModelInfo
    from catordog.photos.decode import DecodeRules
    from catordog.training.datamodule import PhotosDataModule


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training run has produced.

    Attributes:
        exit_code: 0: done; 1: done, some photos were unreadable; 75: stopped by SIGTERM or
            SIGUSR1; 130: stopped by Ctrl-C.
        checkpoint: `best.ckpt`; `last.ckpt` of a stopped run; None: nothing was saved.
        model: the description in the checkpoint; None: the run was stopped, or this is not the
            first process.
        accuracy: on validation photos, 0…1.
        loss: cross-entropy on validation photos after calibration, in nats.
        data: the dataset.
        exclude, decisions: the files of excluded photos and of decisions.
        unreadable: one error for each photo that could not be read.
        found: what `find` has measured, as an option such as `--model.lr 0.12`.
        held_out: the split to evaluate the model on: `test`; `val` if there are no test photos;
            None after `--folds`, which trains on every photo that is not a test photo of its own.
        decoding: options of how photos were decoded, as `evaluate` takes them.
        finished: whether the run has ended by itself. It is False if a signal stopped it.
        folds: the number of folds, after `--folds`; `accuracy` and `loss` are then those of all
            photos, each by a network that has not seen it.
    """

    exit_code: int
    checkpoint: Path | None = None
    model: ModelInfo | None = None
    accuracy: float | None = None
    loss: float | None = None
    data: str = ""
    exclude: str | None = None
    decisions: str | None = None
    unreadable: tuple[PhotoError, ...] = ()
    found: str | None = None
    held_out: Literal["test", "val"] | None = "test"
    finished: bool = True
    decoding: tuple[str, ...] = ()
    folds: int | None = None

    @property
    def temperature(self) -> float | None:
        """Of the calibrated model."""
        return self.model.temperature if self.model else None


def calibrated(
    best: Path,
    calibration: Calibration,
    data: PhotosDataModule,
    *,
    exit_code: int,
    unreadable: tuple[PhotoError, ...],
    held_out: Literal["test", "val"] | None,
    folds: int | None = None,
) -> TrainResult:
    """The result of a finished run, whose checkpoint is calibrated; as in `TrainResult`."""
    return TrainResult(
        exit_code,
        best,
        calibration.model,
        accuracy=calibration.accuracy,
        loss=calibration.nll,
        data=data.source,
        exclude=data.exclude,
        decisions=data.decisions,
        unreadable=unreadable,
        decoding=_decoding_options(data.rules),
        held_out=held_out,
        folds=folds,
    )


def _decoding_options(rules: DecodeRules) -> tuple[str, ...]:
    """The options of how photos are decoded that differ from the defaults, as words."""
    from catordog.photos.decode import DEFAULT_RULES

    options = ("--allow-truncated",) if rules.allow_truncated else ()
    if rules.max_megapixels == DEFAULT_RULES.max_megapixels:
        return options
    return (*options, "--max-megapixels", f"{rules.max_megapixels:g}")


def without_option(words: Sequence[str], option: str) -> list[str]:
    """The words of a command without an option and its value.

    >>> without_option(["--find", "lr", "--data", "pets", "--find=lr"], "--find")
    ['--data', 'pets']
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option)
    return parser.parse_known_args(words)[1]
