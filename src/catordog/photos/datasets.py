"""What `--data` means: from a path or a name to labelled photos with their splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from catordog.errors import CatordogError
from catordog.escaping import printable
from catordog.photos import shards
from catordog.photos.archives import is_archive_name
from catordog.photos.class_names import check_class_names
from catordog.photos.csv_lists import TABLE_SUFFIXES
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.downloads import DOWNLOADS, fetch
from catordog.photos.exclude import excluded_names
from catordog.photos.layouts import Labels, labels_from_names, split_named
from catordog.photos.listing import is_photo_name
from catordog.photos.near_copies import groups_of, labels_of_copies
from catordog.photos.oxford_pets import ANNOTATIONS, labels_from_annotations
from catordog.photos.photo import NO_LABEL, Photo, Photos, StoreSource, keys_of
from catordog.photos.splits import SPLITS, Split, SplitFractions, folds_of, splits_of
from catordog.photos.stores import Folder, Store, open_store, special_kind
from catordog.photos.synthetic_dataset import synthetic_photos
from catordog.photos.table_labels import labels_from_table_file, labels_from_tables
from catordog.terminal import info, progress

Need = Literal["required", "optional"]

FORMS = (
    "a folder with a sub-folder per class, the same under train/ val/ test/, files named "
    "cat.N.jpg and dog.N.jpg, a zip or tar of any of these, the Oxford-IIIT Pet layout, a table "
    "of paths and labels (CSV), a folder made by 'catordog shard', or 'drawn', 'oxford-pets', "
    "'microsoft'"
)


@dataclass(frozen=True, slots=True)
class PhotoDataset:
    """A dataset: its classes and its labelled photos.

    Attributes:
        name: as the user gave it.
        classes: names in lower case, sorted; a photo's label is an index into them. None at all if
            labels are optional, and there are none.
        photos: in the order of their names.
        unlabelled: number of photos left out because the layout gives them no label.
        left_out: names of these, and of the folders that hold no others; as many as are shown.
        excluded: names of photos that the user has excluded.
        distinct: whether all pictures are known to differ, so that no copies need to be found.
        packed: whether the photos are in shards.
    """

    name: str
    classes: tuple[str, ...]
    photos: Photos
    unlabelled: int = 0
    left_out: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    distinct: bool = False
    packed: bool = False
    _splits: dict[SplitFractions, list[Split]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _one_picture: dict[int | None, int] = field(default_factory=dict, repr=False, compare=False)
    """Labels, or None for all photos, whose photos are copies of one another: how many."""

    def split(
        self, which: Split | Literal["all"], fractions: SplitFractions, *, excluded: bool = False
    ) -> list[Photo]:
        """The photos of one split.

        The dataset's own splits win where it has any; if they lack validation photos, those are
        taken from its training photos. Otherwise a photo's content decides, and its copies and
        near copies follow. An unreadable photo stays in training, where it is reported.

        Args:
            which: train, val, test, or all.
            fractions: of validation and test photos.
            excluded: include those that the user has excluded.

        Raises:
            CatordogError: this split has no photo, or none of some class.
        """
        splits: Sequence[Split] = ()
        if which != "all":
            splits = self.splits(fractions)
        chosen = [
            photo
            for index, photo in enumerate(self.photos)
            if (which == "all" or splits[index] == which)
            and (excluded or photo.name not in self.excluded)
        ]
        self._check(which, chosen, splits)
        return chosen

    def splits(self, fractions: SplitFractions) -> list[Split]:
        """The split of every photo, in their order, also of the excluded ones."""
        if fractions not in self._splits:
            self._splits[fractions] = self._find_splits(fractions)
        return self._splits[fractions]

    def _find_splits(self, fractions: SplitFractions) -> list[Split]:
        own = {split for split in self.photos.own_splits if split}
        if not own:
            return self._by_content(range(len(self.photos)), fractions)
        splits: list[Split] = [split or "train" for split in self.photos.own_splits]
        if "train" in own and "val" not in own:
            train = [index for index, split in enumerate(splits) if split == "train"]
            only_val = SplitFractions(fractions.val / (1 - fractions.test), 0)
            for index, split in zip(train, self._by_content(train, only_val), strict=True):
                splits[index] = split
        return splits

    def _by_content(self, indices: Sequence[int], fractions: SplitFractions) -> list[Split]:
        photos = [self.photos[index] for index in indices]
        labels = [self.photos.labels[index] for index in indices]
        keys = keys_of(photos)
        groups = None if self.distinct else groups_of(photos, keys)
        if groups is not None:
            self._one_picture.update(labels_of_copies(photos, labels, groups))
        return splits_of(keys, labels, fractions, groups)

    def with_fold(self, count: int, number: int) -> PhotoDataset:
        """The same photos, of which one fold is for validation, and the others are for training.

        Test photos stay those of the dataset's own split; it has none otherwise.

        Args:
            count: the number of folds, 2 or more.
            number: of this fold, 1…count.

        Raises:
            CatordogError: a class has too few different photos.
        """
        own = self.photos.own_splits
        used = [i for i, name in enumerate(self.photos.names)
                if own[i] != "test" and name not in self.excluded]  # fmt: skip
        photos, labels = [self.photos[i] for i in used], [self.photos.labels[i] for i in used]
        keys = keys_of(photos)
        groups = None if self.distinct else groups_of(photos, keys)
        folds, different = folds_of(keys, labels, count, groups)
        for label, name in enumerate(self.classes):
            if different[label] < count:
                raise CatordogError(
                    f"{self.name}: {different[label]} different photos of {name} for {count} "
                    f"folds: add photos, or give --folds {max(2, different[label])}"
                )
        splits: list[Split | None] = ["test" if split == "test" else "train" for split in own]
        for index, fold in zip(used, folds, strict=True):
            splits[index] = "val" if fold == number - 1 else "train"
        columns = Photos(self.photos.source, self.photos.names, self.photos.labels, splits)
        return replace(self, photos=columns, _splits={}, _one_picture={})

    def _check(self, which: str, chosen: Sequence[Photo], splits: Sequence[Split]) -> None:
        counts = Counter(self.classes[x.label] for x in chosen if x.label is not None)
        missing = [name for name in self.classes if not counts[name]]
        for label, count in self._one_picture.items() if which != "all" else ():
            if not chosen or (label is not None and self.classes[label] in missing):
                of = "" if label is None else f" of {self.classes[label]}"
                raise CatordogError(
                    f"{self.name}: all {count:,} readable photos{of} are copies or near copies of "
                    f"one another, so only one split has them, and not {which}; add different "
                    "photos"
                )
        if not chosen:
            there = [split for split in SPLITS if split in set(splits)]
            raise CatordogError(
                f"{self.name} has no {which} photos; it has {', '.join(there) or 'none at all'}: "
                f"choose one of them, or all, with --split"
            )
        if missing:
            raise CatordogError(
                f"{self.name}: the {which} split has no photo of {' or '.join(missing)} "
                f"({_format_counts(counts)}); add photos of each class"
            )

    def summary(self) -> str:
        """One line for people: how many photos of which classes."""
        counts = Counter(self.classes[label] for label in self.photos.labels if label >= 0)
        words = f"{self.name}: {len(self.photos):,} photos"
        words += f" ({_format_counts(counts)})" if counts else ""
        if self.unlabelled:
            words += f", {self.unlabelled:,} without a label left out"
            words += f": {', '.join(map(printable, self.left_out))}" if self.left_out else ""
        if self.excluded:
            words += f", {len(self.excluded):,} excluded"
        return words


def open_dataset(
    data: str,
    *,
    rules: DecodeRules = DEFAULT_RULES,
    exclude: str | None = None,
    labels: Need = "required",
) -> PhotoDataset:
    """Find the labelled photos that `--data` names. Only names and folders are read here.

    Args:
        data: a path or a name, in any of the forms that `FORMS` lists. `drawn` takes settings:
            `drawn:n=8000,seed=0,size=64,morph=0`, and `animals=3` adds rabbits.
        rules: how photos are decoded.
        exclude: a table with a column `path`: photos to leave out; see `exclude`.
        labels: if they are optional, photos of one class, or without any labels, are a dataset too.

    Raises:
        CatordogError: there is no such dataset, or it has no labelled photos of two classes, or no
            photos at all.

    >>> open_dataset("drawn:n=100").summary()
    'drawn:n=100: 100 photos (50 cat, 50 dog)'
    """
    dataset = _open(data, rules, labels)
    if exclude is None:
        return dataset
    excluded = excluded_names(dataset.photos, Path(exclude).expanduser(), dataset.name)
    return replace(dataset, excluded=excluded)


def _open(data: str, rules: DecodeRules, need: Need) -> PhotoDataset:
    path = Path(data).expanduser()
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
    try:
        found = next((labels for layout in LAYOUTS if (labels := layout(files)).names), Labels())
    except CatordogError as error:
        raise CatordogError(f"--data {data}: {error}") from None
    if not found.names and need == "optional":
        count = len(files.photos)
        photos = Photos(StoreSource(store, rules), files.photos, [NO_LABEL] * count, [None] * count)
        return PhotoDataset(data, (), photos)
    if not found.names:
        raise CatordogError(
            f"--data {data}: {len(files.photos):,} photos but no labels; give {FORMS}"
        )
    return _labelled(data, store, found, rules, need, files.photos)


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
            f"--data {data}: all {len(found.names):,} labelled photos are of one class, "
            f"{classes[0]!r}; add photos of a second class"
        )
    index = {label: number for number, label in enumerate(classes)}
    labels = map(index.__getitem__, found.labels)
    photos = Photos(StoreSource(store, rules), found.names, labels, found.splits)
    unlabelled, left_out = _left_out(listed, found.names)
    return PhotoDataset(data, classes, photos, unlabelled, left_out)


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


def _format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts))
