"""The photos that the bundled model is made from, with their sources, labels and splits."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from catordog.photos.datasets import open_dataset
from catordog.photos.splits import Split, SplitFractions, content_key_of, split_of

CAT, DOG, NEITHER = 0, 1, 2

KAGGLE = "dogs-vs-cats-200px"
PETS = ("pets-224", "oxford-3-breeds-224")
THINGS = ("neither-224", "neither-cat-nor-dog")
UNSEEN = ("tasks-224",)
"""Only for measurements: hands and insects, which no part of the model was trained to reject."""

FRACTIONS = SplitFractions(val=0.1, test=0.1)
"""Validation photos calibrate the model; test photos measure it."""

_LABELS = {"cat": CAT, "dog": DOG}


@dataclass(frozen=True, slots=True)
class Row:
    """One photo.

    Attributes:
        source: the name of the archive or folder.
        name: of the photo in it.
        label: CAT, DOG or NEITHER.
        split: only `train` photos are trained on.
    """

    source: str
    name: str
    label: int
    split: Split

    @property
    def is_animal(self) -> bool:
        """Whether a photo without a cat or dog shows another animal."""
        return self.name.startswith("neither/popular_")


class Sources:
    """All photos below one folder.

    Args:
        root: contains the archives and folders named above.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archives: dict[str, zipfile.ZipFile] = {}

    def rows(self) -> list[Row]:
        """Every photo, in a fixed order. Copies share a split."""
        rows = []
        for source in (KAGGLE, *PETS):
            dataset = open_dataset(str(self.root / f"{source}.zip"))
            names = [_LABELS[name.lower()] for name in dataset.classes]
            for photo, split in zip(dataset.photos, dataset.splits(FRACTIONS), strict=True):
                name = photo.path.partition(".zip/")[2]
                assert photo.label is not None
                rows.append(Row(source, name, names[photo.label], split))
        for source in (*THINGS, *UNSEEN):
            for name in self._members(source):
                key = content_key_of(self.read(source, name))
                rows.append(Row(source, name, NEITHER, split_of(key, FRACTIONS)))
        return rows

    def read(self, source: str, name: str) -> bytes:
        """The bytes of a photo."""
        if (self.root / source).is_dir():
            return (self.root / source / name).read_bytes()
        return self._archive(source).read(name)

    def image(self, row: Row) -> Image.Image:
        """A photo in RGB."""
        return Image.open(io.BytesIO(self.read(row.source, row.name))).convert("RGB")

    def _members(self, source: str) -> list[str]:
        folder = self.root / source
        if folder.is_dir():
            return sorted(path.name for path in folder.rglob("*.jpg"))
        names = self._archive(source).namelist()
        return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png")))

    def _archive(self, source: str) -> zipfile.ZipFile:
        if source not in self._archives:
            self._archives[source] = zipfile.ZipFile(self.root / f"{source}.zip")
        return self._archives[source]
