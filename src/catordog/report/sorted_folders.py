"""Photos sorted into folders by what is on them. The photos themselves are never touched."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

from catordog.errors import CatordogError, PhotoError
from catordog.photos.photo import Photo


class SortedFolders:
    """Folders by verdict, under one root.

    Args:
        root: where they are; made when the first photo comes.
        link: put links there (hard ones, or symbolic ones from another disk), and not copies.
    """

    def __init__(self, root: Path, *, link: bool = False) -> None:
        self.root, self._link = root, link

    def put(self, photo: Photo, verdict: str) -> Path:
        """Put a photo on its shelf. What is there stays: another photo of its name gets a number.

        Returns:
            where it is now, or was already.

        Raises:
            CatordogError: it can't be written.
        """
        shelf = self.root / (re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", verdict).strip(". ") or "_")
        name = PurePath(photo.path).name
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            if self._link and photo.file is not None:
                return self._linked(photo.file.resolve(), shelf, name)
            return self._copied(photo, shelf, name)
        except PhotoError:
            raise
        except OSError as error:
            raise CatordogError(
                f"can't put {photo.path} into {shelf}: {error.strerror or error}"
            ) from None

    def _linked(self, file: Path, shelf: Path, name: str) -> Path:
        for place in _names(shelf, name):
            if place.exists() and place.samefile(file):
                return place
            try:
                os.link(file, place)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
                    raise
                try:
                    place.symlink_to(file)
                except FileExistsError:
                    continue
            return place
        raise AssertionError

    def _copied(self, photo: Photo, shelf: Path, name: str) -> Path:
        handle, made = tempfile.mkstemp(dir=shelf, prefix=".copying-")
        fresh = Path(made)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(photo.read())
            fresh.chmod(0o644)
            if photo.file is not None:
                found = photo.file.stat()
                os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))
            for place in _names(shelf, name):
                if place.is_file() and filecmp.cmp(place, fresh, shallow=False):
                    return place
                if not os.path.lexists(place):
                    fresh.rename(place)
                    return place
        finally:
            fresh.unlink(missing_ok=True)
        raise AssertionError


def _names(shelf: Path, name: str) -> Iterator[Path]:
    """Yield `cat.jpg`, `cat (2).jpg`, `cat (3).jpg`, and so on."""
    yield shelf / name
    pure, number = PurePath(name), 2
    while True:
        yield shelf / f"{pure.stem} ({number}){pure.suffix}"
        number += 1
