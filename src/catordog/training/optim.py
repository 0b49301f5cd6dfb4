"""Optimisers and the learning-rate schedule.

To add an optimiser is to add a row to `OPTIMIZERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from catordog.training.muon import Muon
from catordog.training.transfer import Transfer

OptimizerName = Literal["sgd", "muon", "adamw"]
Decay = Literal["cosine", "linear"]
"""How the learning rate falls after the warm-up."""

Bands = list[tuple[float, list[nn.Parameter]]]
"""Parameters with the factor of their learning rate, as of `Transfer.lr_bands`."""

UNBOUNDED_WARMUP = 500
"""Steps of warm-up where the run has no last step."""


@dataclass(frozen=True)
class OptimizerSettings:
    """The options `--model.lr` and its neighbours.

    Attributes:
        lr: peak learning rate.
        other_lr: peak learning rate of Muon's other parameters; None: five times `lr`.
        momentum: of SGD and Muon, 0…1.
        weight_decay: on weights, not on biases and norms.
    """

    lr: float
    other_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0


def build_optimizer(
    name: OptimizerName,
    network: nn.Module,
    head: nn.Module,
    transfer: Transfer,
    settings: OptimizerSettings,
) -> torch.optim.Optimizer:
    """The optimiser of a network, with a parameter group per learning rate and weight decay.

    Args:
        name: a key of `OPTIMIZERS`.
        network: what learns.
        head: its last layer.
        transfer: which layers learn, and how fast.
        settings: learning rates, momentum, weight decay.
    """
    head_ids = {id(p) for p in head.parameters()} if head is not network else set()
    return OPTIMIZERS[name](transfer.lr_bands(network, head), head_ids, settings)


def learning_rate(step: float, total: float, warmup: float, decay: Decay = "cosine") -> float:
    """The learning rate schedule: a linear warm-up, then a decay to 0.

    Args:
        step: index of the optimiser step, from 0.
        total: number of steps; infinite: the rate stays at its peak after the warm-up.
        warmup: the fraction of steps in which the rate rises, 0…1.
        decay: `cosine` stays near the peak longer, and ends more gently; `linear` falls evenly.

    Returns:
        The factor of the peak learning rate, 0…1.

    >>> [round(learning_rate(step, 100, 0.1), 2) for step in (0, 5, 10, 55, 100)]
    [0.09, 0.55, 1.0, 0.5, 0.0]
    >>> [round(learning_rate(step, 100, 0.1, "linear"), 2) for step in (10, 28, 55, 100)]
    [1.0, 0.8, 0.5, 0.0]
    """
    rise = warmup * total if math.isfinite(total) else UNBOUNDED_WARMUP
    if step < rise:
        return (step + 1) / (rise + 1)
    if not math.isfinite(total):
        return 1.0
    progress = min((step - rise) / max(total - rise, 1), 1)
    return 1 - progress if decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def restarting_schedule(
    total: float, head_steps: float, warmup: float, decay: Decay = "cosine"
) -> Callable[[int], float]:
    """`learning_rate` over all steps, or twice where the head learns alone at first.

    Args:
        total: number of steps of the run.
        head_steps: steps at the start in which only the last layer learns; 0: none.
        warmup: as of `learning_rate`, of each of the two.
        decay: likewise.
    """

    def factor(step: int) -> float:
        if step < head_steps:
            return learning_rate(step, head_steps, warmup, decay)
        return learning_rate(step - head_steps, total - head_steps, warmup, decay)

    return factor


def _sgd(bands: Bands, head_ids: set[int], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum."""
    del head_ids
    momentum = settings.momentum
    groups = _decayed_groups(bands, settings)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=momentum, nesterov=momentum > 0)


def _adamw(bands: Bands, head_ids: set[int], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    del head_ids
    return torch.optim.AdamW(_decayed_groups(bands, settings), lr=settings.lr)


def _muon(bands: Bands, head_ids: set[int], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Muon for hidden weights; SGD's steps for the last layer, biases and norms."""
    other_lr = settings.other_lr or 5 * settings.lr
    groups: list[dict[str, Any]] = []
    for factor, parameters in bands:
        weights, others = _by_dimension(parameters)
        groups += [
            {
                "params": [p for p in weights if id(p) not in head_ids],
                "orthogonal": True,
                "weight_decay": settings.weight_decay,
                "lr": factor * settings.lr,
            },
            {"params": [p for p in weights if id(p) in head_ids], "lr": factor * other_lr},
            {"params": others, "weight_decay": 0.0, "lr": factor * other_lr},
        ]
    return Muon(_without_empty(groups), lr=settings.lr, momentum=settings.momentum)


def _decayed_groups(bands: Bands, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Weights with weight decay; biases and norms without."""
    groups: list[dict[str, Any]] = []
    for factor, parameters in bands:
        weights, others = _by_dimension(parameters)
        lr = factor * settings.lr
        groups.append({"params": weights, "weight_decay": settings.weight_decay, "lr": lr})
        groups.append({"params": others, "weight_decay": 0.0, "lr": lr})
    return _without_empty(groups)


def _by_dimension(
    parameters: list[nn.Parameter],
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of two dimensions or more, and biases and norms."""
    return [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]


def _without_empty(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


OPTIMIZERS: Mapping[str, Callable[[Bands, set[int], OptimizerSettings], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "muon": _muon,
    "adamw": _adamw,
}
"""Name -> builder; the names are those of `OptimizerName`, which `--model.optimizer` takes."""
