"""Random augmentation of training photos: whole batches at once, on any device.

Every photo has its own random draw, from a generator that is seeded for each batch. So a photo's
crop depends on the run's seed and the step (see `seeding.step_seed`), and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from catordog.errors import CatordogError

_Draw = Callable[[float, float], Tensor]

_DRAWS = 14
"""Random numbers per photo, at most."""

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in perceived brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augment:
    """How strongly training photos are augmented.

    Attributes:
        min_area: the smallest fraction of a photo's area that a crop shows, 0…1; 1: no crops.
        max_area: the largest; above 1 the photo is shrunk and padded with its reflection, for
            data that show animals from afar.
        max_stretch: the largest change of a crop's aspect ratio; 1: none.
        max_turn: the largest rotation, in degrees.
        flip: whether to flip half of the photos horizontally.
        brightness, contrast, saturation: the factor is drawn from 1 ± this, 0…1.
        erase: the probability that a random rectangle is painted grey, 0…1 (Zhong et al. 2017).
    """

    min_area: float = 0.4
    max_area: float = 1.0
    max_stretch: float = 4 / 3
    max_turn: float = 10.0
    flip: bool = True
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise CatordogError(f"augment.{name} = {getattr(self, name)} is not within 0…1")
        if not (0 < self.min_area <= self.max_area <= 4 and self.min_area <= 1):
            raise CatordogError("augment needs 0 < min_area ≤ 1, min_area ≤ max_area ≤ 4")
        if not (self.max_stretch >= 1 and 0 <= self.max_turn <= 180):
            raise CatordogError("augment needs max_stretch ≥ 1, max_turn 0…180")

    def __call__(
        self, photos: Tensor, size: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> Tensor:
        """Augment a batch.

        Args:
            photos: `uint8 [N, 3, T, T]`.
            size: S of the result, in pixels.
            seed: of this batch's draws.
            rank: these photos are every `ranks`-th of a global batch, from this one on.
            ranks: a photo's draws don't depend on how many processes divide the batch.

        Returns:
            `float32 [N, 3, S, S]` in 0…1.
        """
        # Drawn on the CPU: a GPU's generator would draw other numbers for the same seed.
        generator = torch.Generator().manual_seed(seed)
        n = len(photos)
        numbers = torch.rand(_DRAWS, n * ranks, generator=generator)[:, rank::ranks]
        draws = iter(numbers.to(photos.device).unbind())

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * next(draws)

        # Coordinates in the photo are in −1…1: (x, y) = across · column + down · row + shift.
        area = uniform(self.min_area, self.max_area)
        largest = max(1.0, math.sqrt(self.max_area))
        stretch = (uniform(-1, 1) * math.log(self.max_stretch) / 2).exp()
        width, height = ((area.sqrt() * by).clamp(max=largest) for by in (stretch, 1 / stretch))
        left, top = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
        flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(area)
        angle = uniform(-1, 1) * math.radians(self.max_turn)
        cos, sin = angle.cos(), angle.sin()
        across = (width * flip)[:, None] * torch.stack([cos, sin], dim=1)
        down = height[:, None] * torch.stack([-sin, cos], dim=1)
        shift = torch.stack([left, top], dim=1)
        centres = (2 * torch.arange(size, device=photos.device) + 1) / size - 1
        columns = across[:, :, None] * centres + shift[:, :, None]  # [N, 2, S]
        rows = down[:, :, None] * centres
        # A sum of two, since F.affine_grid takes as long as the cropping itself.
        grid = (columns[:, :, None, :] + rows[:, :, :, None]).permute(0, 2, 3, 1)
        cropped = F.grid_sample(
            photos.float(), grid, padding_mode="reflection", align_corners=False
        )
        return self._erase(self._colour(cropped, uniform), uniform)

    def _colour(self, photos: Tensor, uniform: _Draw) -> Tensor:
        """Brightness, contrast and saturation, as one 3 × 3 matrix and an offset per photo.

        The matrix also scales 0…255 to 0…1.
        """
        ranges = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (uniform(1 - by, 1 + by) for by in ranges)
        luma = torch.tensor(_LUMA, device=photos.device)
        grey = luma.expand(3, 3)
        eye = torch.eye(3, device=photos.device)
        matrix = saturation[:, None, None] * (eye - grey) + grey
        matrix = matrix * (brightness * contrast / 255)[:, None, None]
        mean = torch.einsum("nchw,c->n", photos, luma) / photos[0, 0].numel()
        offset = brightness * (1 - contrast) / 255 * mean
        flat = photos.flatten(2)
        changed = torch.baddbmm(offset[:, None, None].expand(-1, 3, 1), matrix, flat)
        return changed.clamp_(0, 1).view_as(photos)

    def _erase(self, photos: Tensor, uniform: _Draw) -> Tensor:
        if not self.erase:
            return photos
        size = photos.shape[-1]
        position = torch.arange(size, device=photos.device)[None, :] / size
        chosen = uniform(0, 1) < self.erase
        inside = []
        for _ in range(2):
            length = uniform(0.1, 0.4)
            start = uniform(0, 1) * (1 - length)
            inside.append((position >= start[:, None]) & (position < (start + length)[:, None]))
        hidden = chosen[:, None, None] & inside[0][:, :, None] & inside[1][:, None, :]
        return photos.masked_fill_(hidden[:, None], 0.5)


def resized(photos: Tensor, size: int) -> Tensor:
    """`uint8 [N, 3, T, T]` as `float32 [N, 3, S, S]` in 0…1."""
    return F.interpolate(photos.float().div_(255), size, mode="area")
