"""The photos that a model is taught with: a folder per class, or one folder of a single class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.files import expanded
from catordog.photos.class_names import check_class_names
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.layouts import class_name
from catordog.photos.listing import is_litter
from catordog.photos.photo import Photo
from catordog.photos.photo_dataset import PhotoDataset
from catordog.terminal import info


@dataclass(frozen=True, slots=True)
class TeachingPhotos:
    """Labelled photos.

    Attributes:
        classes: names, one or more.
        photos: each with an index into them as its label.
        name: as the user gave it.
        unopened: the errors of folders and archives that can't be opened, and are of no class.
    """

    classes: tuple[str, ...]
    photos: Sequence[Photo]
    name: str = ""
    unopened: tuple[PhotoError, ...] = ()


def find_photos(
    data: str | PathLike[str],
    rules: DecodeRules,
    exclude: str | None = None,
    decisions: str | None = None,
) -> TeachingPhotos:
    """Find the photos to teach with.

    If the data have a test split of their own, it is left out, for an evaluation.

    Args:
        data: as `open_dataset` takes it. A folder with photos and no classes is a class.
        rules: which photos are decoded.
        exclude: a CSV file with a column `path`: photos to leave out.
        decisions: a file of decisions: labels to replace, also by new ones, photos to leave out.

    Raises:
        CatordogError: there are no such photos, a class has none, or its name can't be used.
    """
    name = str(data)
    dataset = open_dataset(
        name, rules=rules, exclude=exclude, decisions=decisions, labels="optional", new_classes=True
    )
    photos = [photo for photo in dataset.photos if photo.name not in dataset.excluded]
    own_name = _own_name(expanded(name))
    own_labels = {dataset.own_label(index) for index in range(len(dataset.photos))}
    if own_name and len(own_labels) < 2 and not any("/" in x.name for x in photos):
        check_class_names(f"--data {name}", [own_name])
        named = [_decided(photo, dataset) or own_name for photo in photos]
        classes = tuple(sorted(set(named)))
        labels = map(classes.index, named)
        chosen = [replace(x, label=label) for x, label in zip(photos, labels, strict=True)]
        return TeachingPhotos(classes, chosen, name, dataset.unopened)
    if not dataset.classes:
        raise CatordogError(
            f"{name}: {len(photos):,} photos but no classes: put the photos of each class into a "
            "folder of its own"
        )
    held_out = [photo for photo in photos if photo.own_split == "test"]
    if held_out and len(held_out) < len(photos):
        photos = [photo for photo in photos if photo.own_split != "test"]
        info(f"{name}: its {len(held_out):,} test photos are left out, for an evaluation")
    _check_classes(name, dataset, photos)
    return TeachingPhotos(dataset.classes, photos, name, dataset.unopened)


def _decided(photo: Photo, dataset: PhotoDataset) -> str | None:
    """The class that the user has given a photo; None if the user has not relabelled it."""
    if photo.label is None or photo.name not in dataset.relabelled:
        return None
    return dataset.classes[photo.label]


def _own_name(path: Path) -> str | None:
    """The class that a folder stands for."""
    return class_name(path.resolve().name) if path.is_dir() else None


def _is_empty(folder: Path) -> bool:
    """Whether a folder has nothing in it; not one that can't be opened, which is reported."""
    try:
        return all(is_litter(inner.name) for inner in folder.iterdir())
    except OSError:
        return False


def _check_classes(name: str, dataset: PhotoDataset, photos: Sequence[Photo]) -> None:
    """Refuse classes without photos: those of which all are excluded, and empty folders."""
    labels = {photo.label for photo in photos}
    empty = [own for label, own in enumerate(dataset.classes) if label not in labels]
    folder = expanded(name)
    if folder.is_dir():
        folders = (x for x in sorted(folder.iterdir()) if x.is_dir() and not is_litter(x.name))
        empty += [x.name for x in folders if _is_empty(x)]
    if empty:
        raise CatordogError(
            f"{name}: no photo of {' and '.join(map(repr, map(printable, empty)))}: add photos, or "
            "remove the folder"
        )
