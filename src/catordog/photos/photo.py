"""A photo, not yet read: its name, its label if it has one, and where its bytes come from."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Protocol, overload

from PIL import Image

from catordog.errors import PhotoError
from catordog.photos.decode import DEFAULT_RULES, Decoded, DecodeRules, decode, examine
from catordog.photos.parallel import in_parallel
from catordog.photos.splits import Split
from catordog.photos.stores import InMemory, SingleFile, Store
from catordog.terminal import progress

NO_LABEL = -1
"""In `Photos.labels`, the label of a photo without one."""


class PhotoSource(Protocol):
    """Gives photos by name: the files of a store, or the pictures of the synthetic dataset."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a photo's file. Raises `PhotoError`."""

    def image(self, name: str, near: int | None) -> Image.Image:
        """Read and decode a photo (see `decode.decode`). Raises `PhotoError`."""

    def examine(self, name: str, near: int) -> tuple[Decoded, bytes]:
        """Read and decode a photo, and return a digest of its bytes. Raises `PhotoError`."""

    def key(self, name: str) -> int:
        """Return a photo's content key (see `splits.content_key`). Raises `PhotoError`."""

    def path(self, name: str) -> str:
        """Return the path that users know a photo by."""

    def file(self, name: str) -> Path | None:
        """Return the file of a photo; None if it is in an archive or in memory."""

    def probability(self, name: str) -> float | None:
        """Return the true probability of the second class, if it is known."""


@dataclass(frozen=True, slots=True)
class StoreSource:
    """The photos of a store, with the rules that they are decoded by."""

    store: Store
    rules: DecodeRules = DEFAULT_RULES
    _keys: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def read(self, name: str) -> bytes:  # noqa: D102
        return self.store.read(name)

    def image(self, name: str, near: int | None) -> Image.Image:  # noqa: D102
        return decode(self.store.read(name), self.path(name), near=near, rules=self.rules)

    def examine(self, name: str, near: int) -> tuple[Decoded, bytes]:  # noqa: D102
        data = self.store.read(name)
        decoded = examine(data, self.path(name), near=near, rules=self.rules)
        return decoded, hashlib.blake2b(data, digest_size=16).digest()

    def key(self, name: str) -> int:  # noqa: D102
        if name not in self._keys:  # the key of a file in a folder takes reading all of it
            self._keys[name] = self.store.key(name)
        return self._keys[name]

    def path(self, name: str) -> str:  # noqa: D102
        return self.store.path(name)

    def file(self, name: str) -> Path | None:  # noqa: D102
        return self.store.file(name)

    def probability(self, name: str) -> float | None:  # noqa: D102
        del name
        return None


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a dataset, or one to predict. It is read only when its content is asked for.

    Attributes:
        name: relative to its dataset, folder or archive.
        label: index into the dataset's classes; None for an unlabelled photo.
        own_split: the split that the dataset assigns to it, if it does.
    """

    name: str
    label: int | None
    own_split: Split | None
    _source: PhotoSource = field(repr=False, compare=False)

    @classmethod
    def from_file(cls, path: str | PathLike[str], rules: DecodeRules = DEFAULT_RULES) -> Photo:
        """An unlabelled photo in a file, whatever its name."""
        store = SingleFile(Path(path))
        return cls(store.name, None, None, StoreSource(store, rules))

    @classmethod
    def from_bytes(cls, data: bytes, path: str, rules: DecodeRules = DEFAULT_RULES) -> Photo:
        """An unlabelled photo in memory; `path` names it in errors."""
        return cls(path, None, None, StoreSource(InMemory(data, path), rules))

    @property
    def path(self) -> str:
        """The path that users know it by; for a photo in an archive, that of the archive first."""
        return self._source.path(self.name)

    @property
    def file(self) -> Path | None:
        """Its file; None if it is in an archive, in memory, or synthetic."""
        return self._source.file(self.name)

    @property
    def suffix(self) -> str:
        """The suffix of its name, in lower case; `.jpg` if it has none."""
        return PurePosixPath(self.name).suffix.lower() or ".jpg"

    @property
    def probability(self) -> float | None:
        """The true probability of the second class, 0…1; known for synthetic pictures only."""
        return self._source.probability(self.name)

    def read(self) -> bytes:
        """Return the bytes of its file. Raises `PhotoError`."""
        return self._source.read(self.name)

    def image(self, near: int | None = None) -> Image.Image:
        """Read and decode it: an upright RGB image.

        Args:
            near: the side length, in pixels, that it will be resized to; a large JPEG is then
                decoded at a fraction of its size (see `decode.decode`). None: full size.

        Raises:
            PhotoError: it can't be read.
        """
        return self._source.image(self.name, near)

    def examine(self, near: int) -> tuple[Decoded, bytes]:
        """Read and decode it, with what its file states, and a digest of its bytes.

        Raises:
            PhotoError: it can't be read.
        """
        return self._source.examine(self.name, near)

    def key(self) -> int:
        """Return its content key (see `splits.content_key`). Raises `PhotoError`."""
        return self._source.key(self.name)


class Photos(Sequence[Photo]):
    """The photos of a dataset, stored as columns: a million take little memory.

    Args:
        source: gives each photo by its name.
        names: of N photos.
        labels: their indices into the dataset's classes, `[N]`; `NO_LABEL` for an unlabelled one.
        own_splits: the splits that the dataset assigns to them, `[N]`; None where it assigns none.
    """

    def __init__(
        self,
        source: PhotoSource,
        names: Sequence[str],
        labels: Iterable[int],
        own_splits: Sequence[Split | None],
    ) -> None:
        self.source = source
        self.names = names
        self.labels = array("l", labels)
        self.own_splits = own_splits

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Photo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Photo]: ...
    def __getitem__(self, index: int | slice) -> Photo | Sequence[Photo]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        label = None if self.labels[index] == NO_LABEL else self.labels[index]
        return Photo(self.names[index], label, self.own_splits[index], self.source)

    def with_labels(self, labels: Iterable[int]) -> Photos:
        """The same photos with these labels, `[N]`."""
        return Photos(self.source, self.names, labels, self.own_splits)

    def subset(self, indices: Sequence[int]) -> Photos:
        """The photos with these indices."""
        return Photos(
            self.source,
            [self.names[index] for index in indices],
            [self.labels[index] for index in indices],
            [self.own_splits[index] for index in indices],
        )


def keys_of(photos: Sequence[Photo]) -> list[int | None]:
    """Return the content keys of photos, read in parallel; None for an unreadable one."""
    keys = []
    with progress("reading contents", len(photos)) as done:
        for count, key in enumerate(in_parallel(key_or_none, photos), 1):
            keys.append(key)
            done(count)
    return keys


def key_or_none(photo: Photo) -> int | None:
    """Return the content key of a photo; None if it is unreadable."""
    try:
        return photo.key()
    except PhotoError:
        return None
