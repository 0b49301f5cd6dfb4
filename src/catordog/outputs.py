"""Check what a command will write before it does any work: nothing is written over an input."""

from __future__ import annotations

import errno
import glob
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import AnyPath, printable
from catordog.files import (
    PHOTO_SUFFIXES,
    descriptor_of,
    errors_of,
    is_stream,
    os_error,
    resolved,
)


def check_outputs(
    outputs: Mapping[str, AnyPath | None],
    inputs: Iterable[AnyPath | None] = (),
    *,
    pictures: bool = False,
) -> None:
    """Refuse outputs that can't be written, or would replace an input or a photo, before any work.

    In `--out *.jpg`, a file name was forgotten, and the shell has put photos there.

    Args:
        outputs: the path of each option, such as `{"--json": args.json}`; None: not given.
        inputs: the files, folders, archives and patterns that the command reads. Names such as
            `drawn` do no harm.
        pictures: the outputs are pictures themselves.

    Raises:
        CatordogError: an output can't be written, is an input or a photo, or is named twice.
    """
    taken: dict[Path, str] = {}
    sources = [given for given in inputs if given]
    for option, path in outputs.items():
        if path is None:
            continue
        if not os.fspath(path):
            raise CatordogError(f"{option} '': the name is empty; give the name of a file")
        with errors_of(path):
            _check_writable(path)
            if is_stream(path):
                continue
            target = resolved(path)
        other = taken.setdefault(target, option)
        if other != option:
            raise CatordogError(f"{other} and {option} are both {printable(path)}: give two files")
        if target.exists() and any(_is_input(target, source) for source in sources):
            raise CatordogError(
                f"{option} {printable(path)} would replace an input: give another file"
            )
        if not pictures and _is_photo(target):
            raise CatordogError(
                f"{option} {printable(path)} is a photo, or has the name of one: give the name "
                "of a file to write"
            )


def check_folder(option: str, path: AnyPath) -> None:
    """Refuse a folder for outputs that can't be created or written to.

    Raises:
        CatordogError: it can't, or its name is empty.
    """
    if not os.fspath(path):
        raise CatordogError(f"{option} '': the name is empty; give the name of a folder")
    with errors_of(path, "put files into"):
        _check_folder(resolved(path))


def check_outside(option: str, path: AnyPath, source: AnyPath, shown: str) -> None:
    """Refuse a folder for copies of photos within the folder that the photos are read from.

    Args:
        option: that names the folder for copies.
        path: that folder.
        source: where photos are read from; anything but a folder does no harm.
        shown: names the source in the error.

    Raises:
        CatordogError: the folder is within the other: the next run would find the copies.
    """
    if Path(source).is_dir() and resolved(path).is_relative_to(resolved(source)):
        raise CatordogError(
            f"{option} {printable(path)} is within {printable(shown)}: give a folder outside of it"
        )


_REPORTS = frozenset({".json", ".jsonl", ".html", ".htm", ".md", ".parquet", ".onnx", ".png"})
"""Suffixes of what catordog writes; within an input folder, no other file is replaced."""

_LISTS = frozenset({".csv", ".tsv", ".txt"})
"""Suffixes that lists of labels have, too: within an input folder, ours alone are replaced."""

_OUR_HEADERS = (b"path,label,confidence", b"path,label,predicted", b"path,label,suggested")

_PHOTO_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II\*\0|MM\0\*"
    rb"|.{4}ftyp(avi[fs]|hei[cfmsx]|hev[cmsx]|mif1|msf1)",
    re.DOTALL,
)


def _is_photo(target: Path) -> bool:
    """Whether a path has a photo's suffix, or is an existing file with a photo's content."""
    if target.suffix.lower() in PHOTO_SUFFIXES:
        return True
    try:
        with target.open("rb") as file:
            return _PHOTO_START.match(file.read(16)) is not None
    except OSError:  # it does not exist, or can be written but not read
        return False


def _is_input(target: Path, source: AnyPath) -> bool:
    """Whether an existing file is a source, matches it, or is one of the photos in it."""
    place = Path(source)
    if place.is_dir():
        if not target.is_relative_to(resolved(place)):
            return False
        if target.suffix.lower() in _LISTS:
            with target.open("rb") as file:
                first = file.readline(4096)
            return re.search(rb"[,;\t]", first) is not None and not first.startswith(_OUR_HEADERS)
        return target.suffix.lower() not in _REPORTS
    if place.exists():
        return target.samefile(place)
    matches = glob.glob(os.fspath(source), recursive=True)  # noqa: PTH207 - takes any pattern
    return any(Path(match).is_file() and target.samefile(match) for match in matches)


def _check_writable(path: AnyPath) -> None:
    """Raise an `OSError` if a path can't be written; nothing is left behind."""
    number = descriptor_of(path)
    if number is not None:
        os.fstat(number)
        return
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise os_error(errno.EACCES)
        return
    target = resolved(path)
    if target.is_dir() or os.fspath(path).endswith(("/", os.sep)):
        raise os_error(errno.EISDIR)
    with suppress(FileNotFoundError):
        target.lstat()  # too long a name, or a link to itself
        if not os.access(target, os.W_OK):
            raise os_error(errno.EACCES)
    _check_folder(target.parent)


def _check_folder(folder: Path) -> None:
    """Raise an `OSError` if no file can be created in a folder, or the folder itself."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise os_error(errno.ENOTDIR)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".catordog.")
    os.close(handle)
    Path(name).unlink()
