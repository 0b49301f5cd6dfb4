"""Ranks and devices: what torchrun and SLURM tell each process through its environment."""

from __future__ import annotations

import os
from typing import Any


def rank() -> int:
    """The index of this process among those of the run; 0 for the first or only one."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)


def world_size() -> int:
    """How many processes torchrun or SLURM has started for this run."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)


def set_devices(trainer: Any, *, gpu: bool) -> None:
    """Tell Lightning what torchrun or SLURM has started, unless the user has set it.

    Args:
        trainer: the trainer's part of the config; `devices` and `num_nodes` are filled in.
        gpu: whether GPUs train; Lightning counts those itself.
    """
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or ""
    if not here.isdigit() or world_size() == 1:
        return
    if trainer.devices in (None, "auto") and not gpu:
        trainer.devices = int(here)
    if trainer.num_nodes == 1:
        trainer.num_nodes = max(1, world_size() // int(here))
