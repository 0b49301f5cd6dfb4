"""Sort photos into folders by verdict. The originals are never changed."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.files import file_name
from catordog.photos.photo import Photo

_OF_ONE_PHOTO = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
"""Errors of a name that the file system does not take; other photos can still be written."""


class SortedFolders:
    """Folders by verdict, under one root.

    Args:
        root: their parent folder; created for the first photo.
        verdicts: all that can be put, in a fixed order, so that each has the same folder in every
            run.
        link: make hard links (symbolic links across disks) instead of copies.

    Attributes:
        names: the name of each verdict's folder; no two share one.
    """

    def __init__(self, root: Path, verdicts: Iterable[str] = (), *, link: bool = False) -> None:
        self.root, self._link = root, link
        self.names: dict[str, str] = {}
        self._taken: set[str] = set()
        # A verdict that can be the name of a folder has its own name, also after `a?b` and `a:b`.
        for verdict in sorted(verdicts, key=lambda verdict: _safe(verdict) != verdict):
            self._add(verdict)

    def _add(self, verdict: str) -> None:
        safe = _safe(verdict)
        names = (file_name(safe, f" ({number})" if number > 1 else "") for number in count(1))
        self.names[verdict] = next(name for name in names if _same(name) not in self._taken)
        self._taken.add(_same(self.names[verdict]))

    def put(self, photo: Photo, verdict: str, suffix: str = "") -> Path:
        """Put a photo into the folder of its verdict.

        Nothing is overwritten: another photo of the same name gets a number, and a photo that is
        there already is not copied again. A name that is too long is shortened.

        Args:
            photo: the photo.
            verdict: names the folder.
            suffix: to add to the photo's name.

        Returns:
            The path of the copy or link.

        Raises:
            CatordogError: it can't be written.
            PhotoError: the photo is gone, or the file system does not take its name.
        """
        if verdict not in self.names:
            self._add(verdict)
        folder = self.root / self.names[verdict]
        file = photo.file
        # The path is escaped where it is no Unicode; the copy has the bytes of the original name.
        name = PurePath(photo.path if file is None else file).name + suffix
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._link and file is not None and file.is_file():
                return _linked(file.resolve(), folder, name)
            return _copied(photo, folder, name)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _OF_ONE_PHOTO:
                raise PhotoError(photo.path, f"can't be put into {folder}: {reason}") from None
            raise CatordogError(
                f"can't put {printable(photo.path)} into {printable(folder)}: {reason}"
            ) from None


def _safe(verdict: str) -> str:
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", verdict).strip(". ") or "_"


def _same(name: str) -> str:
    """What is equal of two names that are one folder: many systems do not tell `A` from `a`."""
    return name.casefold() if sys.platform in {"win32", "darwin"} else name


def _linked(file: Path, folder: Path, name: str) -> Path:
    for target in _targets(folder, name):
        if target.exists() and (target.samefile(file) or _is_copy(target, file)):
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


def _copied(photo: Photo, folder: Path, name: str) -> Path:
    data = photo.read()
    for target in _targets(folder, name):
        if _has(target, data):
            return target
        if not os.path.lexists(target):
            break
    # Named before it is created, so that Ctrl-C at any time removes it.
    temporary = folder / f".copying-{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
        if photo.file is not None:
            with suppress(FileNotFoundError):  # it has been removed meanwhile
                found = photo.file.stat()
                os.utime(temporary, ns=(found.st_atime_ns, found.st_mtime_ns))
        while not _moved(temporary, target):  # another process has been faster
            target = next(each for each in _targets(folder, name) if not os.path.lexists(each))
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _moved(temporary: Path, target: Path) -> bool:
    """Give a file its name, unless there is one of this name."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:  # no hard links on this disk
        if os.path.lexists(target):
            return False
        temporary.rename(target)
    return True


def _is_copy(target: Path, file: Path) -> bool:
    """Whether a run without links has put the file there."""
    return target.is_file() and filecmp.cmp(target, file, shallow=False)


def _has(target: Path, data: bytes) -> bool:
    """Whether a file is there already, and has this content."""
    if not target.is_file() or target.stat().st_size != len(data):
        return False
    return target.read_bytes() == data


def _targets(folder: Path, name: str) -> Iterator[Path]:
    """Yield `cat.jpg`, `cat (2).jpg`, `cat (3).jpg`, and so on."""
    pure = PurePath(name)
    # What follows the last dot of a long name need not be a suffix.
    stem, suffix = (pure.stem, pure.suffix) if len(pure.suffix) < 20 else (name, "")
    yield folder / file_name(stem, suffix)
    for number in count(2):
        yield folder / file_name(stem, f" ({number}){suffix}")
