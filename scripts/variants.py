"""Tricks that catordog doesn't have, for ablate.py: what would they earn?

python scripts/variants.py NAME train --config …      as `catordog train`, with the trick

whitening   the first convolution is followed by all others of its kind: its filters decorrelate
            3 × 3 patches of the photos, and stay (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds")
alternate   each photo is mirrored in every second epoch, instead of at random (the same)
gelu        GELU instead of ReLU
mixup       every photo is blended with another, and so is its label (Zhang et al. 2018)
lookahead   every fifth step goes half of the way back (Zhang et al. 2019)
zero        residual blocks begin as the identity (Goyal et al. 2017)
"""

from __future__ import annotations

import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from catordog.cli import main
from catordog.training import datamodule, module, networks


def _built_with(change: Callable[[nn.Module], None]) -> None:
    build = networks.build_network

    def built(*args: Any, **options: Any) -> nn.Module:
        network = build(*args, **options)
        change(network)
        return network

    module.build_network = built  # type: ignore[assignment]


def whitening() -> None:
    archive = sys.argv[sys.argv.index("--data") + 1]
    patches = []
    with zipfile.ZipFile(archive) as photos:
        names = [name for name in photos.namelist() if name.endswith(".jpg")][::50]
        for name in names:
            photo = Image.open(BytesIO(photos.read(name))).convert("RGB").resize((56, 56))
            pixels = (np.asarray(photo, np.float32) / 255 - 0.45) / 0.225
            patches.append(F.unfold(torch.from_numpy(pixels).permute(2, 0, 1)[None], 3)[0].T[::9])
    values, vectors = torch.linalg.eigh(torch.cat(patches).T.cov())
    filters = (vectors / (values + 1e-3).sqrt()).T.flip(0).reshape(27, 3, 3, 3)

    def change(network: nn.Module) -> None:
        convolution = network.stem[0]  # type: ignore[index]
        both = torch.cat([filters, -filters])[: len(convolution.weight)]
        with torch.no_grad():
            convolution.weight[: len(both)] = both
        convolution.weight.requires_grad_(False)

    _built_with(change)


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


def gelu() -> None:
    networks.F = types.SimpleNamespace(relu=lambda x, **_: F.gelu(x))


def mixup() -> None:
    def step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        photos, labels = batch
        share = float(np.random.default_rng((7, self.global_step)).beta(0.2, 0.2))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(batch_idx))
        logits = self(torch.lerp(photos[order], photos, share))
        loss = share * F.cross_entropy(logits, labels)
        loss = loss + (1 - share) * F.cross_entropy(logits, labels[order])
        self.train_accuracy(logits, labels)
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    module.ClassifierModule.training_step = step  # type: ignore[method-assign,assignment]


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


VARIANTS = {each.__name__: each for each in (whitening, alternate, gelu, mixup, lookahead, zero)}


if __name__ == "__main__":
    name = sys.argv.pop(1)
    VARIANTS[name]()
    sys.exit(main(sys.argv[1:]))
