"""Read the files of a folder or an archive by name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from catordog.errors import PhotoError
from catordog.escaping import encodable, printable
from catordog.photos.archives import Tar, Zip, open_archive
from catordog.photos.listing import (
    MAX_PHOTO_BYTES,
    RUN_FOLDERS,
    Unopened,
    check_size,
    is_litter,
    is_photo_name,
)
from catordog.photos.splits import content_key_of
from catordog.terminal import info


class Store(Protocol):
    """A folder, an archive, or anything else that holds named files."""

    def names(self) -> Iterator[str]:
        """Relative POSIX names of all files but hidden ones and litter, in a fixed order.

        What can't be opened and may hold photos is among them, as `listing.Unopened`.
        """

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. Raises `PhotoError`."""

    def key(self, name: str) -> int:
        """Return the content key of one file (see `splits.content_key`). Raises `PhotoError`."""

    def path(self, name: str) -> str:
        """Return the path that users know the file by."""

    def file(self, name: str) -> Path | None:
        """Return the file on disk; None if it is in an archive or in memory."""


class Folder:
    """The files under a folder, at any depth. Links to folders are followed, once each.

    Sub-folders that can't be opened are listed by their own names, as unreadable photos.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> Iterator[str]:  # noqa: D102
        # Not recursive, as os.walk is: folders may be nested deeper than Python's stack.
        seen = {_identity(self.root): self.root}
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            entries = _entries(self.root / prefix, _note_skipped if prefix else _skipped)
            if entries is None:
                if prefix:
                    yield Unopened(prefix[:-1])
                continue
            folders, files = entries
            yield from (prefix + name for name in files)
            for name in reversed(folders):
                path = self.root / prefix / name
                identity = _identity(path)
                if identity is None or identity not in seen:
                    seen[identity] = path
                    waiting.append(f"{prefix}{name}/")
                else:  # a link to a parent folder would never end
                    _note_skipped(str(path), f"already read as {seen[identity]}")

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
        self._passed: bytes | None = None

    def names(self) -> Iterator[str]:  # noqa: D102
        yield self.name

    def read(self, name: str) -> bytes:  # noqa: D102
        del name
        if not is_passed_by_shell(self.root):
            return read_file(self.root)
        if self._passed is None:  # a pipe can be read only once
            self._passed = read_file(self.root)
        return self._passed

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


def open_store(path: Path) -> Folder | Zip | Tar | None:
    """Open a folder or an archive, told apart by content; None if the path is neither.

    Raises:
        CatordogError: the path is an archive, but incomplete or damaged, or can't be read.
    """
    if path.is_dir():
        return Folder(path)
    return open_archive(path) if path.is_file() else None


def photo_names_in(folder: Path) -> list[str]:
    """The names of the photos in a folder itself, sorted."""
    entries = _entries(folder, _skipped)
    return list(filter(is_photo_name, entries[1])) if entries else []


def read_file(path: Path) -> bytes:
    """Return the bytes of a photo's file. Raises `PhotoError`.

    Only regular files are opened, since a named pipe would block until another program writes to
    it. What a shell passes, such as `<(command)`, is read.
    """
    shown = encodable(str(path))
    try:
        mode = 0 if is_passed_by_shell(path) else path.stat().st_mode
        if kind := special_kind(mode):
            raise PhotoError(shown, f"not a regular file, but a {kind}")
        if stat.S_ISDIR(mode):
            os.scandir(path).close()  # says why it can't be opened
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


def _entries(
    folder: Path, skipped: Callable[[str, str], None]
) -> tuple[list[str], list[str]] | None:
    """The names of folders and of files in a folder, sorted and without litter.

    None if it can't be opened, which `skipped` reports.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_litter(entry.name):
                    (folders if _is_folder(entry) else files).append(entry.name)
                elif entry.name.lower() in RUN_FOLDERS and _is_folder(entry):
                    # It might also be the name of a class.
                    _note_skipped(entry.path, "it has the name of a folder of training runs")
    except OSError as error:
        skipped(str(folder), error.strerror or str(error))
        return None
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; it is reported as a file that can't be read
        return False


def _skipped(path: str, reason: str) -> None:
    """Report that a folder is skipped."""
    info(f"skipped: {printable(path)}: {printable(reason)}")


_note_skipped = lru_cache(maxsize=1024)(_skipped)
"""The same, once for each folder and reason: folders are listed several times."""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
