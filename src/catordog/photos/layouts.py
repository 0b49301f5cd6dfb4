"""Labels and splits from the names of files and folders."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from catordog.photos.splits import Split

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "test1": "test",  # test1: Kaggle's, without labels
}  # fmt: skip
"""Names of folders that hold a split, in any case."""

_FLAT_NAME = re.compile(r"(?P<label>[^\W\d][^.]*)\.\d+\.\w+", re.UNICODE)


@dataclass(frozen=True, slots=True)
class Labels:
    """The labelled photos of a layout, as three lists of the same length N.

    Attributes:
        names: relative to the dataset's root.
        labels: class names, in lower case.
        splits: the split that the layout assigns to each photo; None where it assigns none.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[Split | None] = field(default_factory=list)

    def add(self, name: str, label: str, split: Split | None) -> None:
        """Append one photo."""
        self.names.append(name)
        self.labels.append(sys.intern(label))
        self.splits.append(split)


def labels_from_names(photos: Sequence[str]) -> Labels:
    """Labels and splits from the names of folders, or of files, below any wrapper folders.

    Args:
        photos: relative POSIX names, at least one.

    >>> found = labels_from_names(["pets/Cat/1.jpg", "pets/Cat/2.jpg", "pets/dog/1.jpg"])
    >>> found.labels, found.splits
    (['cat', 'cat', 'dog'], [None, None, None])
    >>> found = labels_from_names(["train/cat.0.jpg", "train/dog.0.jpg", "val/cat.1.jpg"])
    >>> found.labels, found.splits
    (['cat', 'dog', 'cat'], ['train', 'train', 'val'])
    """
    start = _wrapper_length(photos)
    tops = {name[start:].partition("/")[0].casefold() for name in photos if "/" in name[start:]}
    own_splits = {SPLIT_FOLDERS[top] for top in tops if top in SPLIT_FOLDERS}
    found = Labels()
    # A single train/ folder, as in Kaggle's archive, defines no test split.
    if len(own_splits) > 1 or (own_splits and len(tops) == len(own_splits)):
        for name in photos:
            top, slash, rest = name[start:].partition("/")
            split = SPLIT_FOLDERS.get(top.casefold()) if slash else None
            if split and (label := _label(rest)):
                found.add(name, label, split)
        if len(set(found.splits)) < 2:
            found.splits[:] = [None] * len(found.splits)
        return found
    for name in photos:
        if label := _label(name[start:]):
            found.add(name, label, None)
    return found


def _label(name: str) -> str | None:
    """The label of one photo: its outermost folder, or the first part of a flat file's name."""
    folder, slash, _ = name.partition("/")
    if slash:
        return folder.casefold()
    match = _FLAT_NAME.fullmatch(name)
    return match["label"].casefold() if match else None


def _wrapper_length(photos: Sequence[str]) -> int:
    """The length of the folders that hold everything, such as PetImages/ in Microsoft's archive.

    A folder is a wrapper unless nothing below it has a label: then it is a class, the only one.
    """
    start = 0
    while True:
        folder, slash, _ = photos[0][start:].partition("/")
        inside = start + len(folder) + 1
        wrapper = photos[0][:inside]
        if not slash or not all(name.startswith(wrapper) for name in photos):
            return start
        if not any(_label(name[inside:]) for name in photos):
            return start
        start = inside
