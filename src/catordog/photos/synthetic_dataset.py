"""The synthetic dataset, `--data drawn`: pictures that `synthetic` draws when they are read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from catordog.errors import CatordogError
from catordog.photos import synthetic
from catordog.photos.decode import Decoded
from catordog.photos.photo import Photos
from catordog.photos.splits import content_key

EXAMPLE = "drawn:n=8000,seed=0,size=64,morph=0,animals=2"
"""Every setting, with its default."""


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """Draws pictures by name; a name ends in `.INDEX.png`.

    Attributes:
        seed: of the series of pictures.
        picture_size: side length of a picture, in pixels.
        morph: fraction of pictures between cat and dog, 0…1.
        animals: number of classes, 2 or 3.
    """

    seed: int
    picture_size: int
    morph: float
    animals: int

    def image(self, name: str, near: int | None) -> Image.Image:  # noqa: D102
        del near
        return synthetic.draw(
            _index(name),
            self.seed,
            size=self.picture_size,
            morph=self.morph,
            animals=self.animals,
        ).image

    def examine(self, name: str, near: int) -> tuple[Decoded, bytes]:  # noqa: D102
        image = self.image(name, near)
        decoded = Decoded(image, "PNG", image.mode, image.width, image.height)
        return decoded, self.key(name).to_bytes(8, "big")

    def read(self, name: str) -> bytes:  # noqa: D102
        file = io.BytesIO()
        self.image(name, None).save(file, "PNG")
        return file.getvalue()

    def key(self, name: str) -> int:  # noqa: D102
        return content_key(_index(name), self.seed)

    def path(self, name: str) -> str:  # noqa: D102
        return name

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None

    def probability(self, name: str) -> float | None:  # noqa: D102
        if not self.morph:
            return None
        knob = synthetic.label_of(_index(name), self.seed, self.morph)[1]
        return synthetic.probability_of_dog(knob)


def _index(name: str) -> int:
    return int(name.split(".")[-2])


def synthetic_photos(data: str) -> tuple[tuple[str, ...], Photos]:
    """Class names and labelled pictures; nothing is drawn yet.

    Args:
        data: `drawn`, or `drawn:` and settings as in `EXAMPLE`, in any order.

    Raises:
        CatordogError: a setting is unknown or out of its range.

    >>> classes, photos = synthetic_photos("drawn:n=4")
    >>> classes, [photo.name for photo in photos[:2]]
    (('cat', 'dog'), ['drawn/cat.0.png', 'drawn/dog.1.png'])
    """
    values: dict[str, float] = {"n": 8000, "seed": 0, "size": 64, "morph": 0, "animals": 2}
    for setting in filter(None, data.partition(":")[2].split(",")):
        key, _, value = setting.partition("=")
        try:
            if key not in values:
                raise ValueError
            values[key] = float(value) if key == "morph" else int(value)
        except ValueError:
            raise CatordogError(
                f"--data {data}: unusable setting {setting!r}; write it like {EXAMPLE}"
            ) from None
    n, seed, size = int(values["n"]), int(values["seed"]), int(values["size"])
    morph, animals = values["morph"], int(values["animals"])
    if not (n > 0 and seed >= 0 and 16 <= size <= 1024 and 0 <= morph <= 1 and animals in {2, 3}):
        raise CatordogError(
            f"--data {data}: needs n > 0, seed ≥ 0, size in 16…1024, morph in 0…1, animals 2 or 3"
        )
    if morph and animals == 3:
        raise CatordogError(f"--data {data}: rabbits can't be morphed; remove morph or animals=3")
    labels = [synthetic.label_of(index, seed, morph, animals)[0] for index in range(n)]
    names = [f"drawn/{synthetic.CLASSES[label]}.{index}.png" for index, label in enumerate(labels)]
    photos = Photos(SyntheticSource(seed, size, morph, animals), names, labels, [None] * n)
    return synthetic.CLASSES[:animals], photos
