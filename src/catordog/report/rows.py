"""Predictions as rows: a table for people, JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import format_confidence
from catordog.errors import CatordogError, PhotoError
from catordog.files import atomic_writer, partial_of, path_cell, text_cell
from catordog.model.predict import Result

Format = Literal["table", "jsonl", "csv"]
Writer = Callable[[str, Result], None]


class Screen:
    """Rows on stdout.

    Args:
        style: of the rows.
        classes: names, in the order of the logits.
    """

    kept = 0

    def __init__(self, style: Format, classes: tuple[str, ...]) -> None:
        self._style, self._classes = style, classes

    def __enter__(self) -> Self:
        self.write = _WRITERS[self._style](sys.stdout, self._classes, True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def has(self, path: str) -> bool:
        """Whether a photo has its row; nobody knows what has been on a screen."""
        del path
        return False


class Rows:
    """Rows in a file. Under its own name it appears only when it is whole.

    If the work breaks off, what is done stays beside it as `NAME.partial`, and `resume` goes on
    from there: a row that was not finished is cut off, and no row is lost or written twice.

    Args:
        path: the file.
        style: of the rows.
        classes: names, in the order of the logits.
        resume: keep the rows that are there, in `NAME.partial` or else in the file.

    Attributes:
        kept: how many rows were there.

    Raises:
        CatordogError: it can't be written; or what is there was made by another model.
    """

    def __init__(
        self, path: Path, style: Format, classes: tuple[str, ...], *, resume: bool = False
    ) -> None:
        self.kept = 0
        self._path, self._partial = path, partial_of(path)
        self._known: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._style, self._classes = style, classes
        if resume:
            self._go_on()
        self._whole = atomic_writer(path, append=resume)

    def __enter__(self) -> Self:
        file = self._whole.__enter__()
        self.write = _WRITERS[self._style](file, self._classes, file.tell() == 0)
        return self

    def __exit__(self, *error: Any) -> None:
        self._whole.__exit__(*error)

    def has(self, path: str) -> bool:
        """Whether a photo had its row already when the work began."""
        if not self.kept:
            return False
        number = _number(path_cell(path) if self._style == "csv" else path)
        place = int(np.searchsorted(self._known, number))
        return place < len(self._known) and int(self._known[place]) == number

    def _go_on(self) -> None:
        """Find out what is there, and cut off a row that was not finished."""
        if not self._partial.exists():
            if not self._path.is_file():
                return
            self._path.rename(self._partial)
        numbers = array("q")
        whole = 0
        with self._partial.open("rb") as file:
            for row in _whole_rows(file, self._style):
                path = self._path_in(row, first=not whole)
                whole += len(row)
                if path is not None:
                    numbers.append(_number(path))
        os.truncate(self._partial, whole)
        self._known = np.sort(np.frombuffer(numbers, np.int64)) if numbers else self._known
        self.kept = len(numbers)

    def _path_in(self, row: bytes, *, first: bool) -> str | None:
        """The photo that a row is of; None for the head of a CSV file."""
        try:
            text = row.decode()
            if self._style == "csv":
                cells = next(csv.reader([text]))
                if first and cells != heads(self._classes):
                    raise ValueError
                return None if first else cells[0]
            found = json.loads(text)
            if found["logits"] is not None and tuple(found["logits"]) != self._classes:
                raise ValueError
            return str(found["path"])
        except (ValueError, KeyError, TypeError, IndexError):
            raise CatordogError(
                f"{self._partial} holds rows of another kind: move it away, or leave out --resume"
            ) from None


def _whole_rows(file: IO[bytes], style: Format) -> Iterator[bytes]:
    """Yield rows, with their line ends, up to the first that is not finished."""
    row = b""
    for line in file:
        row += line
        # A line break within quotes belongs to a file's name.
        if line.endswith(b"\n") and not (style == "csv" and row.count(b'"') % 2):
            yield row
            row = b""


def _number(path: str) -> int:
    """Eight bytes that stand for a path: those of a million photos take 8 MB."""
    digest = blake2b(os.fsencode(path), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _table(file: IO[str], classes: tuple[str, ...], begin: bool) -> Writer:
    """Aligned columns that need no look ahead: what varies in width, the path, comes last."""
    longest = max(map(len, classes))
    first = longest + max(len("not sure ( 89 %)"), len(" 99.99999999999999 %"))
    wide = [max(6, len(name)) for name in classes]
    broad = [max(8, len(name)) for name in classes]

    def line(verdict: str, confidences: Sequence[str], logits: Sequence[str], path: str) -> None:
        cells = [verdict.ljust(first)]
        cells += [text.rjust(width) for text, width in zip(confidences, wide, strict=True)]
        cells += [text.rjust(width) for text, width in zip(logits, broad, strict=True)]
        print("  ".join([*cells, path]).rstrip(), file=file, flush=True)

    blank = [""] * len(classes)
    heads = ["confidence"[: sum(wide) + 2 * (len(wide) - 1)], "logits"]
    spans = [sum(wide) + 2 * (len(wide) - 1), sum(broad) + 2 * (len(broad) - 1)]
    groups = [head.rjust(span) for head, span in zip(heads, spans, strict=True)]
    if begin:
        print("  ".join(["".ljust(first), *groups]), file=file)
        line("verdict", classes, classes, "photo")

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            line("can't be read", blank, blank, f"{path}: {result.reason}")
            return
        confidences = [format_confidence(value) for value in result.confidences.values()]
        logits = [f"{value:.3f}" for value in result.logits.values()]
        line(result.in_words(), confidences, logits, path)

    return write


def row_of(path: str, result: Result) -> dict[str, Any]:
    """A prediction as plain data: what a line of JSON Lines holds."""
    if isinstance(result, PhotoError):
        return {"path": path, **dict.fromkeys(_KEYS), "error": result.reason}
    return {"path": path, **result.to_dict(), "error": None}


_KEYS = ("label", "confidence", "confidences", "logits", "verdict")


def _jsonl(file: IO[str], classes: tuple[str, ...], begin: bool) -> Writer:
    del classes, begin

    def write(path: str, result: Result) -> None:
        row = row_of(path, result)
        print(json.dumps(row, ensure_ascii=False, allow_nan=False), file=file, flush=True)

    return write


def _csv(file: IO[str], classes: tuple[str, ...], begin: bool) -> Writer:
    writer = csv.writer(file, lineterminator="\n")
    if begin:
        writer.writerow(heads(classes))

    def write(path: str, result: Result) -> None:
        first, *row = values(path, result, len(classes))
        cells = ["" if value is None else value for value in row]
        harmless = (text_cell(value) if isinstance(value, str) else value for value in cells)
        writer.writerow([path_cell(first), *harmless])
        file.flush()

    return write


def heads(classes: Sequence[str]) -> list[str]:
    """The names of the columns of a table of predictions."""
    columns = [f"confidence_{name}" for name in classes] + [f"logit_{name}" for name in classes]
    return ["path", "label", "confidence", *columns, "verdict", "error"]


def values(path: str, result: Result, classes: int) -> list[Any]:
    """What is in those columns for a photo; where it can't be read, numbers are None, words ""."""
    if isinstance(result, PhotoError):
        return [path, "", *[None] * (1 + 2 * classes), "", result.reason]
    numbers = [*result.confidences.values(), *result.logits.values()]
    return [path, result.label, result.confidence, *numbers, result.verdict, ""]


_WRITERS: dict[str, Callable[[IO[str], tuple[str, ...], bool], Writer]] = {
    "table": _table,
    "jsonl": _jsonl,
    "csv": _csv,
}
