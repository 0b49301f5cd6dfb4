"""Which files are listed as photos: suffixes, hidden files and litter, and the largest size."""

from __future__ import annotations

from pathlib import PurePosixPath

from catordog.errors import PhotoError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif"}
    | {".bmp", ".tif", ".tiff", ".heic", ".heif"}
)
"""Suffixes of photos, in lower case. A file's format is decided by its content (see `decode`)."""

MAX_PHOTO_BYTES = 256 * 2**20
"""A larger file is a mistake or an attack; it is refused unread."""

_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", ".ds_store"})


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo when a folder is listed.

    >>> is_photo_name("Cat/1.JPG"), is_photo_name("readme.txt")
    (True, False)
    """
    return f".{name.rpartition('.')[2].lower()}" in SUFFIXES


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a file manager."""
    return (name.startswith(".") and name != "..") or name.lower() in _LITTER


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
