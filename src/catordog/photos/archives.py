"""Read photos in zip and tar archives, in place. Archives are untrusted.

No member is ever written under its own name, and none is read beyond the size that it declares.
"""

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
from typing import IO, Any

from catordog.errors import CatordogError, PhotoError
from catordog.files import encodable
from catordog.photos.listing import check_size, is_litter_path
from catordog.photos.splits import content_key, content_key_of
from catordog.terminal import progress

MAX_INNER_ARCHIVE_BYTES = 16 * 2**30
"""A larger archive that has to be unpacked to be read is refused."""

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPEN_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""How to open a compressed file, by its first bytes."""


def is_zip(path: Path, head: bytes) -> bool:
    """Whether a file is a zip, by its first bytes, or by its name if it is damaged."""
    return path.name.lower().endswith(".zip") or head.startswith(b"PK\x03\x04")


def is_tar(path: Path, head: bytes) -> bool:
    """Whether a file is a tar, compressed or not, by its first 512 bytes or by its name."""
    return (
        path.name.lower().endswith(_TAR_SUFFIXES)
        or head[257:262] == b"ustar"
        or head.startswith(tuple(_OPEN_COMPRESSED))
    )


class Zip:
    """The files of a zip, and of the zips in it (Kaggle packs `train.zip` into one).

    Only inner zips are extracted, into temporary files. Every thread and process has its own
    handle.

    Raises:
        CatordogError: the archive is incomplete or damaged, or an inner one is too large.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        self._handles = threading.local()
        self._unpacked: dict[str, Path] = {}
        with self._open() as archive:
            infos = archive.infolist()
        self._members: dict[str, tuple[str | None, zipfile.ZipInfo]] = {}
        for member in infos:
            if member.is_dir() or is_litter_path(member.filename):
                continue
            if member.filename.lower().endswith(".zip"):
                self._add_inner(member)
            else:
                self._members[_safe(member.filename)] = (None, member)

    def _add_inner(self, outer: zipfile.ZipInfo) -> None:
        prefix = _safe(outer.filename)[: -len(".zip")] + "/"
        for member in self._archive(outer.filename).infolist():
            if not member.is_dir() and not is_litter_path(member.filename):
                name = _safe(member.filename)
                # Kaggle's train.zip holds train/: don't repeat it.
                name = name if name.startswith(prefix) else prefix + name
                self._members[name] = (outer.filename, member)

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(sorted(self._members))

    def read(self, name: str) -> bytes:  # noqa: D102
        inner, member = self._members[name]
        check_size(member.file_size, self.path(name))
        if member.flag_bits & 0x1:
            raise PhotoError(self.path(name), "encrypted: unpack the archive with its password")
        try:
            with self._archive(inner).open(member) as file:
                # A zip bomb may understate its size: never read beyond it.
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
        return encodable(f"{self.root}/{name}")

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
                f"{self.root} is not a complete zip archive ({error}): copy or download it again"
            ) from None

    def _open_inner(self, inner: str) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._unpack(inner))
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise CatordogError(
                f"{self.root}/{inner} is not a complete zip archive ({error}): download it again"
            ) from None

    def _unpack(self, inner: str) -> Path:
        """Extract an inner archive: reading a zip takes seeking, which inflating can't do."""
        if inner in self._unpacked:
            return self._unpacked[inner]
        archive = self._archive(None)
        size = archive.getinfo(inner).file_size
        if size > MAX_INNER_ARCHIVE_BYTES:
            raise CatordogError(
                f"{self.root}/{inner} unpacks to {size / 2**30:.0f} GiB: unpack it, and give the "
                "folder"
            )
        target = _temporary_folder() / "inner.zip"
        with archive.open(inner) as packed, target.open("wb") as file:
            _copy(packed, file, size)
        self._unpacked[inner] = target
        return target

    def __getstate__(self) -> dict[str, object]:
        """Everything but the handles, for another process."""
        return {key: value for key, value in self.__dict__.items() if key != "_handles"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._handles = threading.local()


class Tar:
    """The files of a tar.

    A compressed one (gzip, bzip2, xz) allows no random access: it is decompressed once, into a
    temporary file. Links, devices and sparse files are left out.

    Raises:
        CatordogError: the archive is incomplete or damaged, or decompresses to too much.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        self._tar = _plain_tar(path)
        self._members: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self._tar, "r:") as archive:
                for member in archive:
                    if member.isreg() and not member.issparse() and not is_litter_path(member.name):
                        self._members[_safe(member.name)] = (member.offset_data, member.size)
                    archive.members.clear()  # type: ignore[attr-defined]  # 1 kB each
        except (tarfile.TarError, EOFError, OSError) as error:
            raise CatordogError(
                f"{path} is not a complete tar archive ({error}): copy or download it again"
            ) from None

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(sorted(self._members))

    def read(self, name: str) -> bytes:  # noqa: D102
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
        return encodable(f"{self.root}/{name}")

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None


def _plain_tar(path: Path) -> Path:
    """The tar itself, or the temporary file that it is decompressed into."""
    with path.open("rb") as file:
        head = file.read(8)
    opener = next((way for magic, way in _OPEN_COMPRESSED.items() if head.startswith(magic)), None)
    if opener is None:
        return path
    target = _temporary_folder() / "unpacked.tar"
    try:
        with (
            opener(path, "rb") as packed,
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
        raise CatordogError(
            f"{path} can't be unpacked ({error}): copy or download it again"
        ) from None
    return target


def _safe(name: str) -> str:
    """A member's name without parts that could lead out of a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in {"/", "..", "."}) or "unnamed"


def _copy(packed: IO[bytes], file: IO[bytes], size: int) -> None:
    left = size
    while left > 0 and (block := packed.read(min(left, 2**20))):
        file.write(block)
        left -= len(block)


def _temporary_folder() -> Path:
    """A folder that is deleted when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="catordog-"))
    owner = os.getpid()

    def delete() -> None:
        if os.getpid() == owner:  # not by a forked worker's exit
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(delete)
    return folder
