"""Sort photos into folders by verdict. The originals are never changed."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

from catordog.errors import CatordogError
from catordog.photos.photo import Photo


class SortedFolders:
    """Folders by verdict, under one root.

    Args:
        root: their parent folder; created for the first photo.
        link: make hard links (symbolic links across disks) instead of copies.
    """

    def __init__(self, root: Path, *, link: bool = False) -> None:
        self.root, self._link = root, link

    def put(self, photo: Photo, verdict: str) -> Path:
        """Put a photo into the folder of its verdict.

        Nothing is overwritten: another photo of the same name gets a number, and a photo that is
        there already is not copied again.

        Returns:
            The path of the copy or link.

        Raises:
            CatordogError: it can't be written.
            PhotoError: the photo is gone.
        """
        safe = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", verdict).strip(". ") or "_"
        folder = self.root / safe
        name = PurePath(photo.path).name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._link and photo.file is not None:
                return self._linked(photo.file.resolve(), folder, name)
            return self._copied(photo, folder, name)
        except OSError as error:
            raise CatordogError(
                f"can't put {photo.path} into {folder}: {error.strerror or error}"
            ) from None

    def _linked(self, file: Path, folder: Path, name: str) -> Path:
        for target in _names(folder, name):
            if target.exists() and target.samefile(file):
                return target
            try:
                os.link(file, target)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
                    raise
                try:
                    target.symlink_to(file)
                except FileExistsError:
                    continue
            return target
        raise AssertionError

    def _copied(self, photo: Photo, folder: Path, name: str) -> Path:
        handle, created = tempfile.mkstemp(dir=folder, prefix=".copying-")
        temporary = Path(created)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(photo.read())
            temporary.chmod(0o644)
            if photo.file is not None:
                found = photo.file.stat()
                os.utime(temporary, ns=(found.st_atime_ns, found.st_mtime_ns))
            for target in _names(folder, name):
                if target.is_file() and filecmp.cmp(target, temporary, shallow=False):
                    return target
                if not os.path.lexists(target):
                    temporary.rename(target)
                    return target
        finally:
            temporary.unlink(missing_ok=True)
        raise AssertionError


def _names(folder: Path, name: str) -> Iterator[Path]:
    """Yield `cat.jpg`, `cat (2).jpg`, `cat (3).jpg`, and so on."""
    yield folder / name
    pure, number = PurePath(name), 2
    while True:
        yield folder / f"{pure.stem} ({number}){pure.suffix}"
        number += 1
