"""Copy or link the photos of a dataset into a new folder tree, a folder per class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.photos.photo import NO_LABEL
from catordog.photos.photo_dataset import PhotoDataset
from catordog.report.sorted_folders import SortedFolders
from catordog.terminal import progress


@dataclass(frozen=True, slots=True)
class LabelledFolders:
    """What was put into the folders.

    Attributes:
        counts: the number of photos by class, of all classes.
        same: photos that were there already: the same file name and the same bytes.
        unlabelled: photos without a label, which belong into no folder.
        failures: an error for each photo that can't be read.
    """

    counts: dict[str, int]
    same: int = 0
    unlabelled: int = 0
    failures: list[PhotoError] = field(default_factory=list)


def check_new_folder(out: Path, data: str) -> None:
    """Refuse a folder that has files already, or that is within the data.

    Raises:
        CatordogError: it is not new, or `--data` would find the photos again.
    """
    shown = printable(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CatordogError(f"--out {shown} exists and is not empty: give a new folder")
    if Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
        raise CatordogError(f"--out {shown} is within --data {data}: give a folder outside of it")


def write_labelled_folders(
    dataset: PhotoDataset, out: Path, *, link: bool = False
) -> LabelledFolders:
    """Put every photo into the folder of its class, unless the user has excluded it.

    A dataset's own splits become folders above the classes. Photos of the same name get numbers.

    Args:
        dataset: with the decisions applied.
        out: a new folder.
        link: make hard links (symbolic links across disks) instead of copies; photos in archives
            are copied.

    Raises:
        CatordogError: a photo can't be written.
    """
    split = any(dataset.photos.own_splits)
    folders: dict[str, SortedFolders] = {}
    written: set[Path] = set()
    counts = Counter(dict.fromkeys(dataset.classes, 0))
    same = unlabelled = 0
    failures = []
    with progress("linking photos" if link else "copying photos", len(dataset.photos)) as done:
        for number, photo in enumerate(dataset.photos, 1):
            done(number)
            if photo.name in dataset.excluded:
                continue
            if photo.label is None or photo.label == NO_LABEL:
                unlabelled += 1
                continue
            root = out / (photo.own_split or "train") if split else out
            folder = folders.setdefault(str(root), SortedFolders(root, link=link))
            label = dataset.classes[photo.label]
            try:
                target = folder.put(photo, label)
            except PhotoError as error:
                failures.append(error)
                continue
            same += target in written
            counts[label] += target not in written
            written.add(target)
    return LabelledFolders(dict(counts), same, unlabelled, failures)
