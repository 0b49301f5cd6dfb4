"""`catordog predict`: what is on photos, as raw logits, as confidences, and in words."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.model.classifier import load
from catordog.model.predict import Verdicts, predictions
from catordog.photos.inputs import Input, Inputs
from catordog.report.rows import Format, Rows, Screen
from catordog.report.sorted_folders import Shelves
from catordog.terminal import progress, say


def run(
    paths: Sequence[str],
    model: str | None,
    style: Format,
    out: str | None,
    rules: Verdicts,
    *,
    resume: bool = False,
    sort_into: str | None = None,
    link: bool = False,
    watch: bool = False,
) -> int:
    """`catordog predict`. Returns 1 if a photo could not be read, else 0.

    Args:
        paths: see `Inputs`.
        model: see `load`.
        style: of the rows.
        out: a file for them; None: stdout.
        rules: see `Verdicts`.
        resume: leave out the photos that have a row in `out` already.
        sort_into: a folder that gets a copy of each photo, in a folder with its verdict's name.
        link: put links there instead of copies.
        watch: wait for further photos, until Ctrl-C.
    """
    if resume and (out is None or style == "table"):
        raise CatordogError(
            "--resume goes on with a file: it needs --out, and --format jsonl or csv"
        )
    if watch and not all(Path(path).is_dir() for path in paths):
        raise CatordogError("--watch waits for photos that come into a folder: name folders only")
    inputs = Inputs(paths)
    total = None if watch else inputs.count()
    classifier = load(model)
    if rules.error_rate is not None:
        classifier.quantile_for(rules.error_rate)  # says what is wrong before any photo is read
    shelves = Shelves(Path(sort_into), link=link) if sort_into else None
    tally: Counter[str] = Counter()
    classes = classifier.classes
    to = Rows(Path(out), style, classes, resume=resume) if out else Screen(style, classes)
    with to as rows:
        chosen = (item for item in inputs if not rows.has(item.path))
        batches = watched(inputs, rows.has) if watch else iter([chosen])
        with progress("predicting", total) as done:
            count = rows.kept
            for batch in batches:
                for item, result in predictions(classifier, batch, rules):
                    rows.write(item.path, result)
                    unread = isinstance(result, PhotoError)
                    tally["unreadable" if unread else result.verdict] += 1  # type: ignore[union-attr]
                    if shelves and isinstance(result, Prediction):
                        shelves.put(item, result.verdict)
                    count += 1
                    done(count)
    new = tally.total()
    words = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(tally.items()))
    before = f" ({rows.kept:,} had been done before)" if rows.kept else ""
    say(f"{new:,} photo{'' if new == 1 else 's'}{': ' if words else ''}{words}{before}")
    return 1 if tally["unreadable"] else 0


_PAUSE = 1.0
"""Seconds between two looks into a watched folder."""


def watched(inputs: Inputs, known: Callable[[str], bool]) -> Iterator[list[Input]]:
    """Yield photos as they arrive, when they are whole: when they have stopped growing.

    It ends with Ctrl-C, after the photos that are being looked at.

    Args:
        inputs: folders.
        known: whether a photo need not come any more.
    """
    stopped = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    done: set[str] = set()
    growing: dict[str, tuple[int, int]] = {}
    while not stopped.is_set():
        ready = []
        for item in inputs:
            if item.path in done or item.file is None or known(item.path):
                continue
            try:
                found = item.file.stat()
            except OSError:  # it went as it came
                continue
            size = (found.st_size, found.st_mtime_ns)
            if growing.get(item.path) == size:
                ready.append(item)
                done.add(item.path)
                del growing[item.path]
            else:
                growing[item.path] = size
        yield ready
        stopped.wait(_PAUSE)
