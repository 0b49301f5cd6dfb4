"""A photo: where its bytes come from, what it is called, and its label."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, overload

from PIL import Image

from catordog.errors import PhotoError
from catordog.photos.decode import (
    Decoded,
)
from catordog.photos.parallel import in_parallel
from catordog.photos.splits import Split
from catordog.terminal import progress


class Pictures(Protocol):
    """Where pictures come from, by name: files of a store, or our own drawing."""

    def image(self, name: str, near: int | None) -> Image.Image:
        """Read and decode one (see `decode.decode`). Raises `PhotoError`."""

    def examine(self, name: str, near: int) -> tuple[Decoded, int, bytes]:
        """Read and decode one: what it is, its file's size, and a digest of its bytes."""

    def key(self, name: str) -> int:
        """Its content key (see `split.content_key`). Raises `PhotoError`."""

    def data(self, name: str) -> tuple[bytes, str]:
        """Its file, and the suffix of its name. Raises `PhotoError`."""

    def path(self, name: str) -> str:
        """What its owner calls it."""

    def probability(self, name: str) -> float | None:
        """The true probability of the second class, where it is known."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled photo, not yet read.

    Attributes:
        name: in its data set.
        label: index into the data set's classes.
        own_split: the side that the data set itself puts it on, if it does.
    """

    name: str
    label: int
    own_split: Split | None
    _pictures: Pictures = field(repr=False, compare=False)

    @property
    def path(self) -> str:
        """What its owner calls it."""
        return self._pictures.path(self.name)

    @property
    def probability(self) -> float | None:
        """The true probability of the second class, 0…1, where it is known: of drawn pictures."""
        return self._pictures.probability(self.name)

    def image(self, near: int | None = None) -> Image.Image:
        """Read and decode it (see `decode.decode`). Raises `PhotoError`."""
        return self._pictures.image(self.name, near)

    def examine(self, near: int) -> tuple[Decoded, int, bytes]:
        """Read and decode it: what it is, its file's size in bytes, and a digest of its bytes.

        Raises `PhotoError`.
        """
        return self._pictures.examine(self.name, near)

    def key(self) -> int:
        """Its content key (see `split.content_key`). Raises `PhotoError`."""
        return self._pictures.key(self.name)

    def data(self) -> tuple[bytes, str]:
        """Its file, as it is, and the suffix of its name, as in `.jpg`. Raises `PhotoError`."""
        return self._pictures.data(self.name)


class Photos(Sequence[Photo]):
    """Labelled photos, kept as lists of names and numbers: a million take little memory."""

    def __init__(
        self,
        pictures: Pictures,
        names: Sequence[str],
        labels: Iterable[int],
        own_splits: Sequence[Split | None],
    ) -> None:
        self.pictures = pictures
        self.names = names
        self.labels = array("l", labels)
        self.own_splits = own_splits

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Photo: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Photo]: ...
    def __getitem__(self, place: int | slice) -> Photo | Sequence[Photo]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        return Photo(self.names[place], self.labels[place], self.own_splits[place], self.pictures)


def keys_of(photos: Sequence[Photo]) -> list[int | None]:
    """The content keys of photos, read in parallel; None for one that can't be read."""
    keys = []
    with progress("looking at contents", len(photos)) as done:
        for count, key in enumerate(in_parallel(key_or_none, photos), 1):
            keys.append(key)
            done(count)
    return keys


def key_or_none(photo: Photo) -> int | None:
    """The content key of a photo; None if it can't be read."""
    try:
        return photo.key()
    except PhotoError:
        return None
