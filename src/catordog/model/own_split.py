"""Recognise a folder that is one split of a dataset, whose photos a model may be trained on."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from catordog.errors import CatordogError
from catordog.files import expanded
from catordog.model.checkpoint import run_folder
from catordog.photos.layouts import split_named


def check_own_split(data: str, split: str, model: object = None) -> None:
    """Check that a split is not taken out of another one, such as test photos out of `train/`.

    A model file knows the fractions of its splits and not the photos. So the photos that these
    fractions would hold out of a folder `train/` are photos that the model was trained on.

    Args:
        data: as in `open_dataset`.
        split: the split that was asked for; `all` is always right.
        model: the path of the model, if it has one. If the model was trained on this very folder,
            as the settings of its run say, photos of it are held out.

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
    if not beside - {None, own} or _is_of_run(folder, model):
        return
    raise CatordogError(
        f"--data {data} is the {own} split of {folder.parent}, so it has no {split} photos: give "
        f"--data {folder.parent} --split {split}, or --split all for all photos of {folder.name}"
    )


def _is_of_run(folder: Path, model: object) -> bool:
    """Whether the settings beside a model say that it was trained on this folder."""
    if not isinstance(model, str | PathLike) or Path(model).parent.name != "checkpoints":
        return False
    import yaml

    try:
        text = (run_folder(Path(model)) / "config.yaml").read_text("utf-8")
        source = yaml.safe_load(text)["data"]["source"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False
    return isinstance(source, str) and expanded(source).resolve() == folder
