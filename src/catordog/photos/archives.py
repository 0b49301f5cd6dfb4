"""Read photos in zip and tar archives, in place. Archives are untrusted.

No member is ever written under its own name, and none is read beyond the size that it declares.
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import encodable, printable
from catordog.photos.archive_names import MULTIPART, TAR_SUFFIXES, is_part_of_zip, unsupported
from catordog.photos.listing import Unopened, check_size, is_litter_path
from catordog.photos.splits import content_key, content_key_of
from catordog.photos.tars import OPEN_COMPRESSED, members_of_tar, plain_tar
from catordog.photos.unpacking import ArchiveError, Budget, safe_name, temporary_folder
from catordog.terminal import info


def open_archive(
    path: Path, shown: str | None = None, depth: int = 0, budget: Budget | None = None
) -> Zip | Tar | None:
    """Open a zip or tar, told apart by content, or by name if it is damaged; None if it is neither.

    Args:
        path: the file.
        shown: the path that users know it by; None: `path`.
        depth: how many archives it is in.
        budget: that of the outer archive, if it is in one.

    Raises:
        ArchiveError: it is incomplete, damaged, encrypted, or of another kind.
        CatordogError: the file can't be read, or the archives in it are too large.
    """
    shown = str(path) if shown is None else shown
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CatordogError(f"{shown}: {error.strerror or error}") from None
    if words := unsupported(path, head):
        raise ArchiveError(shown, words)
    name = path.name.lower()
    tar = head[257:262] == b"ustar" or head.startswith(tuple(OPEN_COMPRESSED))
    if head.startswith(b"PK\x03\x04") or (name.endswith(".zip") and not tar):
        return Zip(path, shown, depth, budget)
    return Tar(path, shown, depth, budget) if tar or name.endswith(TAR_SUFFIXES) else None


class Zip:
    """The files of a zip, and of the zips and tars in it (Kaggle packs `train.zip` into one).

    Only inner archives are extracted, into temporary files. Every thread and process has its own
    handle.

    Args:
        path: the file.
        shown: the path that users know it by; None: `path`.
        depth: how many archives it is in.
        budget: that of the outer archive, if it is in one.

    Raises:
        ArchiveError: it is incomplete or damaged, or all that is in it are such archives.
        CatordogError: the archives in it are too large.
    """

    def __init__(
        self, path: Path, shown: str | None = None, depth: int = 0, budget: Budget | None = None
    ) -> None:
        self.root = path
        self._shown = shown = str(path) if shown is None else shown
        self._handles = threading.local()
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._inner = _Inner(shown, depth, budget or Budget(shown))
        for member in self._archive().infolist():
            if not (member.is_dir() or is_litter_path(member.filename)):
                self._members[safe_name(member.filename)] = member
        for name in [name for name in self._members if self._inner.is_archive(name)]:
            member = self._members.pop(name)
            self._inner.add(name, member.file_size, partial(self._open, member), self._members)
        self._inner.report(alone=not self._members)

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(sorted([*self._members, *self._inner.names()]))

    def read(self, name: str) -> bytes:  # noqa: D102
        if name not in self._members:
            return self._inner.read(name, self.path(name))
        member = self._members[name]
        check_size(member.file_size, self.path(name))
        try:
            with self._open(member) as file:
                # A zip bomb may understate its size: never read beyond it.
                data = file.read(member.file_size + 1)
        except _UNREADABLE as error:
            raise PhotoError(self.path(name), _reason(error)) from None
        if len(data) != member.file_size:
            raise PhotoError(self.path(name), "damaged in its archive (wrong length)")
        return data

    def key(self, name: str) -> int:  # noqa: D102
        if name not in self._members:
            return self._inner.key(name, self.path(name))
        member = self._members[name]
        return content_key(member.CRC, member.file_size)

    def path(self, name: str) -> str:  # noqa: D102
        return encodable(f"{self._shown}/{name}")

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None

    def _open(self, member: zipfile.ZipInfo) -> IO[bytes]:
        return self._archive().open(member)

    def _archive(self) -> zipfile.ZipFile:
        """This thread's handle of the archive."""
        handles = self._handles.__dict__
        key = str(os.getpid())
        if key not in handles:
            try:
                handles[key] = zipfile.ZipFile(self.root)
            except UnicodeDecodeError:
                raise ArchiveError(
                    self._shown,
                    "a name in it is not in UTF-8, although the archive says so: unpack it, and "
                    "give the folder",
                ) from None
            except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
                if is_part_of_zip(self.root):
                    raise ArchiveError(self._shown, MULTIPART) from None
                raise ArchiveError(
                    self._shown,
                    f"not a complete zip archive ({error}): copy or download it again",
                ) from None
        archive: zipfile.ZipFile = handles[key]
        return archive

    def __getstate__(self) -> dict[str, object]:
        """Everything but the handles, for another process."""
        return {key: value for key, value in self.__dict__.items() if key != "_handles"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._handles = threading.local()


class _Inner:
    """The archives in an archive, and their files by the names that these have in the outer one.

    One that can't be opened is listed by its own name, as an unreadable photo.

    Args:
        shown: the path of the outer archive.
        depth: how many archives that is in.
        budget: how much may be unpacked.
    """

    def __init__(self, shown: str, depth: int, budget: Budget) -> None:
        self._shown, self._depth, self._budget = shown, depth, budget
        self._files: dict[str, tuple[Zip | Tar, str]] = {}
        self._unusable: dict[str, ArchiveError] = {}

    def is_archive(self, name: str) -> bool:
        """Whether a member is an archive that is looked into."""
        return name.lower().endswith((".zip", *TAR_SUFFIXES)) and self._depth < _MAX_DEPTH

    def add(
        self,
        name: str,
        size: int,
        open_member: Callable[[], IO[bytes]],
        taken: Container[str],
    ) -> None:
        """Extract an archive: reading it takes seeking, which inflating can't do.

        Args:
            name: of the archive.
            size: that it declares.
            open_member: opens it.
            taken: names in the outer archive, which files in this one can't have.

        Raises:
            CatordogError: the archives unpack to too much.
        """
        shown = encodable(f"{self._shown}/{name}")
        suffix = next(x for x in (".zip", *TAR_SUFFIXES) if name.lower().endswith(x))
        target = temporary_folder() / f"inner{suffix}"
        try:
            try:
                with open_member() as packed, target.open("wb", buffering=0) as file:
                    self._copy(packed, file, size)
            except _UNREADABLE as error:
                raise ArchiveError(shown, _reason(error)) from None
            store = open_archive(target, shown, self._depth + 1, self._budget)
        except ArchiveError as error:
            self._unusable[name] = error
            return
        assert store is not None  # its name says that it is an archive
        prefix = name[: -len(suffix)] + "/"
        inner_names = list(store.names())
        # Kaggle's train.zip holds train/: don't repeat it.
        start = "" if all(inner.startswith(prefix) for inner in inner_names) else prefix
        for inner in inner_names:
            own = start + inner
            if own in taken or own in self._files:  # beside cat.zip there is cat/, or cat.tar
                own = _renamed(own, PurePath(name).name)
            self._files[type(inner)(own)] = (store, inner)

    def _copy(self, packed: IO[bytes], file: IO[bytes], size: int) -> None:
        left = size
        while left > 0 and (block := packed.read(min(left, 2**20))):
            self._budget.write(file, block)
            left -= len(block)

    def report(self, *, alone: bool) -> None:
        """Name the archives that can't be opened, or raise `ArchiveError` if that leaves no file.

        Args:
            alone: the outer archive has no other files.
        """
        errors = list(self._unusable.values())
        if errors and alone and not self._files:
            raise errors[0]
        for error in errors:
            info(f"skipped: {printable(str(error))}")

    def names(self) -> Iterable[str]:
        return [*self._files, *map(Unopened, self._unusable)]

    def read(self, name: str, path: str) -> bytes:
        """Return the bytes of a file; `path` is the one that users know it by."""
        if name in self._unusable:
            raise PhotoError(path, self._unusable[name].reason)
        store, inner = self._files[name]
        try:
            return store.read(inner)
        except PhotoError as error:
            raise PhotoError(path, error.reason) from None

    def key(self, name: str, path: str) -> int:
        if name in self._unusable:
            raise PhotoError(path, self._unusable[name].reason)
        store, inner = self._files[name]
        return store.key(inner)


def _renamed(name: str, archive: str) -> str:
    """The name of a file whose own name is taken: that of its archive is added.

    >>> _renamed("cat/1.jpg", "cat.zip")
    'cat/1 (cat.zip).jpg'
    """
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem} ({archive}){path.suffix}").as_posix()


_MAX_DEPTH = 2
"""Archives nested deeper than this are left out; a file of some kilobytes may nest for ever."""

_UNREADABLE = (zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError, struct.error,
               NotImplementedError, RuntimeError, UnicodeDecodeError)  # fmt: skip
"""What reading a member of a damaged or encrypted archive raises."""


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "password" in str(error):
        return "encrypted: unpack the archive with its password"
    return f"damaged in its archive ({error})"


class Tar:
    """The files of a tar.

    A compressed one (gzip, bzip2, xz) allows no random access: it is decompressed once, into a
    temporary file. Links, devices and sparse files are left out. Zips and tars in it are looked
    into.

    Args:
        path: the file.
        shown: the path that users know it by; None: `path`.
        depth: how many archives it is in.
        budget: that of the outer archive, if it is in one.

    Raises:
        ArchiveError: it is incomplete or damaged, or all that is in it are such archives.
        CatordogError: it decompresses to too much, or the archives in it are too large.
    """

    def __init__(
        self, path: Path, shown: str | None = None, depth: int = 0, budget: Budget | None = None
    ) -> None:
        self.root = path
        self._shown = shown = str(path) if shown is None else shown
        budget = budget or Budget(shown)
        self._tar = plain_tar(path, shown, budget)
        self._members: dict[str, tuple[int, int]] = {}
        self._inner = _Inner(shown, depth, budget)
        try:
            self._members.update(members_of_tar(self._tar))
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            raise ArchiveError(
                shown, f"not a complete tar archive ({error}): copy or download it again"
            ) from None
        for name in [name for name in self._members if self._inner.is_archive(name)]:
            offset, size = self._members.pop(name)
            self._inner.add(name, size, partial(self._open_at, offset), self._members)
        self._inner.report(alone=not self._members)

    def _open_at(self, offset: int) -> IO[bytes]:
        file = self._tar.open("rb")
        file.seek(offset)
        return file

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(sorted([*self._members, *self._inner.names()]))

    def read(self, name: str) -> bytes:  # noqa: D102
        if name not in self._members:
            return self._inner.read(name, self.path(name))
        offset, size = self._members[name]
        check_size(size, self.path(name))
        try:
            with self._tar.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise PhotoError(self.path(name), error.strerror or str(error)) from None
        if len(data) != size:
            raise PhotoError(self.path(name), "truncated: its archive ends too early")
        return data

    def key(self, name: str) -> int:  # noqa: D102
        return content_key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        return encodable(f"{self._shown}/{name}")

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None
