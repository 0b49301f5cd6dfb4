"""Read CSV files that list photos: a dataset (`--data`), or photos to leave out (`--exclude`)."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from catordog.errors import CatordogError
from catordog.photos.layouts import Labels, class_name, split_named
from catordog.photos.splits import Split


def paths_in_csv(file: Path) -> set[str]:
    """The column `path` of an exclude list, normalised.

    Raises:
        CatordogError: the file can't be read, or has no such column.
    """
    rows = _rows(file, f"--exclude {file}", ("path",))
    return {os.path.normpath(row["path"]) for row in rows if row["path"]}


def labels_from_csv(file: Path) -> Labels:
    """The photos, labels and splits in the columns `path`, `label` and, optionally, `split`.

    Paths are relative to the folder of the CSV file, or absolute. A split is empty, or named as a
    split folder would be. Rows without a path or a label are skipped.

    Raises:
        CatordogError: the file can't be read, lacks a column, has an unknown split, or lists a
            photo twice with different labels.
    """
    option = f"--data {file}"
    entries: dict[str, tuple[str, Split | None]] = {}
    for row in _rows(file, option, ("path", "label")):
        path, label = row["path"], class_name((row["label"] or "").strip())
        if not path or not label:
            continue
        name, split = Path(path).as_posix(), (row.get("split") or "").strip()
        own = split_named(split)
        if split and own is None:
            raise CatordogError(f"{option}: unknown split {split!r}: use train, val or test")
        entry = (label, own)
        if entries.setdefault(name, entry) != entry:
            raise CatordogError(f"{option}: {path} is listed twice, differently: keep one of them")
    found = Labels()
    for name, (label, own_split) in sorted(entries.items()):
        found.add(name, label, own_split)
    return found


def _rows(file: Path, option: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            for column in columns:
                if column not in (rows.fieldnames or ()):
                    raise CatordogError(f"{option}: it has no column {column!r}")
            yield from rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV file in UTF-8"
        raise CatordogError(f"{option}: {reason}") from None
