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

from catordog.photos.parallel import batched
from release.composites import composites, singles
from release.features import MEDIUM, SMALL, normalised, shrunk
from release.fit import Teacher, logistic_regression
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
    start = branch.out.weight[:2].detach().numpy().T, branch.out.bias[:2].detach().numpy()
    weight, bias = logistic_regression(
        inputs.numpy(), targets.numpy(), KEPT, mass.numpy(), steps=60, start=start
    )
    with torch.no_grad():
        branch.out.weight[:2], branch.out.bias[:2] = torch.tensor(weight.T), torch.tensor(bias)


def _features(
    trunk: Trunk, branch: Branch, images: Iterable[Image.Image], at_once: int = 16
) -> tuple[Tensor, Tensor]:
    """Pooled features at both input sizes, `[N, 2560]` each."""
    found: dict[int, list[Tensor]] = {SMALL: [], MEDIUM: []}
    for batch in batched(images, at_once):
        views = [np.asarray(each.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for each in batch]
        for size, parts in found.items():
            pixels = normalised(np.stack([shrunk(view, size) for view in views]))
            inputs = torch.tensor(pixels).to(memory_format=torch.channels_last)
            with torch.no_grad():
                parts.append(branch.pooled(trunk(inputs)))
    return torch.cat(found[SMALL]), torch.cat(found[MEDIUM])
