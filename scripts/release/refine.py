"""Train the first stage on, on both of its input sizes."""

from __future__ import annotations

import copy
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from release.features import MEDIUM, SMALL, Arrays, normalised
from release.fit import Targets, Teacher, Views, follow, optimiser_of, set_rate
from release.networks import Branch, Trunk
from release.sources import KAGGLE

RATE, STEPS = 1.5e-4, 1800
"""The highest learning rate; steps. At 5e-4 it loses what it knew."""

SOFT, SOFT_PET = 0.7, 0.5
"""How much the large network's answers count in the targets; see `Targets.loss`."""

BATCH, PART = 48, 16
"""Views of each size in a step, and how many of them go through the network at a time, so that they
stay in the processor's cache."""


def refine(arrays: Arrays, views: Views, teacher: Teacher, trunk: Trunk, branch: Branch) -> None:
    """Train the small network on, all but its first layer, on both input sizes alike.

    Its norms are folded, so that one set of weights serves both sizes. Half of every step is
    `SMALL` views at random; the other half is `MEDIUM` views, mostly those that it is unsure about
    at the smaller size, since only those will come.

    Args:
        arrays: for their pixels.
        views: all of them.
        teacher: the large network, whose answers it learns.
        trunk: of the small network, folded; changed in place.
        branch: likewise.
    """
    torch.manual_seed(0)
    pixels = {SMALL: np.array(arrays.small), MEDIUM: np.array(arrays.medium)}
    network = torch.nn.Sequential(trunk, branch).to(memory_format=torch.channels_last)
    for value in trunk.stem.parameters():
        value.requires_grad_(False)

    def inputs(size: int, rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.tensor(normalised(pixels[size][rows])).to(memory_format=torch.channels_last)

    targets = Targets.of(views, teacher, temperature=1.0)
    rows = np.flatnonzero(views.trained)
    usual = np.where(views.pet, np.where(views.source == KAGGLE, 1, 2), 1.3)[rows]
    with torch.no_grad():
        found = [
            network.eval()(inputs(SMALL, part)) for part in np.array_split(rows, len(rows) // 64)
        ]
    logits, pet = (torch.cat(column) for column in zip(*found, strict=True))
    weights = {SMALL: usual, MEDIUM: usual * unsure(targets.pet[rows], logits, pet).numpy()}
    optimiser, average = optimiser_of(network, RATE), copy.deepcopy(network).eval()
    rng = np.random.default_rng(1)
    begun, total = time.monotonic(), 0.0
    for step in range(STEPS):
        set_rate(optimiser, RATE, step, STEPS)
        network.train()
        optimiser.zero_grad()
        for size, mass in weights.items():
            chosen = np.sort(rng.choice(rows, BATCH, replace=False, p=mass / mass.sum()))
            batch = inputs(size, chosen)
            if rng.random() < 0.5:
                batch = batch.flip(3)
            for start in range(0, BATCH, PART):
                part = slice(start, start + PART)
                found = network(batch[part])
                loss = targets.loss(*found, chosen[part], soft=SOFT, soft_pet=SOFT_PET) * (
                    PART / BATCH
                )
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        follow(average, network, min(0.998, (step + 1) / (step + 20)))
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - begun
            print(f"step {step + 1}/{STEPS}, loss {total / 200:.4f}, {seconds:.0f} s", flush=True)
            total = 0.0
    network.load_state_dict(average.state_dict())


def unsure(is_pet: Tensor, logits: Tensor, pet: Tensor) -> Tensor:
    """Weights of N views at the second look: larger where the first look is unsure, `[N]`.

    Args:
        is_pet: whether a view shows a cat or dog, `[N]`.
        logits: of the first look, `[N, 2]`.
        pet: its raw logit of "cat or dog", `[N]`.
    """
    margin = torch.where(is_pet, (logits[:, 0] - logits[:, 1]).abs(), pet.abs())
    doubt = torch.exp(-margin.detach().float() / 2)
    return 0.1 + doubt / doubt.mean()
