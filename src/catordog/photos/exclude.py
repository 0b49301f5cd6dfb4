"""Leave out the photos that the user lists in a table (`--exclude`)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import encodable, printable
from catordog.photos.csv_lists import paths_in_table
from catordog.photos.photo import Photos
from catordog.terminal import info

_SHOWN = 3


def excluded_names(photos: Photos, file: Path, dataset: str) -> frozenset[str]:
    """The names of the photos that an exclude list names; paths that are no photo are reported.

    A path is absolute, or relative to the dataset, to the working folder or to the folder of the
    list.

    Args:
        photos: of the dataset.
        file: the list; see `csv_lists.paths_in_table`.
        dataset: its name, for messages.

    Raises:
        CatordogError: the list can't be read, or none of its paths is a photo of the dataset.
    """
    listed = paths_in_table(file)
    first = photos.source.path(photos.names[0])
    root = first[: -len(photos.names[0])] if first.endswith(photos.names[0]) else ""
    resolved = Path(root).resolve()
    wanted: dict[str, str] = {}
    for path in listed:
        for form in _forms(path, file):
            wanted.setdefault(form, path)
    names: set[str] = set()
    matched: set[str] = set()
    for name in photos.names:
        path = os.path.normpath(photos.source.path(name))
        for form in (name, path, f"{resolved}/{name}"):
            if (hit := wanted.get(_key(form))) is not None:
                names.add(name)
                matched.add(hit)
    if listed and not names:
        raise CatordogError(
            f"--exclude {file}: none of its {len(listed):,} paths is in {dataset}, whose paths "
            f"look like {printable(first)}"
        )
    if missing := [path for path in listed if path not in matched]:
        info(
            f"--exclude {file}: {len(missing):,} of its {len(listed):,} paths are not in "
            f"{dataset}: {_first(missing)}"
        )
    return frozenset(names)


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
