"""Tricks that catordog doesn't have, for ablate.py: what would they earn?

python scripts/variants.py NAME train --config …      as `catordog train`, with the trick

alternate   each photo is mirrored in every second epoch, instead of at random (the same)
mixup       every photo is blended with another, and so is its label (Zhang et al. 2018)
cutmix      in half of the batches every photo has a rectangle of another one, and a share of its
            label (Yun et al. 2019)
lookahead   every fifth step goes half of the way back (Zhang et al. 2019)
zero        residual blocks begin as the identity (Goyal et al. 2017)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catordog.cli import main
from catordog.model import networks
from catordog.training import datamodule, module


def _built_with(change: Callable[[nn.Module], None]) -> None:
    build = networks.build_network

    def built(*args: Any, **options: Any) -> nn.Module:
        network = build(*args, **options)
        change(network)
        return network

    module.build_network = built  # type: ignore[assignment]


def alternate() -> None:
    shuffled = datamodule._Shuffle.__iter__
    epoch = [0]

    def iterate(self: Any) -> Iterator[int]:
        epoch[0] = self.epoch
        return shuffled(self)

    taken = datamodule._Decoded.__getitems__

    def take(self: Any, indices: Any) -> Any:
        photos, labels, failures = taken(self, indices)
        first = torch.tensor([hash((index, 7)) % 2 for index in indices])
        mirrored = (first + epoch[0]) % 2 == 1
        training = len(self.labels) > 5000  # validation photos stay
        return (
            torch.where(mirrored[:, None, None, None] & training, photos.flip(3), photos),
            labels,
            failures,
        )

    datamodule._Shuffle.__iter__ = iterate  # type: ignore[method-assign]
    datamodule._Decoded.__getitems__ = take  # type: ignore[method-assign]
    sys.argv += ["--data.augment.flip", "false"]


def _blended_loss(self: Any, photos: Tensor, labels: Tensor, order: Tensor, share: float) -> Tensor:
    """The loss of photos of which a share is their own, and the rest that of others in `order`."""
    logits = self(photos)
    loss = share * F.cross_entropy(logits, labels)
    loss = loss + (1 - share) * F.cross_entropy(logits, labels[order])
    self.train_accuracy(logits, labels)
    self.train_loss(loss.detach(), len(labels))
    self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
    self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
    return loss


def mixup() -> None:
    def step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        photos, labels = batch
        share = float(np.random.default_rng((7, self.global_step)).beta(0.2, 0.2))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(batch_idx))
        return _blended_loss(self, torch.lerp(photos[order], photos, share), labels, order, share)

    module.ClassifierModule.training_step = step  # type: ignore[method-assign,assignment]


def cutmix() -> None:
    plain = module.ClassifierModule.training_step

    def step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        photos, labels = batch
        generator = np.random.default_rng((13, self.global_step))
        if generator.random() < 0.5:
            return plain(self, batch, batch_idx)
        side = photos.shape[-1]
        length = round(side * float(np.sqrt(generator.random())))
        top, left = generator.integers(0, side - length + 1, 2).tolist()
        order = torch.randperm(
            len(labels), generator=torch.Generator().manual_seed(self.global_step)
        )
        mixed = photos.clone()
        inside = (..., slice(top, top + length), slice(left, left + length))
        mixed[inside] = photos[order][inside]
        return _blended_loss(self, mixed, labels, order, 1 - length**2 / side**2)

    module.ClassifierModule.training_step = step  # type: ignore[method-assign]


def lookahead() -> None:
    chosen = module.ClassifierModule._optimizer

    def optimizer(self: Any) -> torch.optim.Optimizer:
        found = chosen(self)
        slow: list[Tensor] = []
        steps = [0]

        def after(*_: Any) -> None:
            steps[0] += 1
            fast = [p for group in found.param_groups for p in group["params"]]
            if not slow:
                slow.extend(p.detach().clone() for p in fast)
            elif steps[0] % 5 == 0:
                with torch.no_grad():
                    for kept, parameter in zip(slow, fast, strict=True):
                        kept.lerp_(parameter, 0.5)
                        parameter.copy_(kept)

        found.register_step_post_hook(after)
        return found

    module.ClassifierModule._optimizer = optimizer  # type: ignore[method-assign]


def zero() -> None:
    def change(network: nn.Module) -> None:
        for block in network.modules():
            if isinstance(block, networks._Block):
                nn.init.zeros_(block.second[1].weight)  # type: ignore[arg-type]

    _built_with(change)


VARIANTS = {each.__name__: each for each in (alternate, mixup, cutmix, lookahead, zero)}


if __name__ == "__main__":
    name = sys.argv.pop(1)
    VARIANTS[name]()
    sys.exit(main(sys.argv[1:]))
