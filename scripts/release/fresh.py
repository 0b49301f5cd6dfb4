"""Train the first stage further on a GPU, on newly augmented views."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from release.features import MEDIUM, SMALL
from release.fit import Targets, follow, optimiser_of, set_rate
from release.networks import Branch, Bundled, Trunk
from release.refine import SOFT, SOFT_PET, unsure
from release.sources import KAGGLE, PETS, UNSEEN, Row, Sources
from release.views import Viewer

RATE, STEPS = 3e-4, 1250
"""The highest learning rate; steps."""

BATCH, HARD = 512, 256
"""Views in a step; how many of them the second look learns from."""

PART = 64
"""Views that a process makes at a time."""

WHOLE = 0.25
"""How often a view is the whole photo as it is."""

MASS = {KAGGLE: 3.0, PETS[0]: 14.0, PETS[1]: 10.0}
"""How often photos are shown, by source, and those of neither: `OTHERS`."""

OTHERS = 6.5


class FreshViews(IterableDataset[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]):
    """Random training photos, each in a view of its own: row numbers `[PART]` and pixels.

    Args:
        root: the folder of `Sources`.
        rows: all photos.
        seed: of the choice.
    """

    def __init__(self, root: Path, rows: Sequence[Row], seed: int = 0) -> None:
        self.root, self.rows, self.seed = root, rows, seed

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        viewer = Viewer(Sources(self.root), self.rows)  # of this process
        trained = [
            index for index, row in enumerate(self.rows)
            if row.split == "train" and row.source not in UNSEEN
        ]  # fmt: skip
        mass = np.array([MASS.get(self.rows[index].source, OTHERS) for index in trained])
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            chosen = np.array(trained)[rng.choice(len(trained), PART, p=mass / mass.sum())]
            numbers = np.where(rng.random(PART) < WHOLE, 0, rng.integers(1000, 2**31, PART))
            views = zip(chosen.tolist(), numbers.tolist(), strict=True)
            yield chosen, np.stack([viewer.pixels(view) for view in views])


def normalised(pixels: Tensor) -> Tensor:
    """Network input from pixels 0…255, `[N, 3, S, S]`."""
    return ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)


def shrunk(pixels: Tensor, size: int) -> Tensor:
    """Pixels of the first stage, in whole steps as those that it will see."""
    small = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return small.round_().clamp_(0, 255)


def answers(network: Bundled, pixels: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """What the large network answers: logits `[N, 2]`, and "cat or dog" `[N]`, scaled.

    Args:
        network: in half precision.
        pixels: 0…255, `[N, 3, 256, 256]`.
        spread: standard deviation of "cat or dog" over the views.
    """
    with torch.no_grad():
        logits, _, _, ood = network(normalised(pixels).half())
    return logits.float(), -ood.float() * (3 / spread)


def refine(
    root: Path,
    rows: Sequence[Row],
    large: Bundled,
    spread: float,
    trunk: Trunk,
    branch: Branch,
    device: str = "cuda",
) -> None:
    """Train the small network on, all but its first layer, on both input sizes alike.

    As `release.refine.refine`, but every view is newly augmented and answered by the large network.

    Args:
        root: the folder of `Sources`.
        rows: all photos.
        large: the teacher.
        spread: see `answers`.
        trunk: of the small network, folded; changed in place.
        branch: likewise.
        device: where to train.
    """
    torch.manual_seed(0)
    large = large.to(device, torch.float16).to(memory_format=torch.channels_last).eval()
    network = nn.Sequential(trunk, branch).to(device).to(memory_format=torch.channels_last)
    for value in trunk.stem.parameters():
        value.requires_grad_(False)
    label = torch.tensor([row.label for row in rows], device=device)
    optimiser, average = optimiser_of(network, RATE), copy.deepcopy(network).eval()
    loader: Any = DataLoader(
        FreshViews(root, rows), batch_size=None, num_workers=max(1, (os.cpu_count() or 1) - 2),
        prefetch_factor=6, pin_memory=device == "cuda",
    )  # fmt: skip
    begun, total = time.monotonic(), torch.zeros(2, device=device)
    parts = iter(loader)
    for step in range(STEPS):
        chosen, pixels = zip(*(next(parts) for _ in range(BATCH // PART)), strict=True)
        shown = torch.cat([part.to(device, non_blocking=True) for part in pixels])
        shown = shown.permute(0, 3, 1, 2).float()
        if step % 2:
            shown = shown.flip(3)
        labels = label[torch.cat(chosen).to(device)]
        targets = Targets.from_answers(labels, *answers(large, shown, spread))
        set_rate(optimiser, RATE, step, STEPS)
        network.train()
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            first = network(normalised(shrunk(shown, SMALL)))
        every = torch.arange(len(shown), device=device)
        loss = targets.loss(first[0].float(), first[1].float(), every, SOFT, SOFT_PET)
        loss.backward()  # type: ignore[no-untyped-call]
        hard = torch.multinomial(unsure(targets.pet, *first), min(HARD, len(shown)))
        with torch.autocast(device, torch.bfloat16):
            second = network(normalised(shrunk(shown[hard], MEDIUM)))
        again = targets.loss(second[0].float(), second[1].float(), hard, SOFT, SOFT_PET)
        again.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        follow(average, network, min(0.998, (step + 1) / (step + 20)))
        total += torch.stack([loss.detach(), again.detach()])
        if step % 100 == 99:
            looks = ", ".join(f"{value:.4f}" for value in (total / 100).tolist())
            speed = (step + 1) * BATCH / (time.monotonic() - begun)
            print(f"step {step + 1}/{STEPS}, losses {looks}, {speed:,.0f} views/s", flush=True)
            total.zero_()
    network.load_state_dict(average.state_dict())
    network.cpu()
