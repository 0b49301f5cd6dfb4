"""Learning that starts from pretrained weights: what stays frozen, and how fast each layer moves.

Pretrained early layers see edges and fur as well as they ever will: they need little change or
none, and a fresh last layer would only shake them. So the last layer learns alone at first, early
layers learn more slowly than late ones (Howard and Ruder 2018), and the earliest not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from catordog.errors import CatordogError

_BANDS = 8
"""So many learning rates are enough: a group for each layer would crowd the charts."""

_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Transfer:
    """How a pretrained network learns.

    Attributes:
        head_epochs: epochs at the start in which only the last layer learns.
        frozen: share of the layers, from the first on, that never learn, 0…1.
        first_lr: the first layer learns at this share of the learning rate, and the last layer
            at all of it; in between it falls geometrically. In 0…1; 1: all learn alike.
        head_lr: the last layer learns at this multiple of the learning rate: it is new, and far
            from where it has to be.
        frozen_norms: keep the running means and variances of all batch norms, as small batches
            would blur them; those of frozen layers are kept anyway.
    """

    head_epochs: int = 0
    frozen: float = 0.0
    first_lr: float = 1.0
    head_lr: float = 1.0
    frozen_norms: bool = False

    def __post_init__(self) -> None:
        right = self.head_epochs >= 0 and 0 <= self.frozen < 1
        if not (right and 0 < self.first_lr <= 1 and self.head_lr > 0):
            raise CatordogError(
                "model.transfer needs head_epochs ≥ 0, frozen in 0…1, first_lr in 0…1 and head_lr "
                f"> 0; got {self.head_epochs}, {self.frozen}, {self.first_lr}, {self.head_lr}"
            )

    def apply(self, network: nn.Module, head: nn.Module, epoch: int) -> None:
        """Freeze what doesn't learn in this epoch; the network is in training mode otherwise."""
        if self == Transfer():
            return  # and whatever a network of the user's own freezes stays as it is
        ours = set(head.modules())
        still = self._still(network, head)
        for layer in layers(network):
            learns = layer in ours or (epoch >= self.head_epochs and layer not in still)
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(learns)
        for module in network.modules():
            if isinstance(module, _NORMS):
                module.train(bool(module not in still and not self.frozen_norms
                                  and epoch >= self.head_epochs))  # fmt: skip

    def bands(self, network: nn.Module, head: nn.Module) -> list[tuple[float, list[nn.Parameter]]]:
        """The parameters that ever learn, with the share of the learning rate that they get."""
        order = layers(network)
        still = self._still(network, head)
        found: dict[float, list[nn.Parameter]] = {}
        for place, layer in enumerate(order):
            if layer in still:
                continue
            height = place / max(1, len(order) - 1)  # 0: the first layer, 1: the last
            band = round(height * (_BANDS - 1)) / (_BANDS - 1)
            share = self.head_lr if layer is head else self.first_lr ** (1 - band)
            found.setdefault(share, []).extend(layer.parameters(recurse=False))
        return sorted(found.items(), key=lambda item: item[0])

    def _still(self, network: nn.Module, head: nn.Module) -> set[nn.Module]:
        """The layers that never learn."""
        order = layers(network)
        return set(order[: int(self.frozen * len(order))]) - set(head.modules())


def layers(network: nn.Module) -> Sequence[nn.Module]:
    """The modules that have parameters of their own, in the order in which they were made."""
    return [
        module
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
