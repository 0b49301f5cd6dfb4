"""Views of photos: whole, and augmented as other cameras and framings would show them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from release.sources import KAGGLE, NEITHER, PETS, THINGS, Row, Sources

SIZE = 256
AUGMENTED = {KAGGLE: 2, PETS[0]: 6, PETS[1]: 4, **dict.fromkeys(THINGS, 4)}
"""Augmented views of each training photo, by source; small sources get more."""

PASTED = 0.35
"""Fraction of the views of cats and dogs that are pasted, small, onto a photo of something else."""

Pixels = npt.NDArray[np.uint8]
View = tuple[int, int]
"""Index of the row, and of its view: 0 is the whole photo."""

_BICUBIC, _BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def views_of(rows: Sequence[Row]) -> list[View]:
    """Every view: first each photo as it is, then augmented ones of the training photos."""
    views = [(index, 0) for index in range(len(rows))]
    for view in range(1, max(AUGMENTED.values()) + 1):
        views += [
            (index, view)
            for index, row in enumerate(rows)
            if row.split == "train" and view <= AUGMENTED.get(row.source, 0)
        ]
    return views


class Viewer:
    """Makes views; the same ones every time.

    Args:
        sources: where photos are.
        rows: all photos.
    """

    def __init__(self, sources: Sources, rows: Sequence[Row]) -> None:
        self.sources, self.rows = sources, rows
        self.backgrounds = [
            row for row in rows
            if row.source in THINGS and row.split == "train" and not row.is_animal
        ]  # fmt: skip

    def pixels(self, view: View) -> Pixels:
        """One view, `uint8 [SIZE, SIZE, 3]`."""
        index, number = view
        row = self.rows[index]
        image = self.sources.image(row)
        if number == 0:
            return np.asarray(image.resize((SIZE, SIZE), _BICUBIC))
        rng = np.random.default_rng([7, index, number])
        if row.label != NEITHER and rng.random() < PASTED:
            background = self.backgrounds[rng.integers(len(self.backgrounds))]
            framed = _pasted(image, self.sources.image(background), rng)
        else:
            framed = _cropped(image, rng)
        return _another_camera(framed, rng)


def _box(
    rng: np.random.Generator, size: tuple[int, int], least: float, stretch: float
) -> tuple[float, float, float, float]:
    """A random part of an image, with at least a fraction of its area."""
    area, ratio = rng.uniform(least, 1), math.exp(rng.uniform(-stretch, stretch))
    width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left * size[0], top * size[1], (left + width) * size[0], (top + height) * size[1]


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.15:  # an image of low resolution
        scale = rng.uniform(0.25, 0.7)
        width, height = (max(24, int(length * scale)) for length in image.size)
        image = image.resize((width, height), _BILINEAR)
    return image.resize((SIZE, SIZE), _BICUBIC, box=_box(rng, image.size, 0.35, 0.4))


def _pasted(image: Image.Image, background: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A small animal in a large scene, with soft edges."""
    scene = background.resize((SIZE, SIZE), _BILINEAR)
    scale = math.exp(rng.uniform(math.log(0.22), math.log(0.75)))
    root = math.exp(rng.uniform(-0.15, 0.15))
    width, height = (max(24, min(SIZE, int(SIZE * scale * f))) for f in (root, 1 / root))
    front = image.resize((width, height), _BICUBIC, box=_box(rng, image.size, 0.6, 0.15))
    left, top = rng.integers(0, SIZE - width + 1), rng.integers(0, SIZE - height + 1)
    x = np.abs(np.linspace(-1, 1, width))[None]
    y = np.abs(np.linspace(-1, 1, height))[:, None]
    power = rng.choice([2.5, 4, 12])  # from an ellipse to a rectangle
    distance = (x**power + y**power) ** (1 / power)
    mask = np.clip((1 - distance) / rng.uniform(0.03, 0.25), 0, 1)
    scene.paste(front, (int(left), int(top)), Image.fromarray((mask * 255).astype(np.uint8)))
    return scene


def _another_camera(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """Flip, blur, light, colour, noise and JPEG compression at random."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.2)))
    values = np.asarray(image, dtype=np.float32)
    grey = values.mean(axis=2, keepdims=True)
    saturation = rng.uniform(0.6, 1.35) if rng.random() < 0.93 else 0.0
    values = grey + (values - grey) * saturation
    contrast, brightness = rng.uniform(0.7, 1.3), rng.uniform(0.72, 1.28)
    values = (values - values.mean()) * contrast + values.mean() * brightness
    values = values * rng.uniform(0.92, 1.08, 3)
    if rng.random() < 0.15:
        values = values + rng.normal(0, rng.uniform(3, 18), values.shape)
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=int(rng.integers(25, 85)))
        pixels = np.asarray(Image.open(packed).convert("RGB"))
    return pixels
