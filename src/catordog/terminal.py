"""Messages for people, on stderr: lines, progress, and aligned tables; and streams of any kind."""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO

PLAIN = "catordog.plain"
"""An error handler for `str.encode`: plain characters stand for those that a stream can't hold."""

_SUBSTITUTES = {
    **{"−": "-", "–": "-", "─": "-", "·": "-", "×": "x", "…": "...", "→": "->"},
    **{"≥": ">=", "≤": "<=", "±": "+-", "“": '"', "”": '"', "’": "'", "½": "1/2"},
}

SECONDS_BEFORE_A_LINE = 2
SECONDS_BETWEEN_LINES = 10

_silent = False

_repeats: list[str] | None = None
_lines_before: frozenset[str] = frozenset()


def silence() -> None:
    """Print no more messages: in a distributed run, the first process prints them for all."""
    global _silent  # noqa: PLW0603 - one state for the process
    _silent = True


def info(line: str = "") -> None:
    """Print a line for people on stderr; stdout is for results.

    If stderr can't be written, messages are dropped.
    """
    if _silent or sys.stderr is None:
        return
    if _repeats is not None:
        _repeats.append(line)
        if line in _lines_before:
            return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


@contextmanager
def no_repeats(before: list[str]) -> Iterator[None]:
    """Print no line that the last block of this kind has printed: for scans that are repeated.

    Args:
        before: the lines of the last block; afterwards, those of this one.
    """
    global _repeats, _lines_before  # noqa: PLW0603 - one state for the process
    _repeats, _lines_before = [], frozenset(before)
    try:
        yield
    finally:
        before[:] = _repeats
        _repeats = None


def prepare_streams() -> None:
    """Make stdout and stderr take any text, whatever their encoding, and even if they are closed.

    Windows pipes have a code page such as cp1252, which has no minus sign; `>&-` closes a stream,
    and under pythonw there is none.
    """
    # A closed stream's number would be given to the next file that is opened.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _reopen(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            null = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
            setattr(sys, name, null)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def use_utf8(stream: IO[str]) -> None:
    """Make a stream UTF-8 if it leads to a program or a file: JSON and CSV files are."""
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        stream.reconfigure(encoding="utf-8", errors=PLAIN)


def show(text: str) -> None:
    """Print a result on stdout. If its reader has ended, as in `… | head`, continue."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard(sys.stdout)


def discard(stream: IO[str]) -> None:
    """Drop what a stream has not written yet, and what follows: its reader has ended."""
    with suppress(OSError, ValueError):  # a stream of a test has no number
        _reopen(stream.fileno())


def _reopen(number: int) -> None:
    """Let the number of an open file stand for a file that swallows everything."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _plain(error: UnicodeError) -> tuple[str, int]:
    r"""Replace what can't be encoded: `-` for a minus sign, `\xe9` for a byte of a file name."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(letter) or _escaped(letter) for letter in text), error.end


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("ascii", "backslashreplace").decode()


codecs.register_error(PLAIN, _plain)


_observer: ContextVar[Callable[[str, int, int | None], None] | None] = ContextVar(
    "observer", default=None
)


@contextmanager
def progress_to(observer: Callable[[str, int, int | None], None]) -> Iterator[None]:
    """Hand the progress of this thread's work to a function, instead of showing it.

    Args:
        observer: takes the work, the number of items done, and their total if it is known.
    """
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show the progress of long work: a bar on a terminal, a line every ten seconds elsewhere.

    Args:
        what: the work, such as "reading photos".
        total: the number of items; None if it is unknown.

    Yields:
        A function that takes the number of items done so far.
    """
    if observer := _observer.get():
        observer(what, 0, total)
        yield lambda done: observer(what, done, total)
        return
    if not _silent and sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            """Items a second."""

            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:,.0f}/s" if task.speed else "")

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    due = time.monotonic() + SECONDS_BEFORE_A_LINE
    started, already_done = 0.0, -1  # at the first call; a resumed run starts above 0

    def line(done: int) -> None:
        nonlocal due, started, already_done
        now = time.monotonic()
        if already_done < 0:
            started, already_done = now, done
        if now > due:
            due = now + SECONDS_BETWEEN_LINES
            words = f"{what}: {done:,}" + (f" of {total:,}" if total else "")
            if done > already_done and now > started:
                rate = (done - already_done) / (now - started)
                words += f", {rate:,.{0 if rate > 10 else 1}f} a second"
                words += f", {_duration((total - done) / rate)} left" if total else ""
            info(words)

    yield line


def _duration(seconds: float) -> str:
    """Format a duration: `40 s`, `12 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def table(rows: list[list[str]], right: frozenset[int] = frozenset()) -> str:
    """Align columns, with two spaces between them.

    Args:
        rows: of cells, all of the same length.
        right: the indices of right-aligned columns.

    >>> print(table([["class", "logit"], ["dog", "16.917"]], right=frozenset({1})))
    class   logit
    dog    16.917
    """
    from unicodedata import east_asian_width

    def width(text: str) -> int:
        return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)

    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - width(cell))
            cells.append(space + cell if column in right else cell + space)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
