"""What `--data` means: from a path or a name to labelled photos with their splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.files import expanded
from catordog.photos import shards
from catordog.photos.archive_names import is_archive_name, note_archives
from catordog.photos.class_names import check_class_names
from catordog.photos.csv_lists import TABLE_SUFFIXES
from catordog.photos.decisions import apply, read_decisions
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.downloads import DOWNLOADS, fetch
from catordog.photos.exclude import excluded_names
from catordog.photos.layouts import Labels, labels_from_names, split_named
from catordog.photos.listing import Unopened, is_photo_name
from catordog.photos.oxford_pets import ANNOTATIONS, labels_from_annotations
from catordog.photos.photo import NO_LABEL, Photos, StoreSource
from catordog.photos.photo_dataset import PhotoDataset
from catordog.photos.stores import Folder, Store, open_store, special_kind
from catordog.photos.synthetic_dataset import synthetic_photos
from catordog.photos.table_labels import (
    NoLabelColumnError,
    labels_from_table_file,
    labels_from_tables,
)
from catordog.terminal import info, progress

Need = Literal["required", "optional"]

FORMS = (
    "a folder with a sub-folder per class, the same under train/ val/ test/, files named "
    "cat.N.jpg and dog.N.jpg, a zip or tar of any of these, the Oxford-IIIT Pet layout, a table "
    "of paths and labels (CSV), a folder made by 'catordog shard', or 'drawn', 'oxford-pets', "
    "'microsoft'"
)


def open_dataset(
    data: str,
    *,
    rules: DecodeRules = DEFAULT_RULES,
    exclude: str | None = None,
    decisions: str | None = None,
    labels: Need = "required",
    new_classes: bool = False,
) -> PhotoDataset:
    """Find the labelled photos that `--data` names. Only names and folders are read here.

    Args:
        data: a path or a name, in any of the forms that `FORMS` lists. `drawn` takes settings:
            `drawn:n=8000,seed=0,size=64,morph=0`, and `animals=3` adds rabbits.
        rules: how photos are decoded.
        exclude: a table with a column `path`: photos to leave out; see `exclude`.
        decisions: a file of decisions about photos, or a table with the columns `path` and `label`:
            labels to replace, and photos to leave out; see `decisions`.
        labels: if they are optional, photos of one class, or without any labels, are a dataset too.
        new_classes: decisions may give labels that no photo has.

    Raises:
        CatordogError: there is no such dataset, or it has no labelled photos of two classes, or no
            photos at all.

    >>> open_dataset("drawn:n=100").summary()
    'drawn:n=100: 100 photos (50 cat, 50 dog)'
    """
    dataset = _open(data, rules, labels)
    if exclude is not None:
        excluded = excluded_names(dataset.photos, expanded(exclude), dataset.name)
        dataset = replace(dataset, excluded=excluded)
    if decisions is not None:
        file = expanded(decisions)
        dataset, _ = apply(dataset, read_decisions(file), file, new_classes=new_classes)
    return dataset


def _open(data: str, rules: DecodeRules, need: Need) -> PhotoDataset:
    if not data:
        raise CatordogError(f"--data '': the name is empty; give {FORMS}")
    path = expanded(data)
    if not path.exists():
        if data.partition(":")[0] == "drawn":
            return PhotoDataset(data, *synthetic_photos(data), distinct=True)
        if data not in DOWNLOADS:
            raise CatordogError(f"--data {data}: no such file or folder; give {FORMS}")
        path = fetch(data)
    if (path / shards.INDEX).is_file():
        return _open_shards(data, shards.Shards(path), rules)
    store = open_store(path)
    if store is None and path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        found, listed = labels_from_table_file(path)
        return _labelled(data, Folder(path.parent), found, rules, need, listed)
    if store is None:
        if kind := special_kind(path.stat().st_mode):
            raise CatordogError(f"--data {data}: not a regular file, but a {kind}; give {FORMS}")
        raise CatordogError(f"--data {data}: neither a folder nor an archive; give {FORMS}")
    return _open_files(data, store, rules, need)


def _open_shards(data: str, store: shards.Shards, rules: DecodeRules) -> PhotoDataset:
    """Photos packed by `catordog shard`, whose index has their labels and splits."""
    names, splits = shards.Names(store), list(store.splits())
    photos = Photos(StoreSource(store, rules), names, store.labels(), splits)
    if not len(photos):
        raise CatordogError(f"--data {data}: its shards are empty; pack them again")
    check_class_names(f"--data {data}", store.classes)
    return PhotoDataset(data, store.classes, photos, packed=True)


@dataclass(frozen=True, slots=True)
class _Files:
    """The names of files in a store that matter.

    Attributes:
        photos: sorted.
        annotations: lists in the Oxford-IIIT Pet layout.
        tables: files that may hold labels.
        archives: what is not looked into.
    """

    store: Store
    photos: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)


def _labels_from_names_or_tables(files: _Files) -> Labels:
    """Labels from names; if these give no two classes, from a table beside the photos."""
    by_name = labels_from_names(files.photos)
    names = set(by_name.labels)
    # images_part_1/ and images_part_2/ are hardly classes, if a table knows better.
    parts = len(names) > 1 and len({re.sub(r"\d+", "", name) for name in names} - {""}) == 1
    if len(names) > 1 and not parts:
        return by_name
    by_table = labels_from_tables(files.tables, files.photos, files.store) if files.tables else None
    enough = 0.9 * len(files.photos) if parts else 1
    return by_table if by_table and len(by_table.names) >= enough else by_name


LAYOUTS: tuple[Callable[[_Files], Labels], ...] = (
    lambda files: labels_from_annotations(files.annotations, files.photos, files.store),
    _labels_from_names_or_tables,
)
"""Where labels come from: the first layout that labels any photo wins."""


def _open_files(data: str, store: Store, rules: DecodeRules, need: Need) -> PhotoDataset:
    files = _list_files(store)
    if not files.photos and files.archives:
        names = ", ".join(map(printable, sorted(files.archives)[:_SHOWN]))
        raise CatordogError(
            f"--data {data}: no photos in it, but {names}: give the path of the archive if it is a "
            "zip or tar, or unpack it"
        )
    if not files.photos:
        raise CatordogError(f"--data {data}: no photos in it; give {FORMS}")
    note_archives(f"--data {data}", files.archives)
    try:
        found = next((labels for layout in LAYOUTS if (labels := layout(files)).names), Labels())
    except CatordogError as error:
        if need == "required" or not isinstance(error, NoLabelColumnError):
            raise CatordogError(f"--data {data}: {error}") from None
        info(f"{data}: {error}")
        found = Labels()
    if not found.names and need == "optional":
        count = len(files.photos)
        photos = Photos(StoreSource(store, rules), files.photos, [NO_LABEL] * count, [None] * count)
        return PhotoDataset(data, (), photos)
    if not found.names:
        raise CatordogError(
            f"--data {data}: {len(files.photos):,} photos but no labels; give {FORMS}"
        )
    dataset = _labelled(data, store, found, rules, need, files.photos)
    return replace(dataset, unopened=_unopened(files, found))


def _labelled(
    data: str,
    store: Store,
    found: Labels,
    rules: DecodeRules,
    need: Need,
    listed: Sequence[str],
) -> PhotoDataset:
    classes = tuple(sorted(set(found.labels)))
    if not classes:
        raise CatordogError(f"--data {data}: no labelled photos in it; give {FORMS}")
    check_class_names(f"--data {data}", classes)
    for note in found.notes:
        info(f"{data}: {note}")
    # cat_train beside cat_test, but not a single train_station
    split_words = {split for name in classes for split in map(split_named, _WORD.findall(name))}
    split_words.discard(None)
    if len(split_words) > 1 or any(map(split_named, classes)):
        called = [name for name in classes if any(map(split_named, [name, *_WORD.findall(name)]))]
        info(
            f"{data}: {', '.join(called)}: called like a split, but taken for a class; if it is a "
            "split, put the photos of each class into a folder of their own in it"
        )
    if len(classes) == 1 and need == "required":
        raise CatordogError(
            f"--data {data}: all labelled photos ({len(found.names):,}) are of one class, "
            f"{classes[0]!r}; add photos of a second class"
        )
    index = {label: number for number, label in enumerate(classes)}
    labels = map(index.__getitem__, found.labels)
    photos = Photos(StoreSource(store, rules), found.names, labels, found.splits)
    unlabelled, left_out = _left_out(listed, found.names)
    return PhotoDataset(data, classes, photos, unlabelled, left_out)


def _unopened(files: _Files, found: Labels) -> tuple[PhotoError, ...]:
    """Why folders and archives that have no label can't be opened."""
    unopened = {name for name in files.photos if isinstance(name, Unopened)}
    errors = []
    for name in sorted(unopened.difference(found.names)) if unopened else ():
        try:
            files.store.read(name)
        except PhotoError as error:
            errors.append(error)
    return tuple(errors)


def _left_out(listed: Sequence[str], labelled: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """How many of the listed photos have no label, and the first of their folders and names."""
    if len(listed) == len(labelled):
        return 0, ()
    wanted = set(labelled)
    without = [name for name in listed if name not in wanted]
    used = {name[: end.end()] for name in labelled for end in _SLASH.finditer(name)}
    shown: dict[str, None] = {}
    for name in without:
        folders = (name[: end.end()] for end in _SLASH.finditer(name))
        shown[next((folder for folder in folders if folder not in used), name)] = None
        if len(shown) > _SHOWN:
            break
    names = list(shown)
    return len(without), tuple(names[:_SHOWN] + ["…"] * (len(names) > _SHOWN))


_SLASH = re.compile("/")
_WORD = re.compile(r"[^\W_]+")
_SHOWN = 3


def _list_files(store: Store) -> _Files:
    files = _Files(store)
    with progress("listing files") as done:
        for count, name in enumerate(store.names(), 1):
            if is_photo_name(name):
                files.photos.append(name)
            elif name.endswith(ANNOTATIONS):
                files.annotations.append(name)
            elif name.lower().endswith(TABLE_SUFFIXES):
                files.tables.append(name)
            elif is_archive_name(name):
                files.archives.append(name)
            if count % 1000 == 0:
                done(count)
    files.photos.sort()
    return files
