"""Tell archives by their names and first bytes, also those that can't be read here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from catordog.escaping import printable
from catordog.terminal import info

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive_name(name: str) -> bool:
    """Whether a file of this name is an archive, or a part of one, of any kind."""
    path = PurePath(name)
    suffixes = (".zip", ".7z", ".rar", *TAR_SUFFIXES)
    return path.name.lower().endswith(suffixes) or _is_part(path)


def stem_of(path: Path) -> str:
    """The name of a folder, or of a file without its suffix, of which an archive may have two.

    >>> stem_of(Path("pets.v2.tar.gz"))
    'pets.v2'
    """
    if path.is_dir():
        return path.name
    suffix = next((x for x in TAR_SUFFIXES if path.name.lower().endswith(x)), path.suffix)
    return path.name[: len(path.name) - len(suffix)] or path.name


def note_archives(place: str, names: Sequence[str]) -> None:
    """Say which archives in a folder or an archive are not looked into, if there are any."""
    if names:
        shown = ", ".join(map(printable, sorted(names)[:_SHOWN])) + ", …" * (len(names) > _SHOWN)
        advice = "unpack them, or give the path of a zip or tar"
        info(f"{printable(place)}: archives not searched: {shown}: {advice}")


_SHOWN = 3


def _is_part(path: PurePath) -> bool:
    return bool(_PART.fullmatch("".join(path.suffixes[-2:])) or _PART.fullmatch(path.suffix))


def unsupported(path: Path, head: bytes) -> str | None:
    """What an archive is that can't be read here, and what to do; None if it is none of these.

    Args:
        path: the file.
        head: its first bytes.
    """
    if is_part_of_zip(path):
        return MULTIPART
    kind = next((name for magic, name in _UNSUPPORTED.items() if head.startswith(magic)), None)
    if kind is None:
        return None
    return f"{kind}, which can't be read here: unpack it, and give the folder, or pack it as a zip"


_UNSUPPORTED = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x04\x22\x4d\x18": "an LZ4 archive",
    b"\x1f\x9d": "an archive compressed by 'compress'",
    b"MSCF": "a Windows cabinet",
}
MULTIPART = (
    "one part of an archive in several files: put all parts into one folder, unpack the first one "
    "with 7-Zip or 'zip -s 0', and give the folder"
)
_PART = re.compile(
    r"\.(z\d\d+|r\d\d+|part\d+\.rar|(zip|7z|rar|tar|tgz|gz|bz2|xz)\.\d\d+)", re.IGNORECASE
)


def is_part_of_zip(path: Path) -> bool:
    """Whether a file is one of several that make up an archive, by its name or its neighbours'."""
    return _is_part(path) or (
        path.suffix.lower() == ".zip"
        and any(path.with_suffix(suffix).exists() for suffix in (".z01", ".Z01"))
    )
