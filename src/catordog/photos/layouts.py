"""Labels and splits from the names of files and folders."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from catordog.errors import CatordogError
from catordog.escaping import encodable
from catordog.photos.splits import Split

_SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test", "holdout": "test",
}  # fmt: skip
_SPLIT_NAME = re.compile(
    rf"({'|'.join(_SPLIT_WORDS)})(?:sets?|data|dataset|split|images?|imgs?|photos?)?\d*"
)
_SEPARATORS = re.compile(r"[\W_]+")
_NEUTRAL = frozenset({"image", "images", "img", "imgs", "photo", "photos", "data", "dataset"})
"""Folders inside a split that name no class, if they hold all of it."""

_FLAT_NAME = re.compile(r"(?P<label>[^\W\d][^.]*)\.\d+\.\w+", re.UNICODE)


def split_named(name: str) -> Split | None:
    """The split that a folder, or a cell of a table, of this name means; None if it means none.

    >>> [split_named(name) for name in ("Training-Set", "val", "test1", "train2017", "cats")]
    ['train', 'val', 'test', 'train', None]
    """
    match = _SPLIT_NAME.fullmatch(_SEPARATORS.sub("", name.casefold()))
    return _SPLIT_WORDS[match[1]] if match else None


@lru_cache(maxsize=4096)
def class_name(text: str) -> str:
    """The name of a class as it is compared and stored: in lower case, and in Unicode's form NFC.

    A Mac writes `é` as two characters (NFD), and other systems as one (NFC).

    >>> class_name("Cafe\N{COMBINING ACUTE ACCENT}") == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    True
    """
    folded = unicodedata.normalize("NFC", encodable(text)).casefold()
    return unicodedata.normalize("NFC", folded)


@dataclass(frozen=True, slots=True)
class Labels:
    """The labelled photos of a layout, as three lists of the same length N.

    Attributes:
        names: relative to the dataset's root.
        labels: class names; see `class_name`.
        splits: the split that the layout assigns to each photo; None where it assigns none.
        notes: lines for the user: what was guessed.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[Split | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, label: str, split: Split | None) -> None:
        """Append one photo."""
        self.names.append(name)
        self.labels.append(sys.intern(label))
        self.splits.append(split)

    def extend(self, labelled: _Labelled, split: Split | None) -> None:
        """Append the photos of one folder."""
        for name, label in labelled.photos:
            self.add(name, label, split)


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Photos below one folder, each with its label.

    Attributes:
        photos: name and label of each.
        by_folder: whether they are labelled by their folders; otherwise by their file names.
    """

    photos: list[tuple[str, str]]
    by_folder: bool

    @property
    def labels(self) -> set[str]:
        return {label for _, label in self.photos}


def labels_from_names(photos: Sequence[str]) -> Labels:
    """Labels and splits from the names of folders, or of files, below any wrapper folders.

    The forms are a folder per class, the same in folders per split, folders per split in each
    class folder, and flat files such as `cat.0.jpg`. Photos that fit into none get no label.

    Args:
        photos: relative POSIX names, at least one.

    Raises:
        CatordogError: two forms are mixed, so that a guess would be as good as the other.

    >>> found = labels_from_names(["pets/Cat/1.jpg", "pets/Cat/2.jpg", "pets/dog/1.jpg"])
    >>> found.labels, found.splits
    (['cat', 'cat', 'dog'], [None, None, None])
    >>> found = labels_from_names(["train/cat.0.jpg", "train/dog.0.jpg", "val/cat.1.jpg"])
    >>> found.labels, found.splits
    (['cat', 'dog', 'cat'], ['train', 'train', 'val'])
    """
    wrapper = _wrapper(photos)
    start = len(wrapper)
    inside = [name for name in photos if name.startswith(wrapper)]
    folders: dict[str, list[str]] = {}
    for name in inside:
        top, slash, _ = name[start:].partition("/")
        if slash:
            folders.setdefault(top, []).append(name)
    splits = _split_folders(folders, start)
    labelled = {
        top: _labelled_below(folders[top], _start_in_split(folders[top], start, top, own))
        for top, own in splits.items()
    }
    for top, below in labelled.items():  # train/train/ and train/valid/
        if len({split_named(label) for label in below.labels} - {None}) > 1:
            return labels_from_names(folders[top])
    if splits and _are_splits(folders, splits, labelled, start):
        return _labels_in_splits(splits, labelled)
    if splits:
        others = [top for top in folders if top not in splits]
        unlabelled = not any(found.photos for found in labelled.values())
        if len(splits) > 1 or len(others) > 1 or not unlabelled:
            left_out = tuple(f"{wrapper}{top}/" for top in splits)
            inside = [name for name in inside if not name.startswith(left_out)]
    return _labels_in_classes(_labelled_below(inside, start), start)


def _split_folders(folders: dict[str, list[str]], start: int) -> dict[str, Split]:
    """The folders that are named as splits: train/ and test/, or seg_train/ and seg_test/."""
    exact = {top: split for top in folders if (split := split_named(top))}
    if exact:
        return exact
    found: dict[str, dict[str, Split]] = {}
    for top, names in folders.items():
        for rest, word in (top.rpartition("_")[::2], top.partition("_")[::-2]):
            split = split_named(word)
            if split and rest and any("/" in name[start + len(top) + 1 :] for name in names):
                found.setdefault(rest.casefold(), {})[top] = split
    return next((splits for splits in found.values() if len(set(splits.values())) > 1), {})


def _are_splits(
    folders: dict[str, list[str]],
    splits: dict[str, Split],
    labelled: dict[str, _Labelled],
    start: int,
) -> bool:
    """Whether folders that are named as splits are splits; otherwise the others are the classes.

    Args:
        folders: the names of the photos in each folder.
        splits: those folders that are named as splits.
        labelled: the photos of each of these that have a label.
        start: the length of the path to the folders.
    """
    others = {class_name(top) for top in folders if top not in splits}
    labels = {label for found in labelled.values() for label in found.labels}
    by_folder = any(found.by_folder for found in labelled.values())
    if not others:
        return True
    if not labels or (not by_folder and labels <= others):
        return False  # cat/ and dog/ beside test/1.jpg or test/dog.1.jpg
    if len(set(splits.values())) > 1:
        return True
    below = {class_name(rest.partition("/")[0])
             for top, names in folders.items() if top not in splits
             for name in names if "/" in (rest := name[start + len(top) + 1:])}  # fmt: skip
    if by_folder and (twice := sorted(labels & (others | below))):
        (split,) = set(splits)
        raise CatordogError(
            f"{split}/ has the name of a split, but what is in it ({', '.join(twice[:3])}) is also "
            f"beside it: give the path of {split}/ alone, or rename it if it is a class"
        )
    return True


def _labels_in_splits(splits: dict[str, Split], labelled: dict[str, _Labelled]) -> Labels:
    """The photos in folders of splits."""
    found = Labels()
    train = {label for top, split in splits.items() if split == "train"
             for label in labelled[top].labels}  # fmt: skip
    for top, split in splits.items():
        labels = labelled[top].labels
        # Photos to predict: test/unknown/1.jpg, or test/holiday.1.jpg.
        if train and not labels & train and (len(labels) == 1 or not labelled[top].by_folder):
            continue
        found.extend(labelled[top], split)
    order = sorted(range(len(found.names)), key=found.names.__getitem__)
    found = Labels(
        [found.names[index] for index in order],
        [found.labels[index] for index in order],
        [found.splits[index] for index in order],
    )
    # A single train/ folder, as in Kaggle's archive, defines no test split.
    if len(set(found.splits)) < 2:
        found.splits[:] = [None] * len(found.splits)
    return found


def _labels_in_classes(labelled: _Labelled, start: int) -> Labels:
    """The photos of classes, with the splits of `cat/train/…` and `cat/test/…`."""
    found = Labels()
    if not labelled.by_folder:
        found.extend(labelled, None)
        return found
    in_class: dict[str, set[Split | None]] = {}
    for name, label in labelled.photos:
        folder, slash, _ = name[start:].partition("/")[2].partition("/")
        split = split_named(folder) if slash else None
        in_class.setdefault(label, set()).add(split)
        found.add(name, label, split)
    everywhere = set.intersection(*in_class.values()) if in_class else set()
    anywhere = {split for splits in in_class.values() for split in splits}
    if not everywhere & {"val", "test"} or anywhere <= {"val", "test"}:
        found.splits[:] = [None] * len(found.splits)
        if held_out := sorted(split for split in anywhere if split in {"val", "test"}):
            found.notes.append(
                f"the folders {' and '.join(held_out)} inside class folders are no splits, since "
                "not every class has them beside training photos"
            )
    return found


def _labelled_below(names: Iterable[str], start: int) -> _Labelled:
    """The photos below a folder that class folders label or, if there are none, file names.

    Args:
        names: of the photos.
        start: the length of the path to the folder.
    """
    in_folders: list[tuple[str, str]] = []
    loose: list[tuple[str, str]] = []
    for name in names:
        folder, slash, _ = name[start:].partition("/")
        if slash:
            in_folders.append((name, class_name(folder)))
        elif label := _flat_label(name[start:]):
            loose.append((name, label))
    by_folder = _Labelled(_without_repeated(in_folders, start), by_folder=True)
    by_name = _Labelled(loose, by_folder=False)
    if len(by_name.labels) < 2:
        return by_folder if in_folders else by_name
    if len(by_folder.labels) < 2:
        return by_name
    if len(loose) > len(in_folders):
        raise CatordogError(
            f"{len(loose):,} files are named like {loose[0][0]}, but there are also the class "
            f"folders {', '.join(sorted(by_folder.labels)[:3])}: keep the files or the folders"
        )
    return by_folder


def _without_repeated(photos: list[tuple[str, str]], start: int) -> list[tuple[str, str]]:
    """Without the photos in a copy of the dataset beside its class folders."""
    labels = {label for _, label in photos}
    below: dict[str, set[str]] = {label: set() for label in labels}
    for name, label in photos:
        folder, slash, _ = name[start:].partition("/")[2].partition("/")
        below[label].add(class_name(folder) if slash else "")
    copies = {label for label, inner in below.items() if len(inner) > 1 and inner < labels}
    return [each for each in photos if each[1] not in copies] if copies else photos


def _flat_label(name: str) -> str | None:
    """The label of a file such as `cat.0.jpg`."""
    match = _FLAT_NAME.fullmatch(name)
    return class_name(match["label"]) if match else None


def _wrapper(photos: Sequence[str]) -> str:
    """The path of the folder that holds everything, such as `PetImages/` in Microsoft's archive.

    A folder is a wrapper unless nothing below it has a label: then it is a class, the only one.
    """
    wrapper = ""
    while step := _only_folder(photos, len(wrapper)):
        inside = f"{wrapper}{step}/"
        photos = [name for name in photos if name.startswith(inside)]
        rests = (name[len(inside) :] for name in photos)
        if not any("/" in rest or _flat_label(rest) for rest in rests):
            break
        wrapper = inside
    return wrapper


def _start_in_split(photos: Sequence[str], start: int, top: str, split: Split) -> int:
    """Where the class folders of a split start: some are in a folder repeated in itself."""
    start += len(top) + 1
    while step := _only_folder(photos, start):
        if split_named(step) != split and step.casefold() not in _NEUTRAL | {top.casefold()}:
            break
        photos = [name for name in photos if "/" in name[start:]]
        start += len(step) + 1
    return start


def _only_folder(photos: Sequence[str], start: int) -> str | None:
    """The folder that holds all photos, apart from a few loose files; None if none does."""
    only: str | None = None
    loose: set[str | None] = set()
    for name in photos:
        folder, slash, _ = name[start:].partition("/")
        if not slash:
            loose.add(_flat_label(folder))
        elif only is None:
            only = folder
        elif folder != only:
            return None
    return only if len(loose - {None}) < 2 else None
