"""Corrupt photos with blur, noise or JPEG compression, to measure a model's robustness.

Three of the common corruptions of Hendrycks and Dietterich (2019), *Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations*, with severities of our own.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Kind = Literal["blur", "noise", "JPEG"]

CORRUPTIONS: tuple[Kind, ...] = ("blur", "noise", "JPEG")
SEVERITIES = (1, 2, 3)

_BLUR = (1 / 100, 1 / 50, 1 / 25)
"""Standard deviation of the Gaussian, as a fraction of the photo's side length."""
_NOISE = (12.0, 25.0, 50.0)
"""Standard deviation of the Gaussian noise, for pixels in 0…255."""
_QUALITY = (30, 15, 7)
"""JPEG quality in 1…100, on libjpeg's scale."""


def corrupt(
    pixels: npt.NDArray[np.uint8], kind: Kind, severity: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Corrupt one photo.

    Args:
        pixels: `uint8 [S, S, 3]`.
        kind: blur, noise or JPEG.
        severity: 1, 2 or 3.
        seed: of the noise.

    Returns:
        `uint8 [S, S, 3]`.
    """
    level = severity - 1
    if kind == "noise":
        generator = np.random.default_rng((seed, severity))
        noisy = pixels + _NOISE[level] * generator.standard_normal(pixels.shape, np.float32)
        return np.clip(noisy, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if kind == "blur":
        return np.asarray(image.filter(ImageFilter.GaussianBlur(_BLUR[level] * len(pixels))))
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=_QUALITY[level])
    with Image.open(packed) as again:
        return np.asarray(again.convert("RGB"))
