"""Decisions of people about photos: an append-only file of JSON Lines, applied to a dataset.

A line is a decision: `{"time", "path", "action", "label", "was", "queue"}`; see `Decision`. The
last one about a path counts, so a decision is undone by another, and the file is its own history.
A table with the columns `path` and `label`, such as the fix list of `audit`, can relabel photos,
too.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from catordog.errors import CatordogError
from catordog.escaping import json_text, printable, text_cell
from catordog.photos.class_names import check_class_names
from catordog.photos.csv_lists import LABEL_COLUMNS, TABLE_SUFFIXES, path_column, read_table
from catordog.photos.exclude import photos_listed
from catordog.photos.layouts import class_name
from catordog.photos.photo import NO_LABEL
from catordog.photos.photo_dataset import PhotoDataset

Action = Literal["keep", "relabel", "leave_out", "skip", "clear"]

MOST_BYTES = 256 * 2**20
"""The size of a file of decisions: about a million of them."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has decided about a photo.

    Attributes:
        path: as `audit` and `--exclude` name the photo.
        action: `keep` the photo and its label, `relabel` it, `leave_out` the photo, `skip` it
            undecided, or `clear` what was decided before.
        label: name of the new class; for `keep` the present one; otherwise None.
        was: the label in the dataset; None if it has none.
        queue: the list that the photo was shown in; None if in none.
        time: ISO 8601, in UTC, with milliseconds.

    Raises:
        ValueError: the values don't fit together.
    """

    path: str
    action: Action
    label: str | None = None
    was: str | None = None
    queue: str | None = None
    time: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        """Check the values: those of a file are anyone's."""
        if self.action not in get_args(Action):
            raise ValueError(f"its action is {self.action!r}, not {', '.join(get_args(Action))}")
        if not isinstance(self.path, str) or not self.path or "\0" in self.path:
            raise ValueError("it has no path")
        texts = [self.time, *(x for x in (self.label, self.was, self.queue) if x is not None)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("its time, label, was or queue is no text")
        datetime.fromisoformat(self.time)
        if self.action == "relabel" and not (self.label or "").strip():
            raise ValueError("it relabels, but has no label")
        if self.action not in ("keep", "relabel") and self.label is not None:
            raise ValueError(f"its action is {self.action!r}, which takes no label")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a line of the file. Keys that are not known are ignored.

        Raises:
            ValueError: it is no decision.
        """
        try:
            values: Any = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")  # noqa: TRY004 - as all that is wrong in it
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        for name in ("time", "path", "action"):
            if name not in known:
                raise ValueError(f"it has no {name!r}")
        return cls(**known)

    def to_json(self) -> str:
        """A line of the file, without its end."""
        values = asdict(self)
        return json_text({"time": values.pop("time"), **values})


class DecisionLog:
    """A file of decisions, which only grows. Any number of threads and processes may write to it.

    Args:
        path: the file; the first decision creates it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def append(self, *decisions: Decision) -> None:
        """Write decisions; they are safe on the disk when this returns.

        Raises:
            CatordogError: they can't be written.
        """
        if not decisions:
            return
        lines = "".join(f"{decision.to_json()}\n" for decision in decisions)
        try:
            with self._lock:
                self._append(lines.encode())
        except OSError as error:
            raise CatordogError(
                f"can't write {printable(self.path)}: {error.strerror or error}: the last decision "
                "is not stored"
            ) from None

    def _append(self, data: bytes) -> None:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # With O_APPEND, one write is never mixed with that of another process.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(self.path, flags, 0o666)
        try:
            if os.lseek(file, 0, os.SEEK_END):
                os.lseek(file, -1, os.SEEK_END)
                if os.read(file, 1) != b"\n":
                    data = _TORN + data
            written = os.write(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        if written < len(data):
            raise OSError("the disk is full")
        if new and os.name != "nt":  # its name has to be safe, too; Windows opens no folder
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def history(self, path: str | None = None) -> list[Decision]:
        """All decisions, or those about one path, in the order in which they were made.

        Raises:
            CatordogError: as `read_decisions`.
        """
        if not self.path.exists():
            return []
        return [each for each in _read(self.path) if path is None or each.path == path]

    def since(self, offset: int) -> tuple[list[Decision], int]:
        """The decisions from this byte of the file on, and where the next one will start.

        Args:
            offset: 0, or what the last call has returned. If the file is shorter, it was replaced.

        Raises:
            CatordogError: as `read_decisions`.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(MOST_BYTES)
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise CatordogError(
                f"can't read {printable(self.path)}: {error.strerror or error}"
            ) from None
        complete = data[: data.rfind(b"\n") + 1]
        # At the start also a last line that only lacks its end; later it may still be written.
        shown = complete if offset else data
        return list(_parsed(shown, printable(self.path))), offset + len(complete)

    def decisions(self) -> dict[str, Decision]:
        """The last decision about each path, as `read_decisions`; none if there is no file yet."""
        return read_decisions(self.path) if self.path.exists() else {}


_TORN = b"\n\n"
"""What is written after a torn line: a blank line tells it from one that is merely broken."""


def read_decisions(path: str | os.PathLike[str]) -> dict[str, Decision]:
    """The last decision about each path, in the order in which they were made.

    Args:
        path: a file of decisions. What a crash has left of a line is ignored: at the end of the
            file, or before the blank line that `DecisionLog` puts after it. Or a table (`.csv`,
            `.tsv`, `.txt`) with the columns `path` and `label`: each row with a label relabels a
            photo, if it has another.

    Raises:
        CatordogError: it can't be read, is too large, or has a line that is no decision.
    """
    file = Path(path)
    read = _read_table if file.suffix.lower() in TABLE_SUFFIXES else _read
    found: dict[str, Decision] = {}
    for decision in read(file):
        found.pop(decision.path, None)
        found[decision.path] = decision
    return found


def _read_table(path: Path) -> Iterator[Decision]:
    option = f"--decisions {path}"
    table = read_table(path, option)
    columns = table.find(LABEL_COLUMNS)
    if not columns:
        raise CatordogError(
            f"{option}: it has no column 'label': name the column of the new labels 'label'"
        )
    paths, labels = table.column(path_column(table, option)), table.column(columns[0])
    for listed, cell in zip(paths, labels, strict=True):
        label = cell[1:] if cell and text_cell(cell[1:]) == cell else cell  # as fix lists have it
        if listed and label:
            yield Decision(listed, "relabel", label=label)


def _read(path: Path) -> Iterator[Decision]:
    name = printable(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise CatordogError(
                f"{name} has {size / 2**20:,.0f} MiB, and a file of decisions at most "
                f"{MOST_BYTES // 2**20}: is it the right file?"
            )
        data = path.read_bytes()
    except OSError as error:
        raise CatordogError(f"can't read {name}: {error.strerror or error}") from None
    yield from _parsed(data, name)


def _parsed(data: bytes, name: str) -> Iterator[Decision]:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield Decision.from_json(line.decode())
        except ValueError as error:
            last = number == len(lines)
            if _is_torn(line, error) and (
                last or (not lines[number].strip(b"\r") and number + 1 < len(lines))
            ):
                continue
            reason = "it is no JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            reason = "it is no text in UTF-8" if isinstance(error, UnicodeError) else reason
            raise CatordogError(
                f"{name}, line {number}: {printable(reason)}: correct or delete the line"
            ) from None


def _is_torn(line: bytes, error: ValueError) -> bool:
    """Whether a line is the beginning of a decision that was being written when power failed.

    A disk may have zeros in its place.
    """
    begun = line.startswith(b"{") or not line.strip(b"\0")
    return begun and isinstance(error, json.JSONDecodeError | UnicodeError)


@dataclass(frozen=True, slots=True)
class DecisionSummary:
    """What decisions have changed in a dataset.

    Attributes:
        relabelled: names of photos that have another label now.
        left_out: names of photos that are left out.
        kept: names of photos whose label was confirmed.
        not_found: paths that are no photo of the dataset.
    """

    relabelled: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    not_found: tuple[str, ...] = ()


def apply(
    dataset: PhotoDataset,
    decisions: Mapping[str, Decision],
    file: Path,
    *,
    new_classes: bool = False,
) -> tuple[PhotoDataset, DecisionSummary]:
    """Apply decisions to a dataset.

    Photos that are left out become `excluded`, and relabelled ones stay in their split, so both
    figures can be given: with the decisions and without.

    Args:
        dataset: as opened, without decisions.
        decisions: by path; of several paths of one photo, the last counts. Paths are those of
            `exclude.photos_listed`.
        file: where they come from, for messages, and for relative paths.
        new_classes: allow labels that no photo has yet.

    Raises:
        CatordogError: no path is a photo of the dataset, or a label is no class of it.
    """
    option = f"--decisions {file}"
    names, missing = photos_listed(dataset.photos, decisions, file, dataset.name, option)
    last = {name: decisions[paths[-1]] for name, paths in names.items()}
    classes = _with_new_classes(dataset, last, option, new_classes)
    index_of = {name: number for number, name in enumerate(classes)}
    moved = [index_of[name] for name in dataset.classes]
    old = [NO_LABEL if label == NO_LABEL else moved[label] for label in dataset.photos.labels]
    labels = array("l", old)
    relabelled: dict[str, int] = {}
    kept, left_out = [], []
    for index, name in enumerate(dataset.photos.names):
        decision = last.get(name)
        if decision is None:
            continue
        if decision.action == "leave_out":
            left_out.append(name)
        elif decision.action == "keep":
            kept.append(name)
        elif decision.action == "relabel":
            label = index_of[class_name(decision.label or "")]
            if label == old[index]:  # corrected since, or listed with the label that it has
                kept += [name] if decision.was not in (None, decision.label) else []
            else:
                relabelled[name] = old[index]
                labels[index] = label
    result = replace(
        dataset,
        classes=classes,
        photos=dataset.photos.with_labels(labels),
        excluded=dataset.excluded | set(left_out),
        relabelled=relabelled,
        confirmed=frozenset([*kept, *relabelled]),
        _one_picture={},
        _splits={},
    )
    summary = DecisionSummary(tuple(relabelled), tuple(left_out), tuple(kept), tuple(missing))
    return result, summary


def _with_new_classes(
    dataset: PhotoDataset, last: Mapping[str, Decision], option: str, new_classes: bool
) -> tuple[str, ...]:
    known = set(dataset.classes)
    added: set[str] = set()
    for name, decision in last.items():
        label = class_name(decision.label or "") if decision.action == "relabel" else None
        if label is None or label in known:
            continue
        if not new_classes:
            raise CatordogError(
                f"{option}: it relabels {printable(name)} to {printable(label)!r}, which is no "
                f"class of {dataset.name}: it has {', '.join(map(printable, dataset.classes))}"
            )
        added.add(label)
    check_class_names(option, sorted(added))
    return tuple(sorted(known | added)) if added else dataset.classes
