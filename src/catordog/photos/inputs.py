"""The unlabelled photos that paths name: files, folders, archives and glob patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from catordog.errors import CatordogError
from catordog.photos.archive_names import is_archive_name, note_archives
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.listing import is_photo_name
from catordog.photos.photo import Photo, StoreSource
from catordog.photos.stores import Folder, SingleFile, Store, open_store


class Inputs:
    """The photos that files, folders (at any depth), archives and glob patterns name, in order.

    A file that is named itself is always taken; in folders and archives, suffixes decide. A
    pattern takes each photo once. Photos are listed anew by each iteration, so a million of them
    take no memory.

    Args:
        paths: files, folders, archives and patterns.
        rules: how they are decoded.

    Raises:
        CatordogError: a path does not exist.
    """

    def __init__(self, paths: Sequence[str], rules: DecodeRules = DEFAULT_RULES) -> None:
        self.rules = rules
        self._stores: list[tuple[str, Store]] = []
        for path in paths:
            matches = matches_of(path)
            if not matches:
                kind = "nothing matches it" if glob.has_magic(path) else "no such file or folder"
                raise CatordogError(f"{path}: {kind}")
            stores = [(match, _store_at(match)) for match in matches]
            folders = {Path(match) for match, store in stores if isinstance(store, Folder)}
            self._stores += [
                (match, store)
                for match, store in stores
                # The listing of `pets` covers what else `pets/**` matches, except for archives.
                if folders.isdisjoint(Path(match).parents)
                or not isinstance(store, (Folder, SingleFile))
            ]

    def __iter__(self) -> Iterator[Photo]:
        for _, store in self._stores:
            source = StoreSource(store, self.rules)
            for name in _photo_names(store):
                yield Photo(name, None, None, source)

    def locations(self) -> Iterator[tuple[str, str, str]]:
        """Yield `root, name, path` of each photo; `PhotosByLocation` opens it elsewhere."""
        for root, store in self._stores:
            for name in _photo_names(store):
                yield root, name, store.path(name)

    def count(self) -> int:
        """Return how many there are, and name the archives in folders, which are not looked into.

        Raises:
            CatordogError: a folder or archive has no photo.
        """
        total = 0
        for path, store in self._stores:
            here, archives = _counted(store)
            note_archives(path, archives)
            if not here:
                raise CatordogError(f"{path}: no photos in it")
            total += here
        return total


def matches_of(path: str) -> list[str]:
    """The path itself, if it exists, or what it matches as a pattern, sorted."""
    # A name with brackets in it is a name if there is such a file. Path.glob takes no absolute
    # patterns.
    return [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))  # noqa: PTH207


def searched_folders(path: str) -> list[str]:
    """The folders that a pattern with `**` searches at any depth; none if it is no such pattern."""
    parts = Path(path).parts
    if "**" not in parts or Path(path).exists():
        return []
    before = parts[: parts.index("**")]
    return matches_of(str(Path(*before))) if before else ["."]


class PhotosByLocation:
    """Opens the photos that `Inputs.locations` lists, in another process.

    Args:
        rules: how they are decoded.
    """

    def __init__(self, rules: DecodeRules = DEFAULT_RULES) -> None:
        self._rules = rules
        self._sources: dict[str, StoreSource] = {}

    def photo(self, root: str, name: str) -> Photo:
        """Return the photo of that name in a folder or archive, or the file `root` itself."""
        if root not in self._sources:
            self._sources[root] = StoreSource(_store_at(root), self._rules)
        return Photo(name, None, None, self._sources[root])


def _store_at(path: str) -> Store:
    file = Path(path)
    if file.is_file() and not os.access(file, os.R_OK):
        return SingleFile(file)  # reading it says why, and stops no run
    return open_store(file) or SingleFile(file)


def _counted(store: Store) -> tuple[int, list[str]]:
    """How many photos are in a store, and the archives in it that are not looked into."""
    if isinstance(store, SingleFile):
        return 1, []
    photos, archives = 0, []
    for name in store.names():
        if is_photo_name(name):
            photos += 1
        elif is_archive_name(name):
            archives.append(name)
    return photos, archives


def _photo_names(store: Store) -> Iterator[str]:
    names = store.names()
    return names if isinstance(store, SingleFile) else filter(is_photo_name, names)
