"""Where the files of a tar are, without unpacking them; compressed tars are unpacked first."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from catordog.photos.listing import is_litter_path
from catordog.photos.unpacking import ArchiveError, Budget, safe_name, temporary_folder
from catordog.terminal import progress

MAX_TAR_HEADER_BYTES = 2**20
"""A file in a tar with more metadata than this is a mistake or an attack; they are not read."""

_MAX_NAME = 4096
"""The longest path in a tar; no system opens longer ones."""

OPEN_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""How to open a compressed file, by its first bytes."""


class _Headers(io.BufferedReader):
    """The file of a tar, of which `tarfile` takes metadata whole into memory, of any size.

    Attributes:
        left: how many more bytes may be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.left = MAX_TAR_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= MAX_TAR_HEADER_BYTES if size is None or size < 0 else size
        if self.left < 0:
            raise tarfile.ReadError(f"metadata of over {MAX_TAR_HEADER_BYTES:,} bytes")
        return super().read(size)


def members_of_tar(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name, offset and size of each regular file in a tar that is not compressed."""
    with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if len(member.name) > _MAX_NAME:
                raise tarfile.ReadError(f"a name of {len(member.name):,} characters")
            if member.isreg() and not member.issparse() and not is_litter_path(member.name):
                yield safe_name(member.name), (member.offset_data, member.size)
            archive.members.clear()  # type: ignore[attr-defined]  # 1 kB each
            archive.pax_headers.clear()  # type: ignore[attr-defined]  # of all files
            file.left = MAX_TAR_HEADER_BYTES


def plain_tar(path: Path, shown: str, budget: Budget) -> Path:
    """The tar itself, or the temporary file that it is decompressed into."""
    with path.open("rb") as file:
        head = file.read(8)
    opener = next((way for magic, way in OPEN_COMPRESSED.items() if head.startswith(magic)), None)
    if opener is None:
        return path
    target = temporary_folder() / "unpacked.tar"
    try:
        with (
            opener(path, "rb") as packed,
            target.open("wb", buffering=0) as file,
            progress(f"unpacking {PurePath(shown).name}, in MiB") as done,
        ):
            size = 0
            while block := packed.read(2**20):
                size += len(block)
                budget.write(file, block)
                done(size // 2**20)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(
            shown, f"can't be unpacked ({error}): copy or download it again"
        ) from None
    return target
