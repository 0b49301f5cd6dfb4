"""Write predictions as rows: a table for people, JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
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

UNREADABLE = "unreadable"
"""Stands where the verdict of an unreadable photo would be."""


class Screen:
    """Rows on stdout.

    Args:
        style: the format of the rows.
        classes: their names, in the order of the logits.
    """

    resumed = 0

    def __init__(self, style: Format, classes: tuple[str, ...]) -> None:
        self._style, self._classes = style, classes

    def __enter__(self) -> Self:
        self.write = _WRITERS[self._style](sys.stdout, self._classes, True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def has(self, path: str) -> bool:
        """Return False: rows on a screen can't be resumed."""
        del path
        return False


class Rows:
    """Rows in a resumable file. It is written atomically: see `atomic_writer`.

    An interrupted run leaves `NAME.partial`. `resume` continues it: an incomplete last row is cut
    off, and no row is lost or written twice.

    Args:
        path: the file.
        style: the format of the rows.
        classes: their names, in the order of the logits.
        resume: continue `NAME.partial` or, if there is none, the complete file.

    Attributes:
        resumed: the number of rows that the file had already.

    Raises:
        CatordogError: the file can't be written, or its rows are not in this format or not of
            these classes.
    """

    def __init__(
        self, path: Path, style: Format, classes: tuple[str, ...], *, resume: bool = False
    ) -> None:
        self.resumed = 0
        self._path, self._partial = path, partial_of(path)
        self._known: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._style, self._classes = style, classes
        if resume:
            self._resume()
        self._writer = atomic_writer(path, append=resume)

    def __enter__(self) -> Self:
        file = self._writer.__enter__()
        self.write = _WRITERS[self._style](file, self._classes, file.tell() == 0)
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def has(self, path: str) -> bool:
        """Whether the resumed file had a row for a photo."""
        if not self.resumed:
            return False
        digest = _digest(path_cell(path) if self._style == "csv" else path)
        index = int(np.searchsorted(self._known, digest))
        return index < len(self._known) and int(self._known[index]) == digest

    def _resume(self) -> None:
        """Read which photos have a row, and cut off an incomplete one."""
        if not self._partial.exists():
            if not self._path.is_file():
                return
            self._path.rename(self._partial)
        digests = array("q")
        complete = 0  # bytes
        with self._partial.open("rb") as file:
            for row in _complete_rows(file, self._style):
                path = self._path_in(row, first=not complete)
                complete += len(row)
                if path is not None:
                    digests.append(_digest(path))
        os.truncate(self._partial, complete)
        self._known = np.sort(np.frombuffer(digests, np.int64)) if digests else self._known
        self.resumed = len(digests)

    def _path_in(self, row: bytes, *, first: bool) -> str | None:
        """Return the path in a row; None for the header of a CSV file."""
        try:
            text = row.decode()
            if self._style == "csv":
                cells = next(csv.reader([text]))
                if first and cells != column_names(self._classes):
                    raise ValueError
                return None if first else cells[0]
            found = json.loads(text)
            if found["logits"] is not None and tuple(found["logits"]) != self._classes:
                raise ValueError
            return str(found["path"])
        except (ValueError, KeyError, TypeError, IndexError):
            raise CatordogError(
                f"{self._partial} has rows in another format or of other classes: "
                "move it away, or leave out --resume"
            ) from None


def _complete_rows(file: IO[bytes], style: Format) -> Iterator[bytes]:
    """Yield rows, with their line ends, up to the first incomplete one."""
    row = b""
    for line in file:
        row += line
        # A line break within quotes is part of a file name.
        if line.endswith(b"\n") and not (style == "csv" and row.count(b'"') % 2):
            yield row
            row = b""


def _digest(path: str) -> int:
    """Return 8 bytes for a path, so that a million paths take 8 MB."""
    digest = blake2b(os.fsencode(path), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _table(file: IO[str], classes: tuple[str, ...], header: bool) -> Writer:
    """Write aligned columns without looking ahead: the path, which varies most, comes last."""
    longest = max(map(len, classes))
    verdict_width = longest + max(len("not sure ( 89 %)"), len(" 99.99999999999999 %"))
    confidence_widths = [max(6, len(name)) for name in classes]
    logit_widths = [max(8, len(name)) for name in classes]
    widths = confidence_widths + logit_widths

    def line(verdict: str, numbers: Sequence[str], path: str) -> None:
        cells = [text.rjust(width) for text, width in zip(numbers, widths, strict=True)]
        row = "  ".join([verdict.ljust(verdict_width), *cells, path])
        print(row.rstrip(), file=file, flush=True)

    if header:
        spans = [sum(group) + 2 * (len(classes) - 1) for group in (confidence_widths, logit_widths)]
        titles = ["confidence"[: spans[0]].rjust(spans[0]), "logits".rjust(spans[1])]
        print("  ".join([" " * verdict_width, *titles]), file=file)
        line("verdict", classes * 2, "photo")

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            line(UNREADABLE, [""] * len(widths), f"{path}: {result.reason}")
            return
        confidences = [format_confidence(value) for value in result.confidences.values()]
        logits = [f"{value:.3f}" for value in result.logits.values()]
        line(result.in_words(), confidences + logits, path)

    return write


def row_of(path: str, result: Result) -> dict[str, Any]:
    """Return a prediction as one line of JSON Lines holds it."""
    if isinstance(result, PhotoError):
        return {"path": path, **dict.fromkeys(_KEYS), "error": result.reason}
    return {"path": path, **result.to_dict(), "error": None}


_KEYS = ("label", "confidence", "confidences", "logits", "verdict")


def _jsonl(file: IO[str], classes: tuple[str, ...], header: bool) -> Writer:
    del classes, header

    def write(path: str, result: Result) -> None:
        row = row_of(path, result)
        print(json.dumps(row, ensure_ascii=False, allow_nan=False), file=file, flush=True)

    return write


def _csv(file: IO[str], classes: tuple[str, ...], header: bool) -> Writer:
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(column_names(classes))

    def write(path: str, result: Result) -> None:
        _, *values = column_values(path, result, len(classes))
        cells = ["" if value is None else value for value in values]
        safe = (text_cell(cell) if isinstance(cell, str) else cell for cell in cells)
        writer.writerow([path_cell(path), *safe])
        file.flush()

    return write


def column_names(classes: Sequence[str]) -> list[str]:
    """Return the columns of a CSV or Parquet file of predictions.

    >>> column_names(["cat"])
    ['path', 'label', 'confidence', 'confidence_cat', 'logit_cat', 'verdict', 'error']
    """
    columns = [f"confidence_{name}" for name in classes] + [f"logit_{name}" for name in classes]
    return ["path", "label", "confidence", *columns, "verdict", "error"]


def column_values(path: str, result: Result, classes: int) -> list[Any]:
    """Return the values of these columns; of an unreadable photo, numbers are None, text is ""."""
    if isinstance(result, PhotoError):
        return [path, "", *[None] * (1 + 2 * classes), "", result.reason]
    numbers = [*result.confidences.values(), *result.logits.values()]
    return [path, result.label, result.confidence, *numbers, result.verdict, ""]


def summary(verdicts: Mapping[str, int], resumed: int = 0) -> str:
    """Summarise a run in one line.

    Args:
        verdicts: the number of photos by verdict; `UNREADABLE` counts those without one.
        resumed: the number of photos that the file had already.

    >>> summary({"dog": 1200, "cat": 3, "unreadable": 1}, resumed=50)
    '1,204 photos: 3 cat, 1,200 dog, 1 unreadable (50 were in the file already)'
    """
    total = sum(verdicts.values())
    ordered = sorted(verdicts.items(), key=lambda item: (item[0] == UNREADABLE, item[0]))
    counts = ", ".join(f"{number:,} {verdict}" for verdict, number in ordered if number)
    return (
        f"{total:,} photo{'' if total == 1 else 's'}"
        + (f": {counts}" if counts else "")
        + (f" ({resumed:,} were in the file already)" if resumed else "")
    )


_WRITERS: dict[str, Callable[[IO[str], tuple[str, ...], bool], Writer]] = {
    "table": _table,
    "jsonl": _jsonl,
    "csv": _csv,
}
