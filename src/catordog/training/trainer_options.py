"""Options of Lightning's Trainer that can't work here, refused before any work."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import nn

from catordog.errors import CatordogError
from catordog.training.module import batch_of_one
from catordog.training.processes import world_size

_NO_MODEL = "leaves no model; to only try a run out, give --trainer.fast_dev_run true"


def check_trainer(trainer: Any, batch_size: int) -> None:
    """Refuse what can't work on this machine, or can't end with a model.

    Args:
        trainer: the trainer's part of the config.
        batch_size: photos per step over all processes.

    Raises:
        CatordogError: one line names the option and what to do.
    """
    if trainer.barebones:
        raise CatordogError(f"--trainer.barebones true {_NO_MODEL}")
    if trainer.enable_checkpointing is False:
        raise CatordogError(f"--trainer.enable_checkpointing false {_NO_MODEL}")
    for name, zero in (("max_epochs", 0), ("max_steps", 0), ("limit_train_batches", 0)):
        value = getattr(trainer, name)
        if value is not None and value == zero:
            raise CatordogError(f"--trainer.{name} {value:g} trains nothing: give more than 0")
    if "transformer-engine" in str(trainer.precision) and not _has_transformer_engine():
        raise CatordogError(
            f"--trainer.precision {trainer.precision} needs NVIDIA's package transformer_engine, "
            "which is not installed: give 32-true or bf16-mixed"
        )
    _check_accelerator(trainer)
    _check_devices(trainer, batch_size)


def _has_transformer_engine() -> bool:
    from importlib.util import find_spec

    return find_spec("transformer_engine") is not None


def _check_accelerator(trainer: Any) -> None:
    there = {
        "gpu": torch.cuda.is_available() or torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    name = trainer.accelerator
    if isinstance(name, str) and not there.get(name, True):
        raise CatordogError(
            f"--trainer.accelerator {name}: PyTorch finds no such device on this machine: give cpu "
            "or auto"
        )


def _check_devices(trainer: Any, batch_size: int) -> None:
    devices = str(trainer.devices)
    if not devices.lstrip("-").isdigit() or world_size() > 1:  # torchrun or SLURM has started them
        return
    number = int(devices)
    gpus = torch.cuda.device_count() if trainer.accelerator != "cpu" else 0
    # Two processes are allowed anywhere, to try a distributed run out.
    most, what = (gpus, "GPU") if gpus else (max(2, os.cpu_count() or 1), "CPU core")
    if number == 0 or number < -1 or (number == -1 and not gpus):
        raise CatordogError(f"--trainer.devices {number}: give 1 or more, or auto")
    if number > most:
        there = gpus or os.cpu_count() or 1
        raise CatordogError(
            f"--trainer.devices {number}: this machine has {there} {what}{'s' * (there > 1)}: give "
            f"at most {most}, or auto"
        )
    ranks = max(1, number) * int(trainer.num_nodes or 1)
    if ranks > 1 and batch_size % ranks:
        raise CatordogError(
            f"data.batch_size = {batch_size} photos can't be divided among {ranks} processes: give "
            f"a multiple of {ranks}"
        )


def check_batch(network: nn.Module, size: int, batch_size: int, devices: Any) -> None:
    """Refuse a batch of one photo per process where batch norm can't take it.

    Args:
        network: it is not changed.
        size: of training photos, in pixels.
        batch_size: photos per step over all processes.
        devices: the option of the trainer.

    Raises:
        CatordogError: the network can't be trained on batches of one.
    """
    ranks = world_size() if world_size() > 1 else int(devices) if str(devices).isdigit() else 1
    if batch_size // max(1, ranks) > 1:
        return
    probe = copy.deepcopy(network).train()
    try:
        with torch.no_grad():
            probe(torch.zeros(1, 3, size, size))
    except ValueError as error:
        raise batch_of_one(error) or error from None
