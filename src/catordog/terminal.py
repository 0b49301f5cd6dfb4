"""Messages for people, on stderr: lines, progress, and aligned tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BEFORE_A_LINE = 2
SECONDS_BETWEEN_LINES = 10

_silent = False


def silence() -> None:
    """Print no more messages: in a distributed run, the first process prints them for all."""
    global _silent  # noqa: PLW0603 - one state for the process
    _silent = True


def info(line: str = "") -> None:
    """Print a line for people on stderr; stdout is for results."""
    if not _silent:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show the progress of long work: a bar on a terminal, a line every ten seconds elsewhere.

    Args:
        what: the work, such as "reading photos".
        total: the number of items; None if it is unknown.

    Yields:
        A function that takes the number of items done so far.
    """
    if sys.stderr.isatty() and not _silent:
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
