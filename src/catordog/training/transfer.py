"""Transfer learning: which layers stay frozen, and how fast each of the others learns.

Pretrained early layers detect edges and fur as well as they ever will: they need little change or
none, and gradients from a new last layer would only disturb them. So the last layer learns alone at
first, early layers learn more slowly than late ones (Howard and Ruder 2018), and the earliest not
at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from catordog.errors import CatordogError

_BANDS = 8
"""Learning rates: a group for each layer would crowd the charts."""

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Transfer:
    """How a pretrained network learns.

    Attributes:
        head_epochs: epochs at the start in which only the last layer learns.
        frozen: the fraction of layers, from the first on, that never learn, 0…1.
        first_lr: learning rate of the first layer as a factor of the last layer's; it rises
            geometrically in between. In 0…1; 1: all learn at the same rate.
        head_lr: factor of the last layer's learning rate: it is new, and far from its optimum.
        frozen_norms: keep the running statistics of all batch norms, which small batches would
            blur; those of frozen layers are kept anyway.
    """

    head_epochs: int = 0
    frozen: float = 0.0
    first_lr: float = 1.0
    head_lr: float = 1.0
    frozen_norms: bool = False

    def __post_init__(self) -> None:
        valid = self.head_epochs >= 0 and 0 <= self.frozen < 1
        if not (valid and 0 < self.first_lr <= 1 and self.head_lr > 0):
            raise CatordogError(
                "model.transfer needs head_epochs ≥ 0, frozen in 0…1, first_lr in 0…1 and head_lr "
                f"> 0; got {self.head_epochs}, {self.frozen}, {self.first_lr}, {self.head_lr}"
            )

    @property
    def keeps_norms(self) -> bool:
        """Whether running statistics of pretrained batch norms stay as they are, even at first."""
        return self.frozen_norms or self.frozen > 0 or self.head_epochs > 0

    def apply(
        self,
        network: nn.Module,
        head: nn.Module,
        epoch: int,
        fixed: Collection[nn.Parameter] = frozenset(),
    ) -> None:
        """Freeze the layers that don't learn in this epoch, and unfreeze the others.

        Args:
            network: whose layers they are.
            head: the last layer.
            epoch: from 0.
            fixed: parameters that never learn, because the network itself or whitening has frozen
                them.
        """
        if self == Transfer():
            return
        in_head = set(head.modules())
        frozen = self._frozen_layers(network, head)
        for layer in layers(network):
            learns = layer in in_head or (epoch >= self.head_epochs and layer not in frozen)
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(learns and parameter not in fixed)
        for module in network.modules():
            if isinstance(module, _BATCH_NORMS):
                updates = not self.frozen_norms and epoch >= self.head_epochs
                module.train(updates and module not in frozen)

    def lr_bands(
        self, network: nn.Module, head: nn.Module
    ) -> list[tuple[float, list[nn.Parameter]]]:
        """The parameters that ever learn, grouped by the factor of their learning rate."""
        order = layers(network)
        frozen = self._frozen_layers(network, head)
        bands: dict[float, list[nn.Parameter]] = {}
        for index, layer in enumerate(order):
            if layer in frozen:
                continue
            depth = index / max(1, len(order) - 1)  # 0: the first layer, 1: the last
            band = round(depth * (_BANDS - 1)) / (_BANDS - 1)
            factor = self.head_lr if layer is head else self.first_lr ** (1 - band)
            bands.setdefault(factor, []).extend(layer.parameters(recurse=False))
        return sorted(bands.items(), key=lambda item: item[0])

    def _frozen_layers(self, network: nn.Module, head: nn.Module) -> set[nn.Module]:
        """The layers that never learn."""
        order = layers(network)
        return set(order[: int(self.frozen * len(order))]) - set(head.modules())


def layers(network: nn.Module) -> Sequence[nn.Module]:
    """The modules with parameters of their own, in the order of their creation."""
    return [
        module
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
