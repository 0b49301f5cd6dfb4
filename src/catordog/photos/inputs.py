"""The photos that paths name: files, folders, archives and glob patterns."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catordog.errors import CatordogError
from catordog.photos.decode import is_photo_name
from catordog.photos.stores import Folder, Store, open_store, read_file


@dataclass(frozen=True, slots=True)
class Input:
    """One photo to predict.

    Attributes:
        path: what it is called.
        read: gives its bytes.
        file: where it lies; None where it is in an archive.
    """

    path: str
    read: Callable[[], bytes]
    file: Path | None = None


class Inputs:
    """The photos that files, folders (at any depth), zips and glob patterns name, in that order.

    A file that is named itself is always taken; in folders and zips, names decide. They are listed
    anew each time they are asked for, so that a million of them take no memory.

    Args:
        paths: files, folders, zips and patterns.

    Raises:
        CatordogError: a path does not exist.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._places: list[tuple[str, Store | None]] = []
        for path in paths:
            # A name with brackets in it is a name if there is such a file. Path.glob takes no
            # absolute patterns.
            exists = Path(path).exists()
            matches = [path] if exists else sorted(glob.glob(path, recursive=True))  # noqa: PTH207
            if not matches:
                kind = "nothing matches it" if glob.has_magic(path) else "no such file or folder"
                raise CatordogError(f"{path}: {kind}")
            self._places += [(match, open_store(Path(match))) for match in matches]

    def __iter__(self) -> Iterator[Input]:
        for path, store in self._places:
            if store is None:
                file = Path(path)
                yield Input(str(file), partial(read_file, file), file)
                continue
            folder = store.root if isinstance(store, Folder) else None
            for name in filter(is_photo_name, store.names()):
                yield Input(store.path(name), partial(store.read, name), folder and folder / name)

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Where each lies, and its path: a file and "", or a folder or archive and a name in it."""
        for path, store in self._places:
            if store is None:
                yield path, "", str(Path(path))
                continue
            for name in filter(is_photo_name, store.names()):
                yield path, name, store.path(name)

    def count(self) -> int:
        """How many there are.

        Raises:
            CatordogError: a folder or zip has no photo.
        """
        total = 0
        for path, store in self._places:
            here = 1 if store is None else sum(map(is_photo_name, store.names()))
            if not here:
                raise CatordogError(f"{path}: no photos in it")
            total += here
        return total
