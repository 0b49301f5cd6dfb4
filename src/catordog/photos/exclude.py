"""Leave out the photos that the user lists in a table (`--exclude`)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import encodable, printable
from catordog.photos.csv_lists import paths_in_table
from catordog.photos.photo import Photos
from catordog.terminal import info

_SHOWN = 3


def excluded_names(photos: Photos, file: Path, dataset: str) -> frozenset[str]:
    """The names of the photos that an exclude list names; paths that are no photo are reported.

    Args:
        photos: of the dataset.
        file: the list; see `csv_lists.paths_in_table`.
        dataset: its name, for messages.

    Raises:
        CatordogError: the list can't be read, or none of its paths is a photo of the dataset.
    """
    option = f"--exclude {file}"
    return frozenset(photos_listed(photos, paths_in_table(file, option), file, dataset, option)[0])


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
    first = photos.source.path(photos.names[0])
    root = first[: -len(photos.names[0])] if first.endswith(photos.names[0]) else ""
    resolved = Path(root).resolve()
    order = {path: number for number, path in enumerate(listed)}
    wanted: dict[str, dict[str, None]] = {}
    for path in order:
        for form in _forms(path, file):
            wanted.setdefault(form, {})[path] = None
    names: dict[str, list[str]] = {}
    missing = dict(order)
    for name in photos.names:
        path = os.path.normpath(photos.source.path(name))
        hits = {hit for form in (name, path, f"{resolved}/{name}")
                for hit in wanted.get(_key(form), ())}  # fmt: skip
        if hits:
            names[name] = sorted(hits, key=order.__getitem__)
            for hit in hits:
                missing.pop(hit, None)
    if listed and not names:
        raise CatordogError(
            f"{option}: none of its {len(listed):,} paths is in {dataset}, whose paths "
            f"look like {printable(first)}"
        )
    if missing:
        info(
            f"{option}: {len(missing):,} of its {len(listed):,} paths are not in "
            f"{dataset}: {_first(list(missing))}"
        )
    return names, list(missing)


def _forms(path: str, file: Path) -> list[str]:
    """A listed path in the forms in which a photo of the dataset may have it."""
    expanded = Path(path).expanduser()
    absolute = [Path(os.path.normpath(folder.absolute() / expanded))
                for folder in (Path(), file.parent)]  # fmt: skip
    resolved = [each.parent.resolve() / each.name for each in absolute]
    return [_key(str(each)) for each in (os.path.normpath(path), *absolute, *resolved)]


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", encodable(Path(path).as_posix()))


def _first(paths: Sequence[str]) -> str:
    shown = ", ".join(map(printable, paths[:_SHOWN]))
    return shown + (", …" if len(paths) > _SHOWN else "")
