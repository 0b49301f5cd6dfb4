"""What people see while they wait: a bar on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BEFORE_A_LINE = 2
SECONDS_BETWEEN_LINES = 10


_quiet = False


def silence() -> None:
    """Say nothing from now on: another process tells the same."""
    global _quiet  # noqa: PLW0603 - what this process says, as a whole
    _quiet = True


def info(line: str = "") -> None:
    """A line for people; stdout is for results."""
    if not _quiet:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show how far a long piece of work is.

    Args:
        what: what is being done, as in "reading photos".
        total: how much there is of it; None where nobody knows.

    Yields:
        A function that takes the number done so far.
    """
    if sys.stderr.isatty() and not _quiet:
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
            """How many a second."""

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
    begun, before = 0.0, -1  # when the first of it was done, and how much that was

    def line(done: int) -> None:
        nonlocal due, begun, before
        now = time.monotonic()
        if before < 0:
            begun, before = now, done
        if now > due:
            due = now + SECONDS_BETWEEN_LINES
            words = f"{what}: {done:,}" + (f" of {total:,}" if total else "")
            if done > before and now > begun:
                rate = (done - before) / (now - begun)
                words += f", {rate:,.{0 if rate > 10 else 1}f} a second"
                words += f", {_duration((total - done) / rate)} left" if total else ""
            info(words)

    yield line


def _duration(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def table(rows: list[list[str]], right: frozenset[int] = frozenset()) -> str:
    """Columns aligned with two spaces between them; `right` are the right-aligned ones."""
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
