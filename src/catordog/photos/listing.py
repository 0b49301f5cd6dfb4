"""Which files are listed as photos: suffixes, hidden files and litter, and the largest size."""

from __future__ import annotations

from pathlib import PurePosixPath

from catordog.errors import PhotoError
from catordog.files import PHOTO_SUFFIXES

MAX_PHOTO_BYTES = 256 * 2**20
"""A larger file is a mistake or an attack; it is refused unread."""

_LITTER = frozenset(
    {"__macosx", "network trash folder", "temporary items"}  # macOS
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "recycled"}  # Windows
    | {"system volume information", "found.000"}
    | {"lost+found"}  # Linux
    | {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"}  # NAS
    | {"__pycache__"}
)
"""Names of what systems and file managers leave behind, in lower case."""

RUN_FOLDERS = frozenset({"runs", "lightning_logs"})
"""Folders that training writes; their figures are no photos of a dataset."""


class Unopened(str):
    """The name of a folder, or of an archive in an archive, that can't be opened.

    It stands for the photos in it: it is listed like a photo, and reading it raises `PhotoError`
    with the reason, so it is counted and reported.
    """

    __slots__ = ()


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo when a folder is listed.

    >>> is_photo_name("Cat/1.JPG"), is_photo_name("readme.txt"), is_photo_name("jpg")
    (True, False, False)
    """
    _, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix.lower()}" in PHOTO_SUFFIXES or isinstance(name, Unopened)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, left behind by a system, or of a run.

    A folder that the user names is listed, whatever its name: only what is in it is judged.

    >>> is_litter("@eaDir"), is_litter("$RECYCLE.BIN"), is_litter("cat")
    (True, True, False)
    """
    lower = name.lower()
    return (name.startswith(".") and name != "..") or lower in _LITTER or lower in RUN_FOLDERS


def is_litter_path(path: str) -> bool:
    """Whether any part of an archive member's path is litter; see `is_litter`."""
    return any(is_litter(part) for part in PurePosixPath(path.replace("\\", "/")).parts)


def check_size(size: int, path: str) -> None:
    """Refuse a file of more than `MAX_PHOTO_BYTES`. Raises `PhotoError`."""
    if size > MAX_PHOTO_BYTES:
        raise PhotoError(
            path,
            f"{size / 2**20:,.0f} MiB is too large for a photo (at most {MAX_PHOTO_BYTES >> 20})",
        )
