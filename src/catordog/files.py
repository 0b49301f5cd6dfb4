"""Write files: atomically, and through links and devices."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO

from catordog.errors import CatordogError
from catordog.escaping import AnyPath, printable
from catordog.terminal import PLAIN, info


def file_name(stem: str, tail: str = "") -> str:
    """Return a file name; a stem that is too long for file systems is shortened.

    >>> len(file_name("x" * 300, " (2).jpg"))
    255
    """
    stem = stem[:_LONGEST_NAME]
    while stem and len(os.fsencode(stem + tail)) > _LONGEST_NAME:
        stem = stem[:-1]  # a letter, which may be four bytes
    return stem + tail


_LONGEST_NAME = 255
"""Bytes."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8", PLAIN))


def write_bytes(path: Path, data: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file atomically and durably: no reader and no power cut leaves a part of it.

    Args:
        path: the file; see `atomic_path`.
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

    Of a symbolic link, the file behind it is replaced. A device, a pipe and an open file such as
    /dev/stdout stay what they are: the content is written into them.

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
        with errors_of(path):
            stream = is_stream(path)
            target = path if stream else resolved(path)
            if target.is_dir():
                raise os_error(errno.EISDIR)
            folder = None if stream else target.parent
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            # A prefix, since the name itself may be as long as the file system allows.
            handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name[:30]}.")
            os.close(handle)
            temporary = Path(name)
            with _errors_of_others(temporary):
                yield temporary
            before()
            if stream:
                with open_stream(path) as file, temporary.open("rb") as content:
                    shutil.copyfileobj(content, file)
            else:
                temporary.chmod(_mode(target))
                temporary.replace(target)
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_writer(
    path: Path,
    *,
    append: bool = False,
    before: Callable[[], None] = lambda: None,
    advice: str = "",
) -> Iterator[IO[str]]:
    """Write a long file step by step to `NAME.partial`, which is renamed to `NAME` at the end.

    An interrupted run leaves `NAME.partial` behind. Links, devices and pipes: see `atomic_path`;
    what is written to a device or pipe arrives step by step.

    Args:
        path: the file.
        append: continue `NAME.partial`, if it exists.
        before: called when `NAME.partial` is complete, before it is renamed.
        advice: ends the line that names `NAME.partial` after an interruption.

    Raises:
        CatordogError: it can't be written. Unless the disk fills up, this is raised on entry,
            before any work.
    """
    with errors_of(path):
        if is_stream(path):
            with open_stream(path) as raw, _text(raw) as file, _errors_of_others(path):
                yield file
            return
        target, partial = resolved(path), partial_of(path)
        complete = False
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise os_error(errno.EISDIR)
            with (
                partial.open("ab" if append else "wb") as raw,
                _text(raw) as file,
                _errors_of_others(partial),
            ):
                yield file
            before()
            if target.exists():
                partial.chmod(_mode(target))
            partial.replace(target)
            complete = True
        finally:
            if not complete and partial.is_file() and partial.stat().st_size:
                info(f"results so far are in {printable(partial)}{advice}")


def partial_of(path: Path) -> Path:
    """Return the file that `atomic_writer` writes to before the file is complete."""
    target = resolved(path)
    return target.with_name(target.name + ".partial")


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Keep other processes from writing a file at the same time.

    Args:
        path: the file; the lock is a hidden file beside it, which is removed at the end.
        refusal: the error if another process has the lock.

    Raises:
        CatordogError: another process has the lock, or the folder can't be written.
    """
    from filelock import FileLock, Timeout

    with errors_of(path):
        target = resolved(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.name
        if len(os.fsencode(name)) > 200:  # a name takes 255 bytes at most
            name = blake2b(os.fsencode(name), digest_size=16).hexdigest()
        file = target.with_name(f".{name}.lock")
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
            while not file.exists():  # its last holder has removed it: others would not see ours
                lock.release()
                lock.acquire(timeout=0)
        except Timeout:
            raise CatordogError(refusal) from None
    try:
        yield
    finally:
        if os.name != "nt":  # Windows removes no open file
            file.unlink(missing_ok=True)
        lock.release()
        if os.name == "nt":
            with suppress(OSError):
                file.unlink()


def expanded(path: AnyPath) -> Path:
    """A path with `~` as the home folder; `~name` stays where there is no such user."""
    # Path.expanduser raises RuntimeError there, although a file may have this name.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def resolved(path: AnyPath) -> Path:
    """Return the file behind a path, with symbolic links followed."""
    return Path(os.path.realpath(path))


def is_stream(path: AnyPath) -> bool:
    """Whether a path is written into, and not replaced: a device, a pipe, or an open file."""
    if descriptor_of(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - of any path
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_stream(path: AnyPath) -> IO[bytes]:
    """Open a device, a pipe, or an open file of this process such as /dev/stdout, for writing."""
    number = descriptor_of(path)
    if number is None:
        return Path(path).open("wb")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes first
    # Opening it by its name would truncate a file that stdout was redirected to.
    return os.fdopen(os.dup(number), "wb")


_OPEN_FILES = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def descriptor_of(path: AnyPath) -> int | None:
    """Return the number of the open file that /dev/stdout, /dev/fd/63 or a link to one names."""
    place = Path(path).absolute()
    for _ in range(40):  # as many links as Linux follows
        if str(place) in _OPEN_FILES:
            return _OPEN_FILES[str(place)]
        found = re.fullmatch(rf"/(?:dev|proc/self|proc/{os.getpid()})/fd/(\d+)", str(place))
        if found:
            return int(found[1])
        if not place.is_symlink():
            return None
        place = place.parent / place.readlink()
    return None


PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif"}
    | {".bmp", ".tif", ".tiff", ".heic", ".heif"}
)
"""Suffixes of photos, in lower case. Content decides on a file's format (`photos.decode`)."""


@contextmanager
def errors_of(path: AnyPath, work: str = "write") -> Iterator[None]:
    """Turn errors of the file system into one line that names the output."""
    try:
        yield
    except BrokenPipeError:
        if descriptor_of(path) == 1:  # `catordog … --out /dev/stdout | head` is no error
            raise
        raise CatordogError(f"can't write {printable(path)}: its reader has ended") from None
    except OSError as error:
        raise CatordogError(f"can't {work} {printable(path)}: {error.strerror or error}") from None
    except ValueError as error:
        if "\0" not in os.fspath(path):
            raise
        raise CatordogError(f"can't {work} {os.fspath(path)!r}: {error}") from None


@contextmanager
def _errors_of_others(ours: Path) -> Iterator[None]:
    """Name the file of an error in work that writes a file, unless it is that file."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if not isinstance(name, str | bytes) or Path(os.fsdecode(name)) == ours:
            raise
        shown = printable(os.fsdecode(name))
        raise CatordogError(f"{shown}: {error.strerror or error}") from None


def os_error(number: int) -> OSError:
    """The error of a number such as `errno.EISDIR`."""
    return OSError(number, os.strerror(number))


@contextmanager
def _text(raw: IO[bytes]) -> Iterator[IO[str]]:
    """A binary file as text: UTF-8, with line ends as they are."""
    with io.TextIOWrapper(raw, encoding="utf-8", errors=PLAIN, newline="") as file:
        yield file


def _mode(target: Path) -> int:
    """The permissions of a file, or those of a new one."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0o022)  # the only way to read it is to set it
        os.umask(mask)
        return 0o666 & ~mask
