"""Ask a person for the labels that teach the most, a dozen at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError
from catordog.model.active_learning import Round, learn_round, propose
from catordog.model.backbone import Backbone, rows_of
from catordog.model.feature_cache import features_of
from catordog.photos.decode import DecodeRules
from catordog.photos.near_copies import Hashes, copy_groups
from catordog.photos.photo import Photo
from catordog.photos.photo_dataset import PhotoDataset

LEAST_PHOTOS = 3
"""Of a class: cross-validation learns from two of them and tests the third."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A round of asking.

    Attributes:
        round: what the labels so far have taught.
        proposed: indices of the unlabelled photos to label next, each with that of the class that
            it seems to show; none if all are decided.
    """

    round: Round
    proposed: list[tuple[int, int]]


class Asking:
    """Proposes unlabelled photos, and learns from their labels.

    Args:
        dataset: labelled photos to start with.
        photos: unlabelled ones; those of them that can't be read are never proposed.
        rules: that the photos are decoded by.

    Raises:
        CatordogError: a class has too few readable photos, or no unlabelled photo is readable.
    """

    def __init__(self, dataset: PhotoDataset, photos: Sequence[Photo], rules: DecodeRules) -> None:
        backbone = Backbone.read()
        own, found, _ = features_of(dataset.photos, backbone, rules)
        labels = np.array([dataset.photos.labels[index] for index in found], np.int64)
        for label, name in enumerate(dataset.classes):
            if (count := int((labels == label).sum())) < LEAST_PHOTOS:
                raise CatordogError(
                    f"--data: {dataset.name} has {count} readable photos of {name}: give at least "
                    f"{LEAST_PHOTOS} of each class to start with"
                )
        other, self._indices, _ = features_of(photos, backbone, rules)
        if not self._indices:
            raise CatordogError("--unlabelled: none of its photos could be read")
        self._records = np.concatenate([own, other])[["hash", "mirrored"]]
        self._features = np.concatenate([own["features"], other["features"]]).astype(np.float32)
        self._concepts = backbone.concepts(self._features)
        self._rows = rows_of(self._features, self._concepts)
        self._labels = labels.tolist()
        self._row_of = {index: len(labels) + row for row, index in enumerate(self._indices)}
        self._classes = len(dataset.classes)
        self._predicted: npt.NDArray[np.intp] | None = None

    def next(self, decided: Mapping[int, int | None]) -> Asked:
        """Learn from the labels so far, and propose the next dozen.

        Args:
            decided: by the index of the unlabelled photo, its label; None if it was skipped.
        """
        labelled, labels = list(range(len(self._labels))), list(self._labels)
        known = list(labelled)
        for index, label in decided.items():
            if (row := self._row_of.get(index)) is not None:
                known.append(row)
                if label is not None:
                    labelled.append(row)
                    labels.append(label)
        groups = np.zeros(len(self._features), np.int64)  # only those of labelled photos count
        records = self._records[labelled]
        groups[labelled] = copy_groups(Hashes(records["hash"], records["mirrored"]))
        taught, logits = learn_round(
            self._features,
            self._concepts,
            labelled,
            labels,
            self._classes,
            self._predicted,
            groups=groups,
        )
        self._predicted = logits.argmax(axis=1)
        start = len(self._labels)
        proposed = propose(self._rows, known, logits, seed=len(known))
        return Asked(
            taught, [(self._indices[row - start], int(self._predicted[row])) for row in proposed]
        )
