"""A first layer that is computed from training photos: whitening filters.

Neighbouring pixels and colours are strongly correlated: brightness dominates raw photos. The
principal components of small patches, each divided by its standard deviation, have equal variance
and no correlation, which speeds up learning in the layers above. They are computed once and fixed
(Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catordog.errors import CatordogError

_MIN_VARIANCE = 1e-3
"""Added to each variance, so that noise is not amplified."""

_STRIDE = 3
"""Of the patches, in pixels: adjacent patches are nearly equal."""

_BATCH = 16
"""Photos whose patches are in memory at a time: the patches of all may be gigabytes."""


def whiten(network: nn.Module, photos: Tensor) -> None:
    """Replace the filters of the first convolution by whitening ones, and freeze them.

    The filters are the strongest principal components of patches, each divided by its standard
    deviation, and their negatives, since a ReLU passes only one sign. The weakest components are
    left out where there are more than half as many as filters: they hardly vary, so that the
    rounding of pixels to 8 bits would dominate them. Surplus filters keep their weights, and are
    frozen as well.

    Args:
        network: its first convolution has three input channels.
        photos: normalised, `float32 [N, 3, S, S]`, of about the size of training.

    Raises:
        CatordogError: there is no such convolution.
    """
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise CatordogError(
            "model.whiten: the network does not begin with a convolution of three input channels; "
            "set model.whiten to false"
        )
    filters = components(photos, (first.kernel_size[0], first.kernel_size[1]))
    strongest = filters[: (first.out_channels + 1) // 2]
    both = torch.cat([strongest, -strongest])[: first.out_channels]
    with torch.no_grad():
        first.weight[: len(both)] = both.to(first.weight)
    first.weight.requires_grad_(False)


def components(photos: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The whitening filters `float32 [3 · H · W, 3, H, W]` of photos `float32 [N, 3, S, S]`.

    Their responses to the patches that they were computed from are uncorrelated and have variance
    1 (less where the patches hardly vary).
    """
    n, total, products = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for batch in torch.split(photos, _BATCH):
        patches = F.unfold(batch, kernel, stride=_STRIDE).double().transpose(0, 1).flatten(1)
        n += patches.shape[1]
        total = total + patches.sum(1)
        products = products + patches @ patches.T
    mean = total / n
    variances, vectors = torch.linalg.eigh(products / n - mean.outer(mean))
    filters = (vectors / (variances + _MIN_VARIANCE).sqrt()).T.flip(0)
    result: Tensor = filters.float().view(-1, 3, *kernel)
    return result
