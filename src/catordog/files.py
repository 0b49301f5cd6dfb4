"""Results on disk: whole, or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from catordog.errors import CatordogError
from catordog.terminal import info


def path_cell(path: str) -> str:
    """A path for a CSV file, which no spreadsheet takes for a formula: `=1.jpg` as `./=1.jpg`."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def text_cell(text: str) -> str:
    """Any other text for a CSV file; what begins like a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file so that no reader ever finds half of it, and no power cut leaves half of it.

    Args:
        path: the file.
        data: all that is to be in it.
        before: called when the data are safe on the disk, before they take the file's name.

    Raises:
        CatordogError: it can't be written; what was there before is untouched.
    """
    with atomic_path(path, before) as made, made.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path, before: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Write a file under another name in its folder; it takes its own when all is written.

    Args:
        path: the file.
        before: called before that.

    Yields:
        the name to write to.

    Raises:
        CatordogError: it can't be written; what was there before is untouched.
    """
    made: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        made = Path(name)
        yield made
        made.chmod(0o666 & ~_umask())
        before()
        made.replace(path)
    except OSError as error:
        raise CatordogError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        if made:
            made.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path, *, append: bool = False) -> Iterator[IO[str]]:
    """Write a long file bit by bit; under its own name it appears only when it is whole.

    If the work breaks off, what is done so far stays beside it as `NAME.partial`.

    Args:
        path: the file.
        append: go on with `NAME.partial`, if it is there.

    Raises:
        CatordogError: it can't be written; known before the work begins, unless the disk fills up.
    """
    partial = partial_of(path)
    done = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with partial.open("a" if append else "w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
        done = True
    except OSError as error:
        raise CatordogError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        if not done and partial.is_file() and partial.stat().st_size:
            info(f"what is done so far is in {partial}")


def partial_of(path: Path) -> Path:
    """Where `atomic_writer` keeps a file that is not whole yet."""
    return path.with_name(path.name + ".partial")


def _umask() -> int:
    """The permissions that this process takes away; the system only tells when it is set."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
