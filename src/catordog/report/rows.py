"""Write predictions as rows: a table for people, JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import format_confidence
from catordog.confidence.verdict import NEITHER, NOT_SURE, class_verdict
from catordog.errors import CatordogError, PhotoError
from catordog.escaping import csv_row, encodable, json_text, path_cell, printable, text_cell
from catordog.files import atomic_path, atomic_writer, is_stream, locked, partial_of, resolved
from catordog.model.predict import Result
from catordog.report.run_record import RunRecord, Settings, read_record, write_record
from catordog.terminal import info, use_utf8

Format = Literal["table", "jsonl", "csv"]
Writer = Callable[[str, Result], None]


class Columns(NamedTuple):
    """What rows have beside the columns that all have: the arguments of `column_names`."""

    classes: tuple[str, ...]
    also: bool


UNREADABLE = "unreadable"
"""Stands where the verdict of an unreadable photo would be; only for people, since a class can be
called so."""


def verdicts_of(classes: Sequence[str]) -> list[str]:
    """Return all verdicts that a model with these classes can give, in a fixed order."""
    return [*map(class_verdict, classes), NOT_SURE, NEITHER]


class Screen:
    """Rows on stdout. JSON Lines and CSV are UTF-8, unless stdout is a terminal.

    Args:
        style: the format of the rows.
        classes: their names, in the order of the logits.
        also: CSV rows have the column `also`; see `column_names`.
    """

    resumed = errors = 0

    def __init__(self, style: Format, classes: tuple[str, ...], *, also: bool = False) -> None:
        self._style, self._columns = style, Columns(classes, also)

    def __enter__(self) -> Self:
        if self._style != "table":
            use_utf8(sys.stdout)
        self.write = _WRITERS[self._style](sys.stdout, self._columns, True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def has(self, path: str) -> bool:
        """Return False: rows on a screen can't be resumed."""
        return self.verdict_of(path) is not None

    def verdict_of(self, path: str) -> str | None:
        """Return None: as `has`."""
        del path
        return None


class Rows:
    """Rows in a resumable file. It is written atomically, and by one process at a time.

    An interrupted run leaves `NAME.partial` (see `atomic_writer`). `resume` continues it: an
    incomplete last row is cut off, and no row is lost or written twice. Photos with an error are
    predicted again, and their new rows replace the old ones when the file is complete. A run that
    does not resume refuses to replace such rows.

    Args:
        path: the file.
        style: the format of the rows.
        classes: their names, in the order of the logits.
        also: CSV rows have the column `also`; see `column_names`.
        resume: continue `NAME.partial` or, if there is none, the complete file.
        settings: what else the rows depend on; a run with others can't continue the file.

    Attributes:
        resumed: the number of rows that the file had already.
        errors: the number of photos that have an error in those rows, and no newer row.

    Raises:
        CatordogError: on entry: another process writes the file; it can't be written; its rows are
            in another format, or of other classes or settings; or an interrupted run has left rows.
            Nothing has changed then.
    """

    def __init__(
        self,
        path: Path,
        style: Format,
        classes: tuple[str, ...],
        *,
        also: bool = False,
        resume: bool = False,
        settings: Settings | None = None,
    ) -> None:
        self.resumed = 0
        self._path, self._style, self._columns = path, style, Columns(classes, also)
        self._resume = resume
        self._record = None if settings is None else RunRecord.of(settings)
        self._known: npt.NDArray[np.int64] = np.empty(0, np.int64)  # digests of paths, sorted
        self._verdicts: npt.NDArray[np.int32] = np.empty(0, np.int32)  # of these, as indices
        self._verdict_names: list[str] = []
        self._cell = column_names(*self._columns).index("verdict")
        self._failed: set[int] = set()  # digests of resumed rows with an error
        self._waiting: set[int] = set()  # of those whose photos have no newer row
        self._failing: set[int] = set()  # digests of this run's rows with an error
        self._folder: str | None = None  # where relative paths start, if not in the current folder

    @property
    def errors(self) -> int:  # noqa: D102
        return len(self._waiting)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stream = is_stream(self._path)
            if stream and self._resume:
                raise CatordogError(f"--resume needs a file, and {encodable(self._path)} is none")
            if not stream:
                self._target, self._partial = resolved(self._path), partial_of(self._path)
                shown = encodable(self._path)
                stack.enter_context(
                    locked(self._path, f"{shown} is being written by another run: wait for it")
                )
                if self._resume:
                    self._continue()
                elif _can_be_resumed(self._partial):
                    raise CatordogError(
                        f"{printable(self._partial)} has the rows of an interrupted run: continue "
                        "it with --resume, or remove the file to start again"
                    )
            writer = atomic_writer(
                self._path,
                append=self._resume,
                before=self._merge,
                advice="" if self._style == "table" else "; --resume continues",
            )
            file = stack.enter_context(writer)
            if not stream:
                self._attach_record()
            empty = not self._resume or file.tell() == 0
            self._write = _WRITERS[self._style](file, self._columns, empty)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, path: str, result: Result) -> None:
        """Write a row. It replaces an earlier one with an error when the file is complete."""
        if isinstance(result, PhotoError):
            self._failing.add(_digest(path))
        if self._failed or self._failing:
            digest = _digest(path)
            self._waiting.discard(digest)
            if digest in self._failing and not isinstance(result, PhotoError):
                self._failed.add(digest)
        # Relative paths of a file that was started in another folder start there.
        self._write(path if self._folder is None else str(Path(path).absolute()), result)

    def has(self, path: str) -> bool:
        """Whether the resumed file had a row without an error for a photo."""
        return self.verdict_of(path) is not None

    def verdict_of(self, path: str) -> str | None:
        """Return the verdict in a photo's row of the resumed file; None as for `has`."""
        if not len(self._known):
            return None
        digest = _digest(path)
        # The last of several rows: of a photo that was replaced while its folder was watched.
        index = int(np.searchsorted(self._known, digest, side="right")) - 1
        if index < 0 or int(self._known[index]) != digest:
            return None
        return self._verdict_names[int(self._verdicts[index])]

    def _continue(self) -> None:
        """Read which photos have a row, cut off an incomplete one, and prepare the partial file."""
        source = self._partial if self._partial.exists() else self._target
        if not source.is_file():
            return
        record = read_record(source, self._target)
        folder = record.folder if record else None
        readable, verdicts = array("q"), array("i")
        indices: dict[str, int] = {}
        complete = 0  # bytes
        for row in _complete_rows(source, self._style):
            found = self._parsed(row, source, first=not complete)
            complete += len(row)
            if found is None:
                continue
            path, verdict = found
            self.resumed += 1
            if verdict is None:
                self._failed.add(_digest(path, folder))
            else:
                readable.append(_digest(path, folder))
                verdicts.append(indices.setdefault(verdict, len(indices)))
        if record and self._record:
            record.check(self._record.settings, self._path)
        elif self._record and self.resumed:
            info(
                f"{encodable(self._path)} does not say which model and options wrote its rows: "
                "can't check that they are the same"
            )
        if readable:
            known = np.frombuffer(readable, np.int64)
            order = np.argsort(known, kind="stable")
            self._known, self._verdicts = known[order], np.frombuffer(verdicts, np.int32)[order]
            escaped = {text_cell(name): name for name in verdicts_of(self._columns.classes)}
            self._verdict_names = [escaped.get(name, name) for name in indices]
        self._waiting = self._failed.difference(readable)
        if folder is not None and folder != encodable(Path.cwd()):
            self._folder = folder
        if self.resumed:
            self._record = record
        if source == self._target:  # which stays as it is until it is replaced
            with atomic_path(self._partial) as temporary:
                shutil.copyfile(source, temporary)
        os.truncate(self._partial, complete)

    def _merge(self) -> None:
        """Put the new rows of photos that had an error in the place of the old ones."""
        if not self._failed:
            return
        rows = self._digested_rows()
        latest = {digest: row for digest, row in rows if digest in self._failed}
        with atomic_path(self._partial) as temporary, temporary.open("wb") as file:
            for digest, row in self._digested_rows():
                file.write(latest.pop(digest, b"") if digest in self._failed else row)
        self._attach_record()

    def _digested_rows(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of the partial file with the digests of their paths; 0 for the header."""
        for index, row in enumerate(_complete_rows(self._partial, self._style)):
            found = self._parsed(row, self._partial, first=not index)
            yield _digest(found[0], self._folder) if found else 0, row

    def _attach_record(self) -> None:
        if self._record:
            write_record(self._record, self._partial, self._target)

    def _parsed(self, row: bytes, source: Path, *, first: bool) -> tuple[str, str | None] | None:
        """Return the path and the verdict in a row, None for an error; None for a CSV's header."""
        try:
            text = row.decode()
            if self._style == "csv":
                cells = next(csv.reader([text]))
                if first and cells != column_names(*self._columns):
                    raise ValueError
                return None if first else (cells[0], None if cells[-1] else cells[self._cell])
            found = json.loads(text)
            if found["logits"] is not None and tuple(found["logits"]) != self._columns.classes:
                raise ValueError
            return str(found["path"]), None if found["error"] is not None else str(found["verdict"])
        except (ValueError, KeyError, TypeError, IndexError, csv.Error):
            raise CatordogError(
                f"{encodable(source)} has rows in another format or of other classes: "
                "move it away, or leave out --resume"
            ) from None


def _complete_rows(path: Path, style: Format) -> Iterator[bytes]:
    """Yield rows, with their line ends, up to the first incomplete one."""
    row = b""
    with path.open("rb") as file:
        for line in file:
            row += line
            # A line break within quotes is part of a file name.
            if line.endswith(b"\n") and not (style == "csv" and row.count(b'"') % 2):
                yield row
                row = b""


def _can_be_resumed(partial: Path) -> bool:
    """Whether a partial file has rows of JSON Lines or CSV, beside a header."""
    header = b"path,label,confidence,"
    with suppress(FileNotFoundError), partial.open("rb") as file:
        start = file.readline()
        return start.startswith(b"{") or (start.startswith(header) and bool(file.readline(1)))
    return False


def _digest(path: str, folder: str | None = None) -> int:
    """Return 8 bytes for a path, so that a million paths take 8 MB.

    Relative and absolute paths of a photo have the same digest.

    Args:
        path: of a photo, or from a row.
        folder: the one that it starts from; None: the current folder.
    """
    place = os.path.abspath(os.path.join(folder or "", path))  # noqa: PTH100, PTH118 - Path is slow
    digest = blake2b(encodable(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _table(file: IO[str], columns: Columns, header: bool) -> Writer:
    """Write aligned columns without looking ahead: the path, which varies most, comes last."""
    classes = columns.classes
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
        path = printable(path)
        if isinstance(result, PhotoError):
            line(UNREADABLE, [""] * len(widths), f"{path}: {printable(result.reason)}")
            return
        confidences = [format_confidence(value) for value in result.confidences.values()]
        logits = [f"{value:.3f}" for value in result.logits.values()]
        line(printable(result.in_words()), confidences + logits, path)

    return write


def row_of(path: str, result: Result) -> dict[str, Any]:
    """Return a prediction as one line of JSON Lines holds it."""
    path = encodable(path)
    if isinstance(result, PhotoError):
        return {"path": path, **dict.fromkeys(_KEYS), "error": result.reason}
    return {"path": path, **result.to_dict(), "error": None}


_KEYS = ("label", "confidence", "confidences", "logits", "verdict")


def _jsonl(file: IO[str], columns: Columns, header: bool) -> Writer:
    del columns, header

    def write(path: str, result: Result) -> None:
        print(json_text(row_of(path, result)), file=file, flush=True)

    return write


def _csv(file: IO[str], columns: Columns, header: bool) -> Writer:
    if header:
        file.write(csv_row(column_names(*columns)))

    def write(path: str, result: Result) -> None:
        path, *values = column_values(path, result, len(columns.classes), also=columns.also)
        cells = ["" if value is None else value for value in values]
        safe = (text_cell(cell) if isinstance(cell, str) else cell for cell in cells)
        file.write(csv_row([path_cell(path), *safe]))
        file.flush()

    return write


def column_names(classes: Sequence[str], also: bool = False) -> list[str]:
    """Return the columns of a CSV or Parquet file of predictions.

    Args:
        classes: their names, in the order of the logits.
        also: with a column for the other classes that a photo shows (see `Prediction.also`): their
            names, separated by semicolons.

    >>> column_names(["cat"])
    ['path', 'label', 'confidence', 'confidence_cat', 'logit_cat', 'verdict', 'error']
    """
    columns = [f"confidence_{name}" for name in classes] + [f"logit_{name}" for name in classes]
    others = ["also"] if also else []
    return ["path", "label", "confidence", *columns, "verdict", *others, "error"]


def column_values(path: str, result: Result, classes: int, *, also: bool = False) -> list[Any]:
    """Return the values of these columns; of an unreadable photo, numbers are None, text is ""."""
    path = encodable(path)
    if isinstance(result, PhotoError):
        return [path, "", *[None] * (1 + 2 * classes), "", *[""] * also, result.reason]
    numbers = [*result.confidences.values(), *result.logits.values()]
    others = ["; ".join(result.also or ())] if also else []
    return [path, result.label, result.confidence, *numbers, result.verdict, *others, ""]


def summary(verdicts: Mapping[str, int], unreadable: int = 0, resumed: int = 0) -> str:
    """Summarise a run in one line.

    Args:
        verdicts: the number of photos by verdict.
        unreadable: the number of photos without one.
        resumed: the number of photos that the file had already.

    >>> summary({"dog": 1200, "cat": 3}, unreadable=1, resumed=50)
    '1,204 photos: 3 cat, 1,200 dog, 1 unreadable (50 were in the file already)'
    """
    total = sum(verdicts.values()) + unreadable
    ordered = [*sorted(verdicts.items()), (UNREADABLE, unreadable)]
    counts = ", ".join(f"{number:,} {verdict}" for verdict, number in ordered if number)
    return (
        f"{total:,} photo{'' if total == 1 else 's'}"
        + (f": {counts}" if counts else "")
        + (f" ({resumed:,} were in the file already)" if resumed else "")
    )


_WRITERS: dict[str, Callable[[IO[str], Columns, bool], Writer]] = {
    "table": _table,
    "jsonl": _jsonl,
    "csv": _csv,
}
