"""Say before a run that its photos are too few for a network that starts from random weights."""

from __future__ import annotations

import shlex

from catordog.escaping import printable
from catordog.model.networks import initial_weights
from catordog.training.datamodule import PhotosDataModule
from catordog.training.module import ClassifierModule
from catordog.training.transfer import Transfer

FEW_PHOTOS = 1000
"""Photos, of all classes and splits, below which pretrained features are far more accurate."""


def advice_on_few_photos(module: ClassifierModule, data: PhotosDataModule) -> str | None:
    """One line on what to do instead; None if the photos suffice, or weights are pretrained.

    Networks by class path may bring weights of their own, and pictures that the program draws are
    as many as one asks for: nothing is said about either.

    Args:
        module: the network to be trained.
        data: its photos.
    """
    network, n = module.hparams["network"], len(data.dataset.photos)
    pretrained = initial_weights(network, module.hparams["weights"]) or "." in network
    if n >= FEW_PHOTOS or pretrained or module.transfer != Transfer() or data.dataset.distinct:
        return None
    source = printable(shlex.quote(data.source))
    return (
        f"{n:,} photos are few for a network from scratch, which needs thousands: "
        f"'catordog teach {source}' takes seconds and is far more accurate; so is "
        f"'catordog train --config finetune.yaml --data {source}'"
    )
