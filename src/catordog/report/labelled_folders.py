"""Copy or link the photos of a dataset into a new folder tree, a folder per class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.outputs import check_outside
from catordog.photos.listing import is_photo_name
from catordog.photos.photo import NO_LABEL, Photo
from catordog.photos.photo_dataset import PhotoDataset
from catordog.report.sorted_folders import SortedFolders
from catordog.terminal import info, progress


@dataclass(frozen=True, slots=True)
class LabelledFolders:
    """What was put into the folders.

    Attributes:
        counts: the number of photos by class, of all classes.
        same: photos that were there already: the same file name and the same bytes.
        unlabelled: photos without a label, which belong into no folder.
        failures: an error for each photo that can't be read, or can't be written for a reason of
            its own.
        folders: the name of each class's folder.
    """

    counts: dict[str, int]
    same: int = 0
    unlabelled: int = 0
    failures: list[PhotoError] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)


def check_new_folder(out: Path, data: str) -> None:
    """Refuse a folder that has files already, or that is within the data.

    Raises:
        CatordogError: it is not new, or `--data` would find the photos again.
    """
    shown = printable(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CatordogError(f"--out {shown} exists and is not empty: give a new folder")
    check_outside("--out", out, data, f"--data {data}")


def write_labelled_folders(
    dataset: PhotoDataset, out: Path, *, link: bool = False
) -> LabelledFolders:
    """Put every photo into the folder of its class, unless the user has excluded it.

    A dataset's own splits become folders above the classes. Photos of the same name get numbers,
    and so do classes whose folders would have the same name. If it stops before the end, a line
    says so.

    Args:
        dataset: with the decisions applied.
        out: a new folder.
        link: make hard links (symbolic links across disks) instead of copies; photos in archives
            are copied.

    Raises:
        CatordogError: the folder can't be written.
    """
    try:
        return _write(dataset, out, link=link)
    except BaseException:
        if out.is_dir() and any(out.iterdir()):
            info(f"{printable(out)} is incomplete: remove it before you apply again")
        raise


def _write(dataset: PhotoDataset, out: Path, *, link: bool) -> LabelledFolders:
    split = any(dataset.photos.own_splits)
    folders: dict[Path, SortedFolders] = {}
    names = SortedFolders(out, dataset.classes).names
    written: set[Path] = set()
    counts = Counter(dict.fromkeys(dataset.classes, 0))
    same = unlabelled = 0
    failures = list(dataset.unopened)
    with progress("linking photos" if link else "copying photos", len(dataset.photos)) as done:
        for number, photo in enumerate(dataset.photos, 1):
            done(number)
            if photo.name in dataset.excluded:
                continue
            if photo.label is None or photo.label == NO_LABEL:
                unlabelled += 1
                continue
            root = out / (photo.own_split or "train") if split else out
            if root not in folders:
                folders[root] = SortedFolders(root, dataset.classes, link=link)
            label = dataset.classes[photo.label]
            try:
                target = folders[root].put(photo, label, _missing_suffix(photo))
            except PhotoError as error:
                failures.append(error)
                continue
            same += target in written
            counts[label] += target not in written
            written.add(target)
    return LabelledFolders(dict(counts), same, unlabelled, failures, names)


def _missing_suffix(photo: Photo) -> str:
    """What a name that a table lists may lack: in the new folder, suffixes tell photos from others.

    Raises:
        PhotoError: it can't be read.
    """
    if is_photo_name(photo.name):
        return ""
    form = photo.examine(near=64)[0].format
    return {"JPEG": ".jpg", "MPO": ".jpg", "HEIF": ".heic"}.get(form, f".{form.lower()}")
