"""Read the files of a folder or an archive by name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import encodable, printable
from catordog.photos.archives import Tar, Zip, is_tar, is_zip, unsupported
from catordog.photos.listing import (
    MAX_PHOTO_BYTES,
    RUN_FOLDERS,
    check_size,
    is_litter,
    is_photo_name,
)
from catordog.photos.splits import content_key_of
from catordog.terminal import info


class Store(Protocol):
    """A folder, an archive, or anything else that holds named files."""

    def names(self) -> Iterator[str]:
        """Relative POSIX names of all files but hidden ones and litter, in a fixed order."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. Raises `PhotoError`."""

    def key(self, name: str) -> int:
        """Return the content key of one file (see `splits.content_key`). Raises `PhotoError`."""

    def path(self, name: str) -> str:
        """Return the path that users know the file by."""

    def file(self, name: str) -> Path | None:
        """Return the file on disk; None if it is in an archive or in memory."""


class Folder:
    """The files under a folder, at any depth. Links to folders are followed, once each."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> Iterator[str]:  # noqa: D102
        # Not recursive, as os.walk is: folders may be nested deeper than Python's stack.
        seen = {_identity(self.root)}
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            folders, files = _entries(self.root / prefix)
            yield from (prefix + name for name in files)
            for name in reversed(folders):
                identity = _identity(self.root / prefix / name)
                if identity not in seen:  # a link to a parent folder would never end
                    seen.add(identity)
                    waiting.append(f"{prefix}{name}/")

    def read(self, name: str) -> bytes:  # noqa: D102
        return read_file(self.root / name)

    def key(self, name: str) -> int:  # noqa: D102
        return content_key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        return encodable(str(self.root / name))

    def file(self, name: str) -> Path | None:  # noqa: D102
        return self.root / name


class SingleFile:
    """One file, whatever it is called."""

    def __init__(self, path: Path) -> None:
        self.root = path
        self.name = path.name

    def names(self) -> Iterator[str]:  # noqa: D102
        yield self.name

    def read(self, name: str) -> bytes:  # noqa: D102
        del name
        return read_file(self.root)

    def key(self, name: str) -> int:  # noqa: D102
        return content_key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        del name
        return encodable(str(self.root))

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return self.root


class InMemory:
    """One file whose bytes are in memory."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data, self._path = data, path

    def names(self) -> Iterator[str]:  # noqa: D102
        yield self._path

    def read(self, name: str) -> bytes:  # noqa: D102
        del name
        return self._data

    def key(self, name: str) -> int:  # noqa: D102
        return content_key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        del name
        return self._path

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None


def open_store(path: Path) -> Store | None:
    """Open a folder or an archive, told apart by content; None if the path is neither.

    Raises:
        CatordogError: the path is an archive, but incomplete or damaged, or can't be read.
    """
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        return None
    head = _head(path)
    if words := unsupported(path, head):
        raise CatordogError(f"{path} is {words}")
    if is_zip(path, head):
        return Zip(path)
    if is_tar(path, head):
        return Tar(path)
    return None


def photo_names_in(folder: Path) -> list[str]:
    """The names of the photos in a folder itself, sorted."""
    return list(filter(is_photo_name, _entries(folder)[1]))


def read_file(path: Path) -> bytes:
    """Return the bytes of a photo's file. Raises `PhotoError`.

    Only regular files are opened, since a named pipe would block until another program writes to
    it. What a shell passes, such as `<(command)`, is read.
    """
    shown = encodable(str(path))
    try:
        if not is_passed_by_shell(path) and (kind := special_kind(path.stat().st_mode)):
            raise PhotoError(shown, f"not a regular file, but a {kind}")
        with path.open("rb") as file:
            check_size(os.fstat(file.fileno()).st_size, shown)
            data = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise PhotoError(shown, error.strerror or str(error)) from None
    check_size(len(data), shown)  # it may grow, and a device has no size
    return data


_KINDS = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def special_kind(mode: int) -> str | None:
    """What a file of this mode is that is neither a regular file nor a folder; None otherwise."""
    return _KINDS.get(stat.S_IFMT(mode))


def is_passed_by_shell(path: Path) -> bool:
    """Whether a path is an open file descriptor, as `/dev/stdin` is."""
    return str(path).startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/"))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise CatordogError(f"{path}: {error.strerror or error}") from None


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The names of folders and of files in a folder, sorted and without litter."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_litter(entry.name):
                    (folders if _is_folder(entry) else files).append(entry.name)
                elif entry.name.lower() in RUN_FOLDERS and _is_folder(entry):
                    _note_run_folder(printable(entry.path))
    except OSError as error:
        info(f"skipped: {printable(str(folder))}: {error.strerror or error}")
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; it is reported as a file that can't be read
        return False


@lru_cache(maxsize=1024)
def _note_run_folder(path: str) -> None:
    """Report once that a folder is skipped: its name might also be that of a class."""
    info(f"skipped: {path}: it has the name of a folder of training runs")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
