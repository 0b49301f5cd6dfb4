"""What is unpacked from archives: within one limit, into temporary files, under safe names."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO

from catordog.errors import CatordogError, PhotoError

MAX_INNER_ARCHIVE_BYTES = 16 * 2**30
"""The most bytes that are unpacked to read an archive and all archives in it, at any depth."""


class ArchiveError(PhotoError):
    """An archive that can't be opened. In another archive, it counts as one unreadable photo."""


class Budget:
    """How much may still be unpacked from an archive and all archives in it.

    Args:
        shown: the path of the outermost archive.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._left = MAX_INNER_ARCHIVE_BYTES

    def write(self, file: IO[bytes], block: bytes) -> None:
        """Write unpacked bytes.

        Args:
            file: without a buffer, which would report a full disk only when it is closed.
            block: the bytes.

        Raises:
            CatordogError: they are too many, or the disk is full.
        """
        self._left -= len(block)
        if self._left < 0:
            raise CatordogError(
                f"{self._shown} unpacks to over {MAX_INNER_ARCHIVE_BYTES / 2**30:.0f} GiB: "
                "unpack it, and give the folder"
            )
        try:
            left = memoryview(block)
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise CatordogError(
                f"can't unpack {self._shown} into {tempfile.gettempdir()}: "
                f"{error.strerror or error}: make room there, or set TMPDIR to another folder"
            ) from None


def safe_name(name: str) -> str:
    """A member's name without parts that could lead out of a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in {"/", "..", "."}) or "unnamed"


def temporary_folder() -> Path:
    """A folder that is deleted when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="catordog-"))
    owner = os.getpid()

    def delete() -> None:
        if os.getpid() == owner:  # not by a forked worker's exit
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(delete)
    return folder
