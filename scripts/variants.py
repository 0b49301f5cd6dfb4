"""Train with a technique that catordog does not include; ablate.py measures what it would add.

python scripts/variants.py NAME train --config …      as `catordog train`, with the technique NAME

alternating_flip   flip each photo in every second epoch instead of at random
mixup              blend every photo and its label with another one (Zhang et al. 2018)
cutmix             in half of the batches, paste a rectangle of another photo into each photo and
                   mix the labels by area (Yun et al. 2019)
lookahead          every fifth step, move halfway back to the slow weights (Zhang et al. 2019)
zero_init          start each residual block as the identity (Goyal et al. 2017)
distil             learn from the confidences of other networks on the same crops (Hinton et al.
                   2015; Beyer et al. 2022): --teacher A.ckpt [--teacher B.ckpt …] [--share 0.7]

Every technique patches private parts of catordog.model and catordog.training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def alternating_flip() -> None:
    import torch

    from catordog.training import datasets, samplers

    original_order = samplers.EpochShuffle.__iter__
    original_photos = datasets.DecodedDataset.__getitems__
    epoch = [0]

    def order(self: Any) -> Iterator[int]:
        epoch[0] = self.epoch
        return original_order(self)

    def photos_at(self: Any, indices: Any) -> Any:
        photos, labels, failures = original_photos(self, indices)
        first = torch.tensor([hash((index, 7)) % 2 for index in indices])
        flipped = (first + epoch[0]) % 2 == 1
        training = len(self.labels) > 5000  # leaves validation photos unflipped
        return (
            torch.where(flipped[:, None, None, None] & training, photos.flip(3), photos),
            labels,
            failures,
        )

    samplers.EpochShuffle.__iter__ = order  # type: ignore[method-assign]
    datasets.DecodedDataset.__getitems__ = photos_at  # type: ignore[method-assign]
    sys.argv += ["--data.augment.flip", "false"]


def _mixed_loss(
    self: Any, photos: Tensor, labels: Tensor, order: Tensor, fraction: float
) -> Tensor:
    """Cross-entropy on mixed photos.

    Args:
        self: the `ClassifierModule`.
        photos: mixed photos, `float32 [N, 3, S, S]`.
        labels: of the original photos, `int64 [N]`.
        order: index of the photo that each one is mixed with, `int64 [N]`.
        fraction: weight of the original photo, 0…1.
    """
    import torch.nn.functional as F

    logits = self(photos)
    loss = fraction * F.cross_entropy(logits, labels)
    loss = loss + (1 - fraction) * F.cross_entropy(logits, labels[order])
    self.train_accuracy(logits, labels)
    self.train_loss(loss.detach(), len(labels))
    self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
    self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
    return loss


def mixup() -> None:
    import numpy as np
    import torch

    from catordog.training import module

    def step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        photos, labels = batch
        fraction = float(np.random.default_rng((7, self.global_step)).beta(0.2, 0.2))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(batch_idx))
        mixed = torch.lerp(photos[order], photos, fraction)
        return _mixed_loss(self, mixed, labels, order, fraction)

    module.ClassifierModule.training_step = step  # type: ignore[method-assign,assignment]


def cutmix() -> None:
    import numpy as np
    import torch

    from catordog.training import module

    original_step = module.ClassifierModule.training_step

    def step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        photos, labels = batch
        generator = np.random.default_rng((13, self.global_step))
        if generator.random() < 0.5:
            return original_step(self, batch, batch_idx)
        size = photos.shape[-1]
        length = round(size * float(np.sqrt(generator.random())))
        top, left = generator.integers(0, size - length + 1, 2).tolist()
        order = torch.randperm(
            len(labels), generator=torch.Generator().manual_seed(self.global_step)
        )
        mixed = photos.clone()
        inside = (..., slice(top, top + length), slice(left, left + length))
        mixed[inside] = photos[order][inside]
        return _mixed_loss(self, mixed, labels, order, 1 - length**2 / size**2)

    module.ClassifierModule.training_step = step  # type: ignore[method-assign]


def lookahead() -> None:
    import torch

    from catordog.training import module

    original_optimizer = module.build_optimizer

    def optimizer(*arguments: Any) -> torch.optim.Optimizer:
        inner = original_optimizer(*arguments)
        slow: list[Tensor] = []
        steps = [0]

        def after_step(*_: Any) -> None:
            steps[0] += 1
            fast = [p for group in inner.param_groups for p in group["params"]]
            if not slow:
                slow.extend(p.detach().clone() for p in fast)
            elif steps[0] % 5 == 0:
                with torch.no_grad():
                    for average, parameter in zip(slow, fast, strict=True):
                        average.lerp_(parameter, 0.5)
                        parameter.copy_(average)

        inner.register_step_post_hook(after_step)
        return inner

    module.build_optimizer = optimizer  # type: ignore[assignment]


def zero_init() -> None:
    from torch import nn

    from catordog.model import networks
    from catordog.training import module

    original_build = networks.build_network

    def build(*args: Any, **options: Any) -> nn.Module:
        network = original_build(*args, **options)
        for block in network.modules():
            if isinstance(block, networks._Block):
                nn.init.zeros_(block.second[1].weight)  # type: ignore[arg-type]
        return network

    module.build_network = build  # type: ignore[assignment]


def distil() -> None:
    import torch
    import torch.nn.functional as F

    from catordog.model.checkpoint import open_checkpoint
    from catordog.training import module

    parser = argparse.ArgumentParser(prog="variants.py distil", allow_abbrev=False)
    parser.add_argument("--teacher", action="append", required=True, metavar="F.ckpt")
    parser.add_argument("--share", type=float, default=0.7)
    options, sys.argv[1:] = parser.parse_known_args()
    backends: list[Any] = [open_checkpoint(Path(name))[0] for name in options.teacher]
    teachers: list[nn.Module] = [backend.network for backend in backends]

    def step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        del batch_idx
        photos, labels = batch
        with torch.no_grad():
            answers = [teacher.to(photos.device)(photos).float() for teacher in teachers]
            taught = torch.stack(answers).mean(0).softmax(1)
        targets = F.one_hot(labels, len(self.classes)).to(taught).lerp(taught, options.share)
        logits = self(photos)
        loss = F.cross_entropy(logits, targets)
        self.train_accuracy(logits, labels)
        self.train_loss(F.cross_entropy(logits.detach(), labels), len(labels))
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    module.ClassifierModule.training_step = step  # type: ignore[method-assign,assignment]


VARIANTS: dict[str, Callable[[], None]] = {
    variant.__name__: variant
    for variant in (alternating_flip, mixup, cutmix, lookahead, zero_init, distil)
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=VARIANTS, metavar="NAME")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="train …")
    args = parser.parse_args()
    sys.argv[1:] = args.words
    VARIANTS[args.name]()  # may append options to sys.argv
    from catordog.cli import main as catordog

    return catordog(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
