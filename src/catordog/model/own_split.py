"""Recognise a folder that is one split of a dataset, whose photos a model may be trained on."""

from __future__ import annotations

from catordog.errors import CatordogError
from catordog.files import expanded
from catordog.photos.layouts import split_named


def check_own_split(data: str, split: str) -> None:
    """Check that a split is not taken out of another one, such as test photos out of `train/`.

    A model file knows the fractions of its splits and not the photos. So the photos that these
    fractions would hold out of a folder `train/` are photos that the model was trained on.

    Args:
        data: as in `open_dataset`.
        split: the split that was asked for; `all` is always right.

    Raises:
        CatordogError: the folder is another split of the dataset around it.
    """
    folder = expanded(data)
    if split == "all" or not folder.is_dir():
        return
    folder = folder.resolve()
    own = split_named(folder.name)
    if own in {None, split}:
        return
    beside = {split_named(other.name) for other in folder.parent.iterdir() if other.is_dir()}
    if not beside - {None, own}:
        return
    raise CatordogError(
        f"--data {data} is the {own} split of {folder.parent}, so it has no {split} photos: give "
        f"--data {folder.parent} --split {split}, or --split all for all photos of {folder.name}"
    )
