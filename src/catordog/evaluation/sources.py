"""Measure a model on further labelled datasets, to see how it does on photos from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.metrics import measure
from catordog.evaluation.ood import accept_rate
from catordog.evaluation.predictions import Predictions
from catordog.model.class_matching import match_classes
from catordog.model.classifier import Classifier
from catordog.model.first_stage import Output
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.photo import Photo
from catordog.photos.photo_dataset import PhotoDataset
from catordog.photos.splits import Split
from catordog.terminal import progress


@dataclass(frozen=True, slots=True)
class SourceResult:
    """How a model does on all photos of one further dataset; fractions, not percent.

    Attributes:
        source: the dataset, as the user named it.
        n: how many of its photos could be read.
        accuracy, accuracy_ci95, nll, ece: see `Metrics`.
        true_accept: the fraction of its photos that is not called `neither`, 0…1; None where the
            model has no ood detector.
        true_accept_ci95: Wilson's 95 % interval of that fraction; None as above.
        failures: one error for each photo that could not be read.
    """

    source: str
    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    nll: float
    ece: float
    true_accept: float | None = None
    true_accept_ci95: tuple[float, float] | None = None
    failures: tuple[PhotoError, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "source": self.source,
            "n": self.n,
            "unreadable": len(self.failures),
            "accuracy": self.accuracy,
            "accuracy_ci95": self.accuracy_ci95,
            "nll": self.nll,
            "ece": self.ece,
            "true_accept": self.true_accept,
            "true_accept_ci95": self.true_accept_ci95,
        }


@dataclass(frozen=True, slots=True)
class Source:
    """A labelled dataset, opened, whose classes a model knows.

    Attributes:
        name: as the user named it.
        dataset: its photos.
        indices: for each of its classes, the index among the model's classes.
    """

    name: str
    dataset: PhotoDataset
    indices: Sequence[int]


def open_source(
    classifier: Classifier,
    data: str,
    rules: DecodeRules,
    exclude: str | None = None,
    decisions: str | None = None,
) -> Source:
    """Open a dataset for a model.

    Raises:
        CatordogError: the dataset can't be read, or the model lacks one of its classes.
    """
    dataset = open_dataset(data, rules=rules, exclude=exclude, decisions=decisions)
    return Source(data, dataset, match_classes(dataset.classes, classifier.classes, data))


def measure_source(classifier: Classifier, source: Source, accept: float) -> SourceResult:
    """Measure a model on all photos of a dataset.

    Args:
        classifier: the model.
        source: the dataset.
        accept: the true-accept rate, 0…1: photos with a higher ood score are called `neither`.

    Raises:
        CatordogError: none of the photos can be read.
    """
    photos, outputs, failures = predict_split(classifier, source.dataset, "all")
    labels = [source.indices[photo.label] for photo in photos if photo.label is not None]
    logits = np.stack([output.logits for output in outputs])
    metrics = measure(
        Predictions(classifier.classes, np.array(labels), logits, classifier.model.temperature)
    )
    true_accept, interval = None, None
    if classifier.model.ood is not None:
        scores = np.array([output.ood_score for output in outputs], dtype=np.float64)
        true_accept, interval = accept_rate(scores, accept)
    return SourceResult(
        source=source.name,
        n=metrics.n,
        accuracy=metrics.accuracy,
        accuracy_ci95=metrics.accuracy_ci95,
        nll=metrics.nll,
        ece=metrics.ece,
        true_accept=true_accept,
        true_accept_ci95=interval,
        failures=tuple(failures),
    )


def predict_split(
    classifier: Classifier, dataset: PhotoDataset, split: Split | Literal["all"]
) -> tuple[list[Photo], list[Output], list[PhotoError]]:
    """The readable photos of a split, their outputs, and the errors of the others.

    Raises:
        CatordogError: the dataset has no such split, or none of the photos can be read.
    """
    chosen = dataset.split(split, classifier.model.split_fractions, excluded=True)
    photos: list[Photo] = []
    outputs: list[Output] = []
    failures = list(dataset.unopened)
    with progress(f"evaluating {split} photos", len(chosen)) as done:
        stream = classifier.stream(chosen, Photo.image)
        for count, (photo, result) in enumerate(stream, 1):
            if isinstance(result, PhotoError):
                failures.append(result)
            else:
                photos.append(photo)
                outputs.append(result)
            done(count)
    if not photos:
        raise CatordogError(
            f"none of the {len(chosen):,} photos of {dataset.name} could be read: {failures[0]}"
        )
    return photos, outputs, failures
