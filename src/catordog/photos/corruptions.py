"""What time, weather and the web do to photos: blur, noise and JPEG, in three degrees each."""

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
"""Standard deviation, as a share of the photo's side."""
_NOISE = (12.0, 25.0, 50.0)
"""Standard deviation, of pixels in 0…255."""
_QUALITY = (30, 15, 7)
"""As libjpeg counts it."""


def corrupt(
    pixels: npt.NDArray[np.uint8], kind: Kind, degree: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """A photo as it would look after some damage.

    Args:
        pixels: `uint8 [S, S, 3]`.
        kind: what happens to it.
        degree: how bad it gets, 1, 2 or 3.
        seed: of the noise.

    Returns:
        `uint8 [S, S, 3]`.
    """
    place = degree - 1
    if kind == "noise":
        generator = np.random.default_rng((seed, degree))
        noisy = pixels + _NOISE[place] * generator.standard_normal(pixels.shape, np.float32)
        return np.clip(noisy, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if kind == "blur":
        return np.asarray(image.filter(ImageFilter.GaussianBlur(_BLUR[place] * len(pixels))))
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=_QUALITY[place])
    with Image.open(packed) as again:
        return np.asarray(again.convert("RGB"))
