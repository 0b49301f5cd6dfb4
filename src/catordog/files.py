"""Write files atomically: a reader finds a complete file or none."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from catordog.errors import CatordogError
from catordog.terminal import info


def encodable(text: str) -> str:
    r"""Escape what is no Unicode in a path, so that it can be written in UTF-8.

    A byte of a file name that is not UTF-8 becomes `\xNN`, as in Python's source code. Line breaks
    and other control characters stay; see `printable`.

    >>> print(encodable("caf\udce9.jpg"))
    caf\xe9.jpg
    """
    if text.isascii():
        return text
    return _SURROGATE.sub(_escape, text)


def printable(text: str) -> str:
    r"""Escape a path or other text for a message: as `encodable`, and on one line.

    >>> print(printable("two\nlines, caf\udce9"))
    two\nlines, caf\xe9
    """
    return _CONTROL.sub(_escape, encodable(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # what Python decodes a stray byte to
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii")


_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def path_cell(path: str) -> str:
    """Make a path safe for CSV files: spreadsheets would run `=1.jpg`, but not `./=1.jpg`."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def text_cell(text: str) -> str:
    """Make other text safe for CSV files: an apostrophe before what starts like a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file atomically and durably: no reader and no power cut leaves a part of it.

    Args:
        path: the file.
        data: its content.
        before: called when the data are safe on the disk, before the file is replaced.

    Raises:
        CatordogError: it can't be written; an existing file is unchanged.
    """
    with atomic_path(path, before) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path, before: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Write to a temporary file in the same folder, which replaces the file at the end.

    Args:
        path: the file.
        before: called before the file is replaced.

    Yields:
        The temporary file.

    Raises:
        CatordogError: it can't be written; an existing file is unchanged.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        before()
        temporary.replace(path)
    except OSError as error:
        raise CatordogError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path, *, append: bool = False) -> Iterator[IO[str]]:
    """Write a long file step by step to `NAME.partial`, which is renamed to `NAME` at the end.

    An interrupted run leaves `NAME.partial` behind.

    Args:
        path: the file.
        append: continue `NAME.partial`, if it exists.

    Raises:
        CatordogError: it can't be written. Unless the disk fills up, this is raised on entry,
            before any work.
    """
    partial = partial_of(path)
    complete = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with partial.open("a" if append else "w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
        complete = True
    except OSError as error:
        raise CatordogError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        if not complete and partial.is_file() and partial.stat().st_size:
            info(f"results so far are in {partial}")


def partial_of(path: Path) -> Path:
    """Return the file that `atomic_writer` writes to before the file is complete."""
    return path.with_name(path.name + ".partial")


def _umask() -> int:
    """Return the umask of this process; the only way to read it is to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
