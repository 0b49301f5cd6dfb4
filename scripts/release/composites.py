"""Photos with a cat and a dog, and with two of the same, made from photos of one animal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from release.sources import CAT, DOG, KAGGLE, NEITHER, Row, Sources

SIDE = 200
BOTH = frozenset(Path(__file__).with_name("both.txt").read_text().split())
"""Kaggle's photos that show a cat and a dog, as far as they were found by eye."""

KINDS = ("side", "above", "pasted", "scene", "squashed")


def singles(rows: Sequence[Row], count: int) -> list[Row]:
    """Training photos of Kaggle with one animal, in random order, at most `count`."""
    chosen = [
        row for row in rows
        if row.source == KAGGLE and row.split == "train" and Path(row.name).stem not in BOTH
    ]  # fmt: skip
    order = np.random.default_rng(3).permutation(len(chosen))[:count]
    return [chosen[index] for index in order]


def scenes(rows: Sequence[Row]) -> list[Row]:
    """Training photos of neither."""
    return [row for row in rows if row.label == NEITHER and row.split == "train"]


def composites(
    sources: Sources, rows: Sequence[Row], count: int, seed: int, *, same: bool
) -> Iterator[tuple[Image.Image, npt.NDArray[np.float32]]]:
    """Photos of two animals, with the classes that each shows, `[2]`.

    Args:
        sources: where photos are.
        rows: all photos.
        count: how many.
        seed: chooses the photos.
        same: make half of them of two animals of one class, so that the seam is no evidence.
    """
    rng = np.random.default_rng(seed)
    pool = [
        row for row in rows
        if row.source == KAGGLE
        and row.split == ("train" if same else "test")
        and Path(row.name).stem not in BOTH
    ]  # fmt: skip
    cats = [row for row in pool if row.label == CAT]
    dogs = [row for row in pool if row.label == DOG]
    backgrounds = scenes(rows)

    def pick(among: Sequence[Row]) -> Image.Image:
        return sources.image(among[rng.integers(len(among))]).resize((SIDE, SIDE))

    for index in range(count):
        first, second = [(cats, dogs), (dogs, cats), (cats, cats), (dogs, dogs)][
            index % (4 if same else 2)
        ]
        shown = np.array([cats in (first, second), dogs in (first, second)], np.float32)
        kind = KINDS[index // 4 % len(KINDS)]
        yield _composed(kind, pick(first), pick(second), pick(backgrounds), rng), shown


def _composed(
    kind: str, first: Image.Image, second: Image.Image, scene: Image.Image,
    rng: np.random.Generator,
) -> Image.Image:  # fmt: skip
    canvas = Image.new("RGB", (SIDE, SIDE))
    cut = int(rng.integers(80, 121))
    if kind == "side":
        canvas.paste(_part(first, cut, SIDE, rng), (0, 0))
        canvas.paste(_part(second, SIDE - cut, SIDE, rng), (cut, 0))
    elif kind == "above":
        canvas.paste(_part(first, SIDE, cut, rng), (0, 0))
        canvas.paste(_part(second, SIDE, SIDE - cut, rng), (0, cut))
    elif kind == "squashed":
        half = SIDE // 2
        wide = rng.random() < 0.5
        size = (half, SIDE) if wide else (SIDE, half)
        canvas.paste(first.resize(size), (0, 0))
        canvas.paste(second.resize(size), (half, 0) if wide else (0, half))
    elif kind == "pasted":
        size = int(rng.integers(80, 111))
        left, top = rng.choice([0, SIDE - size]), rng.choice([0, SIDE - size, 100 - size // 2])
        canvas.paste(first, (0, 0))
        canvas.paste(second.resize((size, size)), (int(left), int(top)), _soft(size))
    else:
        canvas.paste(scene, (0, 0))
        for image, right in ((first, False), (second, True)):
            size = int(rng.integers(80, 116))
            top = int(rng.integers(20, SIDE - size + 1))
            canvas.paste(
                image.resize((size, size)), (SIDE - size if right else 0, top), _soft(size)
            )
    return canvas


def _part(image: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A part near the middle."""
    left, top = (
        int(rng.integers(spare // 3, spare - spare // 3 + 1))
        for spare in (SIDE - width, SIDE - height)
    )
    return image.crop((left, top, left + width, top + height))


def _soft(size: int) -> Image.Image:
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).rectangle([6, 6, size - 7, size - 7], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(4))
