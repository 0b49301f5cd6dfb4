"""Teach the first stage to leave photos that show a cat and a dog to the large network.

Only that can name the second animal. The layer of the logits is fitted again, to answer one half
for either class on composites of a cat and a dog, and what the large network answers elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from release.composites import composites, singles
from release.features import MEDIUM, SMALL, normalised, shrunk
from release.fit import Teacher
from release.networks import Branch, Trunk
from release.sources import PETS, Row, Sources
from release.views import SIZE

SINGLES, COMPOSITES = 4000, 1600
"""Photos. Half of the composites show two of one class, so that the seam is no evidence."""

MASS, OTHERS = 0.3, 3.0
"""What a composite counts for, and a photo of another source than Kaggle. With 1, composites cost
photos of one animal their confidence; without the other sources, their errors grow."""

KEPT = 0.03
"""How strongly the layer stays what it was."""

SURE = 0.98
"""The confidence in the class of two animals of one class."""


def fit(sources: Sources, rows: list[Row], teacher: Teacher, trunk: Trunk, branch: Branch) -> None:
    """Fit the layer of the logits again.

    Args:
        sources: where photos are.
        rows: all photos.
        teacher: answers of the large network, the whole photos first, in the order of `rows`.
        trunk: of the small network, trained.
        branch: likewise; its last layer is changed in place.
    """
    trunk.eval()
    branch.eval()
    known = {row: index for index, row in enumerate(rows)}
    others = [row for row in rows if row.source in PETS and row.split == "train"]
    alone = [*singles(rows, SINGLES), *others]
    answers = torch.tensor(teacher.logits[[known[row] for row in alone]]).softmax(1)
    made = list(composites(sources, rows, COMPOSITES, 11, same=True))
    shown = torch.tensor(np.stack([classes for _, classes in made]))
    either = shown.sum(1, keepdim=True) == 2
    wanted = torch.where(either, 0.5, torch.where(shown > 0, SURE, 1 - SURE))
    features = [
        *_features(trunk, branch, (sources.image(row) for row in alone)),
        *_features(trunk, branch, (image for image, _ in made)),
    ]
    inputs = torch.cat(features)
    targets = torch.cat([answers, answers, wanted, wanted]).float()
    each = torch.tensor([OTHERS if row.source in PETS else 1.0 for row in alone])
    mass = torch.cat([each, each, torch.full((2 * len(wanted),), MASS)])
    before = branch.out.weight[:2].detach().clone()
    weight, bias = before.clone().requires_grad_(), branch.out.bias[:2].detach().clone()
    bias.requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        losses = -(targets * (inputs @ weight.T + bias).log_softmax(1)).sum(1)
        value = (losses * mass).sum() / mass.sum() + KEPT * (weight - before).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        branch.out.weight[:2], branch.out.bias[:2] = weight, bias


def _features(
    trunk: Trunk, branch: Branch, images: Iterable[Image.Image], at_once: int = 16
) -> tuple[Tensor, Tensor]:
    """Pooled features at both input sizes, `[N, 2560]` each."""
    found: dict[int, list[Tensor]] = {SMALL: [], MEDIUM: []}
    batch: list[np.ndarray] = []

    def flush() -> None:
        for size, parts in found.items():
            pixels = normalised(np.stack([shrunk(each, size) for each in batch]))
            inputs = torch.tensor(pixels).to(memory_format=torch.channels_last)
            with torch.no_grad():
                parts.append(branch.pooled(trunk(inputs)))
        batch.clear()

    for image in images:
        batch.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
        if len(batch) == at_once:
            flush()
    if batch:
        flush()
    return torch.cat(found[SMALL]), torch.cat(found[MEDIUM])
