"""Where the bytes of photos lie: a folder, or an archive that is read in place."""

from __future__ import annotations

import atexit
import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from catordog.errors import CatordogError, PhotoError
from catordog.photos.splits import content_key
from catordog.terminal import info, progress

MAX_PHOTO_BYTES = 256 * 2**20
"""A larger file is no photo but a mistake or an attack; it is refused unread."""

MAX_INNER_ARCHIVE_BYTES = 16 * 2**30
"""A larger archive that has to be unpacked to be read is refused."""

_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", ".ds_store"})


class Store(Protocol):
    """A place that holds named files."""

    def names(self) -> Iterator[str]:
        """Relative POSIX names of all files but hidden ones and litter, in a fixed order."""

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises `PhotoError`."""

    def key(self, name: str) -> int:
        """The content key of one file (see `split.content_key`). Raises `PhotoError`."""

    def path(self, name: str) -> str:
        """What its owner calls the file."""

    def file(self, name: str) -> Path | None:
        """Return the file on disk; None if it is in an archive or in memory."""


class Folder:
    """Files under a folder, at any depth; links to folders are followed, once each."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> Iterator[str]:  # noqa: D102
        # os.walk calls itself for every level; folders may be nested deeper than Python's stack.
        seen = {_identity(self.root)}
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            folders, files = _entries(self.root / prefix)
            yield from (prefix + name for name in files)
            for name in reversed(folders):
                identity = _identity(self.root / prefix / name)
                if identity not in seen:  # a link back up would go round for ever
                    seen.add(identity)
                    waiting.append(f"{prefix}{name}/")

    def read(self, name: str) -> bytes:  # noqa: D102
        return read_file(self.root / name)

    def key(self, name: str) -> int:  # noqa: D102
        return _key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        return str(self.root / name)

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
        return _key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        del name
        return str(self.root)

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
        return _key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        del name
        return self._path

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None


class Zip:
    """The files of a zip, and of the zips in it (Kaggle packs `train.zip` into one), in place.

    Nothing is extracted but an inner zip that is compressed once more, into a temporary file.
    Every thread and process reads through a handle of its own.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        self._handles = threading.local()
        self._unpacked: dict[str, Path] = {}
        with self._open() as archive:
            infos = archive.infolist()
        self._members: dict[str, tuple[str | None, zipfile.ZipInfo]] = {}
        for member in infos:
            if member.is_dir() or _is_litter_path(member.filename):
                continue
            if member.filename.lower().endswith(".zip"):
                self._add_inner(member)
            else:
                self._members[_safe(member.filename)] = (None, member)

    def _add_inner(self, outer: zipfile.ZipInfo) -> None:
        prefix = _safe(outer.filename)[: -len(".zip")] + "/"
        for member in self._archive(outer.filename).infolist():
            if not member.is_dir() and not _is_litter_path(member.filename):
                name = _safe(member.filename)  # Kaggle's train.zip holds train/: once is enough
                name = name if name.startswith(prefix) else prefix + name
                self._members[name] = (outer.filename, member)

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(sorted(self._members))

    def read(self, name: str) -> bytes:  # noqa: D102
        inner, member = self._members[name]
        if member.file_size > MAX_PHOTO_BYTES:
            raise PhotoError(self.path(name), f"{member.file_size / 2**20:.0f} MiB is no photo")
        if member.flag_bits & 0x1:
            raise PhotoError(self.path(name), "encrypted: unpack the archive with its password")
        try:
            with self._archive(inner).open(member) as file:
                # A bomb may lie about its size: never read further than it says.
                data = file.read(member.file_size + 1)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError) as error:
            raise PhotoError(self.path(name), f"damaged in its archive ({error})") from None
        if len(data) != member.file_size:
            raise PhotoError(self.path(name), "damaged in its archive (wrong length)")
        return data

    def key(self, name: str) -> int:  # noqa: D102
        _, member = self._members[name]
        return content_key(member.CRC, member.file_size)

    def path(self, name: str) -> str:  # noqa: D102
        return f"{self.root}/{name}"

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None

    def _archive(self, inner: str | None) -> zipfile.ZipFile:
        """This thread's handle of the archive, or of an archive inside it."""
        handles = self._handles.__dict__
        key = f"{os.getpid()} {inner or ''}"
        if key not in handles:
            handles[key] = self._open() if inner is None else self._open_inner(inner)
        archive: zipfile.ZipFile = handles[key]
        return archive

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.root)
        except (zipfile.BadZipFile, EOFError) as error:
            raise CatordogError(
                f"{self.root} is not a whole zip archive ({error}): copy or download it again"
            ) from None

    def _open_inner(self, inner: str) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._unpack(inner))
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise CatordogError(
                f"{self.root}/{inner} is not a whole zip archive ({error})"
            ) from None

    def _unpack(self, inner: str) -> Path:
        """An inner archive as a file of its own: zip needs to seek, and inflating can't."""
        if inner in self._unpacked:
            return self._unpacked[inner]
        archive = self._archive(None)
        size = archive.getinfo(inner).file_size
        if size > MAX_INNER_ARCHIVE_BYTES:
            raise CatordogError(f"{self.root}/{inner} unpacks to {size / 2**30:.0f} GiB: unpack it")
        target = _temporary_folder() / "inner.zip"
        with archive.open(inner) as packed, target.open("wb") as file:
            _copy(packed, file, size)
        self._unpacked[inner] = target
        return target

    def __getstate__(self) -> dict[str, object]:
        """Travel to another process without the handles."""
        return {key: value for key, value in self.__dict__.items() if key != "_handles"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._handles = threading.local()


class Tar:
    """The files of a tar. A plain one is read in place.

    A compressed one (gzip, bzip2, xz) can't be entered in the middle: it is unpacked once, as a
    tar, into a temporary file. Links, devices and the like are left out.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        self._tar = _plain_tar(path)
        self._members: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self._tar, "r:") as archive:
                for member in archive:
                    if (
                        member.isreg()
                        and not member.issparse()
                        and not _is_litter_path(member.name)
                    ):
                        self._members[_safe(member.name)] = (member.offset_data, member.size)
                    archive.members.clear()  # type: ignore[attr-defined]  # a kilobyte for each
        except (tarfile.TarError, EOFError, OSError) as error:
            raise CatordogError(
                f"{path} is not a whole tar archive ({error}): copy or download it again"
            ) from None

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(sorted(self._members))

    def read(self, name: str) -> bytes:  # noqa: D102
        offset, size = self._members[name]
        if size > MAX_PHOTO_BYTES:
            raise PhotoError(self.path(name), f"{size / 2**20:.0f} MiB is no photo")
        try:
            with self._tar.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise PhotoError(self.path(name), error.strerror or str(error)) from None
        if len(data) != size:
            raise PhotoError(self.path(name), "cut off: its archive ends too early")
        return data

    def key(self, name: str) -> int:  # noqa: D102
        return _key_of(self.read(name))

    def path(self, name: str) -> str:  # noqa: D102
        return f"{self.root}/{name}"

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None


def open_store(path: Path) -> Store | None:
    """The store that a path is, by its content; None if it is neither a folder nor an archive.

    Raises:
        CatordogError: it is an archive, but not a whole one.
    """
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        return None
    head, name = _head(path), path.name.lower()
    if name.endswith(".zip") or head.startswith(b"PK\x03\x04"):
        return Zip(path)
    if name.endswith(_TAR_NAMES) or head[257:262] == b"ustar" or head.startswith(_PACKED):
        return Tar(path)
    return None


_TAR_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPEN_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}
_PACKED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise CatordogError(f"{path}: {error.strerror or error}") from None


def _plain_tar(path: Path) -> Path:
    """The tar itself, or a temporary file with what is packed in it."""
    with path.open("rb") as file:
        magic = file.read(2)
    if magic not in _OPEN_PACKED:
        return path
    target = _temporary_folder() / "unpacked.tar"
    try:
        with (
            _OPEN_PACKED[magic](path, "rb") as packed,
            target.open("wb") as file,
            progress(f"unpacking {path.name}, in MiB") as done,
        ):
            size = 0
            while block := packed.read(2**20):
                size += len(block)
                if size > MAX_INNER_ARCHIVE_BYTES:
                    raise CatordogError(
                        f"{path} unpacks to over {MAX_INNER_ARCHIVE_BYTES / 2**30:.0f} GiB: "
                        "unpack it, and give the folder"
                    )
                file.write(block)
                done(size // 2**20)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CatordogError(f"{path} can't be unpacked ({error})") from None
    return target


def read_file(path: Path) -> bytes:
    """The bytes of a file that is taken for a photo. Raises `PhotoError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise PhotoError(str(path), error.strerror or str(error)) from None
    if len(data) > MAX_PHOTO_BYTES:
        raise PhotoError(str(path), f"over {MAX_PHOTO_BYTES / 2**20:.0f} MiB is no photo")
    return data


def _key_of(data: bytes) -> int:
    return content_key(zlib.crc32(data), len(data))


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a file manager."""
    return (name.startswith(".") and name != "..") or name.lower() in _LITTER


def _is_litter_path(name: str) -> bool:
    return any(is_litter(part) for part in PurePosixPath(name.replace("\\", "/")).parts)


def _safe(name: str) -> str:
    """A member's name without anything that could climb out of a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in {"/", "..", "."}) or "unnamed"


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The names of folders and of files in a folder, sorted and without litter."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_litter(entry.name):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        info(f"passed over: {folder}: {error.strerror or error}")
    return sorted(folders), sorted(files)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _copy(packed: IO[bytes], file: IO[bytes], size: int) -> None:
    left = size
    while left > 0 and (block := packed.read(min(left, 2**20))):
        file.write(block)
        left -= len(block)


def _temporary_folder() -> Path:
    """A folder that is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="catordog-"))
    owner = os.getpid()

    def delete() -> None:
        if os.getpid() == owner:  # a forked worker's exit is not the end of the run
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(delete)
    return folder
