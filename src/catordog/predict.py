"""`catordog predict`: what is on photos, as raw logits, as confidences, and in words."""

from __future__ import annotations

import glob
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from catordog.classifier import Classifier, load
from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decode, is_photo_name
from catordog.photos.stores import Folder, Store, open_store, read_file
from catordog.rows import Format, Result, Rows, Screen
from catordog.shelves import Shelves
from catordog.terminal import progress, say


@dataclass(frozen=True, slots=True)
class Input:
    """One photo to predict.

    Attributes:
        path: what it is called.
        read: gives its bytes.
        file: where it lies; None where it is in an archive.
    """

    path: str
    read: Callable[[], bytes]
    file: Path | None = None


class Inputs:
    """The photos that files, folders (at any depth), zips and glob patterns name, in that order.

    A file that is named itself is always taken; in folders and zips, names decide. They are listed
    anew each time they are asked for, so that a million of them take no memory.

    Args:
        paths: files, folders, zips and patterns.

    Raises:
        CatordogError: a path does not exist.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._places: list[tuple[str, Store | None]] = []
        for path in paths:
            # A name with brackets in it is a name if there is such a file. Path.glob takes no
            # absolute patterns.
            exists = Path(path).exists()
            matches = [path] if exists else sorted(glob.glob(path, recursive=True))  # noqa: PTH207
            if not matches:
                kind = "nothing matches it" if glob.has_magic(path) else "no such file or folder"
                raise CatordogError(f"{path}: {kind}")
            self._places += [(match, open_store(Path(match))) for match in matches]

    def __iter__(self) -> Iterator[Input]:
        for path, store in self._places:
            if store is None:
                file = Path(path)
                yield Input(str(file), partial(read_file, file), file)
                continue
            folder = store.root if isinstance(store, Folder) else None
            for name in filter(is_photo_name, store.names()):
                yield Input(store.path(name), partial(store.read, name), folder and folder / name)

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Where each lies, and its path: a file and "", or a folder or archive and a name in it."""
        for path, store in self._places:
            if store is None:
                yield path, "", str(Path(path))
                continue
            for name in filter(is_photo_name, store.names()):
                yield path, name, store.path(name)

    def count(self) -> int:
        """How many there are.

        Raises:
            CatordogError: a folder or zip has no photo.
        """
        total = 0
        for path, store in self._places:
            here = 1 if store is None else sum(map(is_photo_name, store.names()))
            if not here:
                raise CatordogError(f"{path}: no photos in it")
            total += here
        return total


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How photos are read, and how verdicts are made of what the network says of them.

    Attributes:
        threshold, error_rate, accept: as in `Classifier.judge`.
        decode: which photos can be read.

    Raises:
        CatordogError: a value is out of its range.
    """

    threshold: float | None = None
    error_rate: float | None = None
    accept: float | None = None
    decode: DecodeRules = DEFAULT_RULES

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise CatordogError(f"--threshold {self.threshold} is not a confidence within 0…1")
        if self.accept is not None and not 0 < self.accept <= 1:
            raise CatordogError(f"--accept {self.accept} is not a share within 0…1")
        if self.threshold is not None and self.error_rate is not None:
            raise CatordogError("--threshold and --error-rate both decide the verdict: give one")


def predictions(
    classifier: Classifier, inputs: Iterable[Input], rules: Verdicts
) -> Iterator[tuple[Input, Result]]:
    """Yield each photo with its prediction, or with why it can't be read, in order."""
    side = classifier.model.preprocess.size

    def read(item: Input) -> Any:
        return decode(item.read(), item.path, near=side, rules=rules.decode)

    for item, result in classifier.stream(inputs, read):
        if isinstance(result, PhotoError):
            yield item, result
        else:
            yield item, classifier.judge(result, rules.threshold, rules.error_rate, rules.accept)


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
        classifier.limit_of(rules.error_rate)  # says what is wrong before any photo is read
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
