"""Fit a network: from the settings of a run to its best checkpoint."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from catordog.errors import CatordogError, PhotoError
from catordog.files import write_bytes
from catordog.terminal import info, silence
from catordog.training.callbacks import STOP_SIGNALS, LastCheckpoint, checkpoint_folder
from catordog.training.lightning_cli import TrainCLI
from catordog.training.processes import rank
from catordog.training.runs import LAST
from catordog.training.setting_errors import unusable
from catordog.training.tensorboard import log_hyperparameters

DONE, SOME_UNREADABLE = 0, 1
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TRY_AGAIN = os.EX_TEMPFAIL if hasattr(os, "EX_TEMPFAIL") else 75
"""Exit code after SIGTERM or SIGUSR1: the scheduler should run the command again (sysexits.h)."""

_QUIET = (
    # Batches come from memory: workers would only copy them.
    ".*does not have many workers.*",
    # Seen on machines with SLURM installed; the user chose to train without.
    ".*The `srun` command is available.*",
    # Small datasets have few steps per epoch; the curve per epoch is logged all the same.
    ".*number of training batches.*is smaller than the logging interval.*",
    # The folder exists because RunFolder has created and locked it, or because the run resumes.
    ".*Checkpoint directory .* exists and is not empty.*",
    # A run that is stopped before its first validation has no val/loss; last.ckpt is saved.
    ".*could not find the monitored key.*",
    # Lightning calls a name that torch has deprecated; users can't do anything about it.
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    # With --trainer.overfit_batches, EpochShuffle repeats its order.
    ".*You requested to overfit but enabled.*",
    # RankSampler resumes within an epoch.
    ".*your dataloader is not resumable.*",
    # A run that resumes in a new folder: the old one is another run's.
    ".*The dirpath has changed from.*",
)
"""Lightning's warnings about what is intended here."""


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        exit_code: 0: done; 1: done, some photos were unreadable; 75, 130: stopped by a signal.
        finished: whether all epochs are done.
        checkpoint: the best one of a finished run, the last one of a stopped run; None: nothing
            was saved, as with `fast_dev_run`.
        failures: unreadable photos of all ranks.
    """

    exit_code: int
    finished: bool
    checkpoint: Path | None = None
    failures: tuple[PhotoError, ...] = ()


def prepare_process() -> None:
    """Keep Lightning's notes, and all ranks but the first, from printing. Warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for message in _QUIET:
        warnings.filterwarnings("ignore", message)
    if rank() > 0:
        silence()


def fit(cli: TrainCLI) -> FitResult:
    """Train, until the last epoch or a signal.

    Raises:
        CatordogError: the data is unusable, the loss is not finite, or the disk is full.
    """
    trainer, module, data = cli.trainer, cli.model, cli.datamodule
    # Deterministic algorithms also initialise all new memory. Nothing here reads it before writing,
    # and it takes a sixth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if cli.config.compile:
        module.network.compile()
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the next command
            trainer.fit(module, data, ckpt_path=cli.config.ckpt_path, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        if not (trainer.interrupted or _stop_signal(trainer)):
            raise
        return _stopped(trainer)
    except MisconfigurationException as error:
        raise unusable(error) from error
    except (RuntimeError, ValueError, KeyError) as error:
        if not (cli.config.ckpt_path and re.search("state.dict", str(error))):
            raise
        line = str(error).strip().splitlines()[-1].strip()
        raise CatordogError(
            f"{cli.config.ckpt_path} does not fit these settings ({line}): resume with the "
            "settings of its run, or start a new run without --ckpt_path"
        ) from error
    if trainer.interrupted and _stop_signal(trainer):
        return _stopped(trainer)
    failures = _failures_of_all_ranks(trainer, data.failures)
    exit_code = SOME_UNREADABLE if failures else DONE
    if cli.config.trainer.fast_dev_run:
        return FitResult(exit_code, True, None, failures)
    if trainer.is_global_zero:
        log_hyperparameters(trainer, module, data)
    return FitResult(exit_code, True, _best(trainer), failures)


def _best(trainer: Any) -> Path | None:
    """The best checkpoint: the last one, where the run has never validated."""
    folder = checkpoint_folder(trainer)
    best, last = folder / "best.ckpt", folder / LAST
    if trainer.is_global_zero and not best.is_file():
        if not last.is_file():
            raise CatordogError(
                f"nothing was trained: {trainer.ckpt_path or 'the run'} has all its epochs "
                "already: give a higher --trainer.max_epochs"
            )
        info("the run has never validated: its last weights are kept as best.ckpt")
        write_bytes(best, last.read_bytes())
    return best


def _stop_signal(trainer: Any) -> int:
    """The signal that ended this run; 0 if none did."""
    callbacks = (each for each in trainer.callbacks if isinstance(each, LastCheckpoint))
    return next((callback.stop_signal for callback in callbacks), 0)


def _stopped(trainer: Any) -> FitResult:
    by_scheduler = _stop_signal(trainer) in STOP_SIGNALS[1:]
    last = checkpoint_folder(trainer) / LAST
    exit_code = TRY_AGAIN if by_scheduler else INTERRUPTED
    return FitResult(exit_code, False, last if last.is_file() else None)


def _failures_of_all_ranks(trainer: Any, failures: list[PhotoError]) -> tuple[PhotoError, ...]:
    """The unreadable photos of all ranks, each once."""
    if trainer.world_size == 1:
        return tuple(failures)
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, failures)
    return tuple({failure.path: failure for each in gathered for failure in each}.values())
