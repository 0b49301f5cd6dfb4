"""Leave out the photos that the user lists in a table (`--exclude`)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import encodable, printable
from catordog.files import expanded
from catordog.photos.csv_lists import path_column, read_table
from catordog.photos.photo import Photos
from catordog.terminal import info

_SHOWN = 3


def excluded_names(photos: Photos, file: Path, dataset: str) -> frozenset[str]:
    """The names of the photos that an exclude list names; paths that are no photo are reported.

    Args:
        photos: of the dataset.
        file: a table with a column of paths, or a plain list; see `csv_lists.path_column`.
        dataset: its name, for messages.

    Raises:
        CatordogError: the list can't be read, or none of its paths is a photo of the dataset.
    """
    option = f"--exclude {file}"
    table = read_table(file, option)
    plain = _each_once(table.lines) if len(table.columns) < 2 else []
    try:
        paths = _each_once(table.column(path_column(table, option)))
    except CatordogError:
        if not _found(photos, plain, file):
            raise
        paths = plain
    # Names in a plain list may have commas, which split them.
    if plain != paths and len(_found(photos, plain, file)) > len(_found(photos, paths, file)):
        paths = plain
    return frozenset(photos_listed(photos, paths, file, dataset, option)[0])


def _each_once(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, map(str.strip, paths))))


def photos_listed(
    photos: Photos, listed: Collection[str], file: Path, dataset: str, option: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Which photos a list names.

    A path is absolute, or relative to the dataset, to the working folder or to the folder of the
    list.

    Args:
        photos: of the dataset.
        listed: different paths.
        file: the list.
        dataset: its name, for messages.
        option: names the list in messages.

    Returns:
        For the name of each listed photo all its paths in the list, in the list's order; and the
        paths that are no photo of the dataset, which are also reported.

    Raises:
        CatordogError: none of the paths is a photo of the dataset.
    """
    names = _found(photos, listed, file)
    if listed and not names:
        first = photos.source.path(photos.names[0])
        raise CatordogError(
            f"{option}: none of its {len(listed):,} paths is in {dataset}, whose paths "
            f"look like {printable(first)}"
        )
    found = {path for paths in names.values() for path in paths}
    missing = [path for path in listed if path not in found]
    if missing:
        info(
            f"{option}: {len(missing):,} of its {len(listed):,} paths are not in "
            f"{dataset}: {_first(missing)}"
        )
    return names, missing


def _found(photos: Photos, listed: Collection[str], file: Path) -> dict[str, list[str]]:
    """For the name of each listed photo all its paths in the list, in the list's order."""
    first, name = photos.source.path(photos.names[0]), encodable(photos.names[0])
    resolved = Path(first.removesuffix(name) if first.endswith(name) else "").resolve()
    order = {path: number for number, path in enumerate(listed)}
    wanted: dict[str, dict[str, None]] = {}
    for path in order:
        for form in _forms(path, file):
            wanted.setdefault(form, {})[path] = None
    names: dict[str, list[str]] = {}
    for name in photos.names:
        path = os.path.normpath(photos.source.path(name))
        hits = {hit for form in (name, path, f"{resolved}/{name}")
                for hit in wanted.get(_key(form), ())}  # fmt: skip
        if hits:
            names[name] = sorted(hits, key=order.__getitem__)
    return names


def _forms(path: str, file: Path) -> list[str]:
    """A listed path in the forms in which a photo of the dataset may have it."""
    absolute = [Path(os.path.normpath(folder.absolute() / expanded(path)))
                for folder in (Path(), file.parent)]  # fmt: skip
    resolved = [each.parent.resolve() / each.name for each in absolute]
    return [_key(str(each)) for each in (os.path.normpath(path), *absolute, *resolved)]


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", encodable(Path(path).as_posix()))


def _first(paths: Sequence[str]) -> str:
    shown = ", ".join(map(printable, paths[:_SHOWN]))
    return shown + (", …" if len(paths) > _SHOWN else "")
