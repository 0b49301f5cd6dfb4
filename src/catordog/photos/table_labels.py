"""Labels and splits from tables of photos: `labels.csv` beside `images/`, or given as `--data`."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import encodable, printable
from catordog.photos.csv_lists import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    Table,
    parse_table,
    read_table,
)
from catordog.photos.layouts import Labels, class_name, split_named
from catordog.photos.listing import is_photo_name
from catordog.photos.splits import Split
from catordog.photos.stores import Folder, Store, photo_names_in

_SHOWN = 3


def labels_from_table_file(file: Path) -> tuple[Labels, list[str]]:
    """Labels of the photos that a table lists by absolute paths, or relative to its folder.

    Photos that are not there by path are looked for by name below the folder.

    Returns:
        The labels, and the names of all photos in the folders of those that are labelled.

    Raises:
        CatordogError: the file is no table of two columns, or none of its photos is there.
    """
    option, folder = f"--data {file}", file.parent
    table = read_table(file, option)
    if table.width < 2:
        raise CatordogError(f"{option}: neither a folder nor an archive nor a table of two columns")

    top = os.path.abspath(folder)  # noqa: PTH100 - as normpath, and unlike resolve()

    def located(name: str) -> str | None:
        # Any cell may be asked for; Path.is_file raises OSError for one of 300 letters.
        if name == file.name or not os.path.isfile(folder / name):  # noqa: PTH113
            return None
        if ".." not in name and not os.path.isabs(name):  # noqa: PTH117
            return name
        # One name for `a.png`, `../pets/a.png` and its absolute path: it is one photo.
        place = Path(os.path.normpath(os.path.join(top, name)))  # noqa: PTH118
        if place.is_relative_to(top) and place.is_file() and place.samefile(folder / name):
            return place.relative_to(top).as_posix()
        return name

    found = labels_from_table(table, PhotoFinder((), located), option)
    if len(found.names) < len(table.rows):  # ids, or paths from another folder
        listed = list(filter(is_photo_name, Folder(folder).names()))
        found = labels_from_table(table, PhotoFinder(listed, located), option)
    if not found.names and table.rows:
        raise CatordogError(
            f"{option}: none of the {len(table.rows):,} photos that it lists is in {folder}; "
            f"first row: {printable(', '.join(table.rows[0]))}"
        )
    parents = {PurePosixPath(name).parent for name in found.names}
    beside = ((parent / name).as_posix() for parent in parents
              for name in photo_names_in(folder / parent))  # fmt: skip
    return found, sorted({*beside, *found.names})


class NoLabelColumnError(CatordogError):
    """A table has photos, but it can't be told which of its columns has labels."""


class PhotoFinder:
    """Finds the photos that cells of a table mean: by path, by file name, or by it without suffix.

    Args:
        names: of the photos, relative POSIX.
        located: the name of a photo that a file of such a path is, if there is one besides; it may
            be outside of the dataset.
    """

    def __init__(
        self, names: Sequence[str], located: Callable[[str], str | None] = lambda _: None
    ) -> None:
        self._located = located
        self._by_path = {_key(name): name for name in names}
        self._by_path |= {_key(name.rpartition(".")[0]): name for name in names}
        self._by_file_name: dict[str, str | None] = {}
        for name in names:
            path = PurePosixPath(name)
            for key in {_key(path.name), _key(path.stem)}:
                # Several photos of one name: it means none of them.
                self._by_file_name[key] = None if key in self._by_file_name else name

    def find(self, cell: str, folder: str = "") -> str | None:
        """The name of the photo that a cell means; None if there is none.

        Args:
            cell: of a table.
            folder: of the table, relative; paths may start in it, or in a folder that it is in.
        """
        starts = ["" if parent == PurePosixPath() else f"{_key(str(parent))}/"
                  for parent in PurePosixPath(folder, "x").parents]  # fmt: skip
        for path in dict.fromkeys((cell, cell.replace("\\", "/"))):
            name = Path(path).as_posix()
            if (file := self._located(name)) is not None:
                return file
            key = tail = _key(name)
            while tail:  # pets/images/1.jpg may be images/1.jpg here
                for start in starts:
                    if found := self._by_path.get(start + tail):
                        return found
                tail = tail.partition("/")[2]
            if "/" not in key and (by_name := self._by_file_name.get(key)):
                return by_name
        return None


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", encodable(name))


def labels_from_table(table: Table, finder: PhotoFinder, name: str, folder: str = "") -> Labels:
    """The photos, labels and splits that a table lists.

    The columns are found by their usual names, or by their values: the paths are in the column that
    means the most photos, and the labels in the only other one, or in the one with fewest values.

    Args:
        table: of photos.
        finder: finds them.
        name: of the table, for notes and errors.
        folder: of the table, relative to the dataset.

    Returns:
        The labels; empty if no column means photos.

    Raises:
        CatordogError: it can't be told which column has the labels, a split is unknown, or a photo
            is listed twice with different labels.
    """
    paths = _path_column(table, finder, folder)
    if paths is None:
        return Labels()
    label = _label_column(table, paths, name)
    split = _split_column(table, {paths, label})
    entries: dict[str, tuple[str, Split | None]] = {}
    missing: list[str] = []
    splits = table.column(split) if split is not None else [""] * len(table.rows)
    for cell, text, own in zip(table.column(paths), table.column(label), splits, strict=True):
        if not cell or not text:
            continue
        if own and split_named(own) is None:
            raise CatordogError(f"{name}: unknown split {own!r}: use train, val or test")
        photo = finder.find(cell, folder)
        if photo is None:
            missing.append(cell)
            continue
        entry = (class_name(text), split_named(own) if own else None)
        if entries.setdefault(photo, entry) != entry:
            raise CatordogError(f"{name}: {cell} is listed twice, differently: keep one of them")
    found = Labels()
    if not entries:
        return found
    for photo, (text, own_split) in sorted(entries.items()):
        found.add(photo, text, own_split)
    found.notes.append(f"labels from {name}: column {table.name(label)} of {table.name(paths)}")
    if missing:
        first = ", ".join(map(printable, missing[:_SHOWN])) + ", …" * (len(missing) > _SHOWN)
        rows = "1 row has" if len(missing) == 1 else f"{len(missing):,} rows have"
        found.notes.append(f"{rows} no file: {first}")
    return found


def labels_from_tables(names: Sequence[str], photos: Sequence[str], store: Store) -> Labels:
    """The labels in a table beside the photos: in the one that means the most of them.

    Tables for several splits, such as `train.csv` and `test.csv`, are joined.

    Args:
        names: of files that may be tables.
        photos: names of the photos.
        store: where both are.

    Returns:
        Labels of two or more classes; empty if no table has them.

    Raises:
        CatordogError: a table has photos, but it can't be told which column has their labels.
    """
    finder = PhotoFinder(photos)
    best, problem = Labels(), None
    by_split: dict[Split, Labels] = {}
    for name in sorted(names, key=lambda name: (name.count("/"), name))[:_MOST_TABLES]:
        try:
            table, folder = parse_table(store.read(name)), name.rpartition("/")[0]
            found = labels_from_table(table, finder, printable(name), folder)
        except (ValueError, csv.Error, PhotoError):
            continue
        except CatordogError as error:
            problem = problem or error
            continue
        if len(set(found.labels)) < 2:
            continue
        for word in re.split(r"[\W_]+", PurePosixPath(name).stem):
            if split := split_named(word):
                by_split.setdefault(split, found)
        if len(found.names) > len(best.names):
            best = found
    if len(by_split) > 1:
        joined = Labels()
        for split, found in by_split.items():
            for photo, label, own in zip(found.names, found.labels, found.splits, strict=True):
                joined.add(photo, label, own or split)
            joined.notes.extend(found.notes)
        if len(set(joined.names)) == len(joined.names):
            return joined
    if problem and not best.names:
        raise problem
    return best


_MOST_TABLES = 50


def _path_column(table: Table, finder: PhotoFinder, folder: str) -> int | None:
    """The column that means the most photos; of equal ones, the one with the most usual name."""
    usual = table.find(PATH_COLUMNS)
    rest = [index for index in range(table.width) if index not in usual]
    best, most = None, 0
    for index in [*usual, *rest]:
        cells = table.column(index)
        count = len({photo for cell in cells if cell and (photo := finder.find(cell, folder))})
        if count > most:
            best, most = index, count
    return best


def _split_column(table: Table, others: set[int]) -> int | None:
    """The column of splits. One called `set` or `dataset` may say instead where a photo is from."""
    unclear = table.find(("set", "dataset"))
    for index in table.find(SPLIT_COLUMNS):
        cells = filter(None, table.column(index))
        if index not in others and (index not in unclear or all(map(split_named, cells))):
            return index
    return None


def _label_column(table: Table, paths: int, name: str) -> int:
    usual = [index for index in table.find(LABEL_COLUMNS) if index != paths]
    if usual:
        return usual[0]
    splits = table.find(SPLIT_COLUMNS)
    others = [index for index in range(table.width) if index != paths and index not in splits]
    counts = {index: len({cell for cell in table.column(index) if cell}) for index in others}
    if len(others) > 1:  # a column of one value, or of a value for each photo, is no label
        counts = {index: n for index, n in counts.items() if 1 < n <= len(table.rows) // 2}
    fewest = min(counts.values(), default=0)
    best = [index for index, n in counts.items() if n == fewest]
    if len(best) != 1:
        columns = ", ".join(table.name(index) for index in range(table.width))
        raise NoLabelColumnError(
            f"{name}: which of its columns has the labels? It has {columns}: name that one 'label'"
        )
    return best[0]
