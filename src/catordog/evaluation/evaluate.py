"""`catordog evaluate`: how good a model is on photos that it has not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.alternatives import Alternative, alternatives
from catordog.evaluation.metrics import Metrics, measure
from catordog.evaluation.promises import ErrorRateCheck, check_error_rate
from catordog.model.class_matching import match_classes
from catordog.model.classifier import Classifier, Output
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.photo import Photo
from catordog.photos.splits import Split
from catordog.terminal import progress

ERROR_RATES = (0.01, 0.05)
"""Promises that are checked where the user names none."""


@dataclass(frozen=True)
class Evaluation:
    """A model's logits on a data set, and what they come to.

    Attributes:
        model, data, split: as the user named them.
        classes: in the order of the logits.
        photos: the N photos that could be read.
        labels: `int64 [N]`, indices into `classes`.
        logits: raw, `float32 [N, C]`.
        ood_score: the share of validation photos that look less strange, `[N]`; None where the
            model doesn't know.
        temperature: of `softmax`.
        metrics: the figures.
        promises: how error rates that the model can promise came out.
        failures: one for each photo that could not be read.
        excluded: how many photos the user has left out.
        accuracy_with_excluded: the accuracy if they were not; None if there are none.
    """

    model: str
    data: str
    split: str
    classes: tuple[str, ...]
    photos: list[Photo]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    ood_score: npt.NDArray[np.float64] | None
    temperature: float
    metrics: Metrics
    failures: list[PhotoError]
    promises: list[ErrorRateCheck] = field(default_factory=list)
    excluded: int = 0
    accuracy_with_excluded: float | None = None

    @cached_property
    def uncalibrated(self) -> Metrics | None:
        """The figures at a temperature of 1; None if that is the model's."""
        return None if self.temperature == 1 else measure(self.logits, self.labels, self.classes)

    @cached_property
    def alternatives(self) -> list[Alternative]:
        """Other calibrations, and whether they would do better."""
        return alternatives(self.logits, self.labels)

    @cached_property
    def confidences(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits, `[N, C]`."""
        return softmax(self.logits, self.temperature)

    def confidences_of(self, place: int) -> npt.NDArray[np.float64]:
        """Softmax of one photo's logits, `[C]`."""
        return softmax(self.logits[place], self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog evaluate --json`; fractions, not percent."""
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "unreadable": len(self.failures),
            "excluded": self.excluded,
            "accuracy_with_excluded": self.accuracy_with_excluded,
            "temperature": self.temperature,
            **self.metrics.to_dict(),
            "uncalibrated": {
                name: value
                for name, value in (self.uncalibrated or self.metrics).to_dict().items()
                if name in self.metrics.ci95 or name == "ci95"
            },
            "alternatives": [
                {**asdict(other), "better": other.better} for other in self.alternatives
            ],
            "promises": [asdict(promise) for promise in self.promises],
        }


def evaluate(
    classifier: Classifier,
    data: str,
    split: Split | Literal["all"] = "test",
    *,
    model: str = "",
    exclude: str | None = None,
    error_rates: Sequence[float] = ERROR_RATES,
    rules: DecodeRules = DEFAULT_RULES,
) -> Evaluation:
    """Run every photo of a split through a model.

    The split is cut with the fractions that the model was trained with, so that "test" means
    photos that took no part in making it.

    Args:
        classifier: the model.
        data: as `open_dataset` takes it.
        split: which photos.
        model: what to call the model.
        exclude: a CSV file with a column `path`: photos to leave out.
        error_rates: promises to check, each in 0…1 (see `confidence.conformal`).
        rules: what is decoded.

    Raises:
        CatordogError: the data has no such split, other classes, or no readable photo.
    """
    dataset = open_dataset(data, rules=rules, exclude=exclude)
    place = match_classes(dataset.classes, classifier.classes, data)
    chosen = dataset.split(split, classifier.model.split_fractions, excluded=True)
    photos: list[Photo] = []
    outputs: list[Output] = []
    failures: list[PhotoError] = []
    with progress(f"evaluating {split} photos", len(chosen)) as done:
        stream = classifier.stream(chosen, classifier.model.preprocess.load)
        for count, (photo, result) in enumerate(stream, 1):
            if isinstance(result, PhotoError):
                failures.append(result)
            else:
                photos.append(photo)
                outputs.append(result)
            done(count)
    if not photos:
        raise CatordogError(
            f"none of the {len(chosen):,} photos of {data} could be read: {failures[0]}"
        )
    labels = np.array([place[p.label] for p in photos if p.label is not None], dtype=np.int64)
    stacked = np.stack([output.logits for output in outputs])
    strange = np.array([output.ood_score for output in outputs], dtype=np.float64)
    out = np.array([photo.name in dataset.excluded for photo in photos])
    if out.all():
        raise CatordogError(f"--exclude {exclude} leaves no {split} photo of {data}")
    temperature = classifier.model.temperature
    kept, truth = stacked[~out], labels[~out]
    scores = classifier.model.nonconformity
    confidences = softmax(kept, temperature)
    return Evaluation(
        model=model,
        data=data,
        split=split,
        classes=classifier.classes,
        photos=[photo for photo, left_out in zip(photos, out, strict=True) if not left_out],
        labels=truth,
        logits=kept,
        ood_score=None if classifier.model.ood is None else strange[~out],
        temperature=temperature,
        metrics=measure(kept, truth, classifier.classes, temperature),
        failures=failures,
        promises=[
            check_error_rate(scores, error_rate, confidences, truth)
            for error_rate in error_rates
            if scores
        ],
        excluded=int(out.sum()),
        accuracy_with_excluded=float((stacked.argmax(1) == labels).mean()) if out.any() else None,
    )


@dataclass(frozen=True, slots=True)
class Truth:
    """Confidence beside the true probability.

    Attributes:
        true: probability of the second class, `[N]`.
        said: the model's confidence in it, `[N]`.
        error: mean absolute difference, 0…1.
    """

    true: npt.NDArray[np.float64]
    said: npt.NDArray[np.float64]
    error: float


def compare_with_truth(result: Evaluation) -> Truth | None:
    """The true probabilities of the photos; None where nobody knows them."""
    known = [photo.probability for photo in result.photos]
    if len(result.classes) != 2 or any(probability is None for probability in known):
        return None
    true = np.array(known, dtype=np.float64)
    said = result.confidences[:, 1]
    return Truth(true, said, float(np.abs(true - said).mean()))
