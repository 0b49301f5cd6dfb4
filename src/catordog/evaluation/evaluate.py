"""Evaluate a model on photos that it was not trained on: `catordog evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import ACCEPT
from catordog.confidence.verdict import check_rules
from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.alternatives import Alternative, alternatives
from catordog.evaluation.error_rate_check import ErrorRateCheck, check_error_rate
from catordog.evaluation.metrics import Metrics, measure
from catordog.evaluation.ood import OodResult, accept_rate, measure_ood, ood_unavailable
from catordog.evaluation.predictions import Floats, Predictions
from catordog.evaluation.robustness import Robustness, robustness
from catordog.evaluation.sources import (
    Source,
    SourceResult,
    measure_source,
    open_source,
    predict_split,
)
from catordog.model.classifier import Classifier, load
from catordog.model.first_stage import Output
from catordog.model.own_split import check_own_split
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.photo import Photo
from catordog.photos.splits import Split

ERROR_RATES = (0.01, 0.05)
"""Error budgets that are checked by default."""

Model = str | PathLike[str] | Classifier | None
"""A model file's path, `bundled` or None for the bundled model, or a loaded model."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Confidence compared with the true probability, which synthetic pictures know.

    Attributes:
        probability: the true probability of the second class, `[N]`.
        confidence: the model's confidence in it, `[N]`.
        error: their mean absolute difference, 0…1.
    """

    probability: Floats
    confidence: Floats
    error: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation(Predictions):
    """A model's predictions for the photos of a dataset, and how good they are.

    Attributes:
        model, data, split: as the user named them.
        photos: the N photos that were readable.
        threshold: below this confidence the model's verdict is `not sure`, 0…1.
        ood_score: of each photo, `[N]` (see `OodDetector`); None where the model has no detector.
        accept: the true-accept rate that was asked for, 0…1: photos with a higher ood score are
            called `neither`.
        failures: one error for each unreadable photo.
        error_rate_checks: how often prediction sets miss the right class; empty where the model
            is not calibrated.
        excluded: how many photos the user has excluded.
        accuracy_with_excluded: the accuracy with them; None if there are none.
        relabelled: how many of the photos the user has relabelled.
        accuracy_as_labelled: the accuracy with the excluded photos, and with the dataset's own
            labels; None if no photo was relabelled.
        ood: how well the model rejects photos of no class; None if it was not measured.
        also: how it does on further datasets, in the order that was asked for.
        robustness: how it does on corrupted photos; None if it was not measured.
    """

    model: str
    data: str
    split: str
    photos: list[Photo]
    threshold: float
    ood_score: Floats | None
    failures: list[PhotoError]
    accept: float = ACCEPT
    error_rate_checks: list[ErrorRateCheck] = field(default_factory=list)
    excluded: int = 0
    accuracy_with_excluded: float | None = None
    relabelled: int = 0
    accuracy_as_labelled: float | None = None
    ood: OodResult | None = None
    also: tuple[SourceResult, ...] = ()
    robustness: Robustness | None = None

    @cached_property
    def metrics(self) -> Metrics:
        """All metrics, with the model's temperature."""
        return measure(self)

    @cached_property
    def uncalibrated_metrics(self) -> Metrics:
        """All metrics at a temperature of 1."""
        return self.metrics if self.temperature == 1 else measure(self.uncalibrated)

    @cached_property
    def alternatives(self) -> list[Alternative]:
        """More flexible calibrations, and whether they would do better."""
        return alternatives(self.logits, self.labels)

    @cached_property
    def true_accept(self) -> tuple[float, tuple[float, float]] | None:
        """The fraction of photos that is not called `neither`, and its 95 % interval (Wilson).

        None where the model has no ood detector.
        """
        return None if self.ood_score is None else accept_rate(self.ood_score, self.accept)

    @cached_property
    def truth(self) -> Truth | None:
        """The true probabilities of the photos; None where they are unknown."""
        known = [photo.probability for photo in self.photos]
        if len(self.classes) != 2 or any(probability is None for probability in known):
            return None
        probability = np.array(known, dtype=np.float64)
        confidence = self.confidences[:, 1]
        return Truth(probability, confidence, float(np.abs(probability - confidence).mean()))

    def to_dict(self) -> dict[str, Any]:
        """The content of `catordog evaluate --json`; fractions, not percent."""
        before = self.uncalibrated_metrics.to_dict()
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "unreadable": len(self.failures),
            "excluded": self.excluded,
            "accuracy_with_excluded": self.accuracy_with_excluded,
            "relabelled": self.relabelled,
            "accuracy_as_labelled": self.accuracy_as_labelled,
            "temperature": self.temperature,
            **self.metrics.to_dict(),
            "uncalibrated": {name: before[name] for name in (*self.metrics.ci95, "ci95")},
            "alternatives": [
                {**asdict(other), "better": other.better} for other in self.alternatives
            ],
            "promises": [asdict(check) for check in self.error_rate_checks],
            "truth": self.truth and self.truth.error,
            "damage": self.robustness and self.robustness.to_dict(),
            "accept": self.accept,
            "neither": self.ood and self.ood.to_dict(),
            "also": [source.to_dict() for source in self.also],
        }


def evaluate(
    model: Model,
    data: str,
    split: Split | Literal["all"] = "test",
    *,
    exclude: str | None = None,
    decisions: str | None = None,
    error_rates: Sequence[float] | None = None,
    accept: float = ACCEPT,
    ood_photos: Sequence[str] = (),
    also: Sequence[str] = (),
    corruptions: bool = False,
    rules: DecodeRules = DEFAULT_RULES,
    name: str | None = None,
) -> Evaluation:
    """Predict every photo of a split and compare the predictions with the labels.

    The dataset is split by the fractions that the model was trained with, so that `test` means
    photos that were not used to make it.

    Args:
        model: a path, `bundled` or None for the bundled model, or a `Classifier`.
        data: as in `open_dataset`.
        split: which photos.
        exclude: a CSV file with a column `path`: photos to leave out.
        decisions: a file of decisions: labels to replace, photos to leave out.
        error_rates: error budgets to check, each in 0…1 (see `confidence.conformal`); None: 0.01
            and 0.05 if the model is calibrated.
        accept: the true-accept rate at which photos are called `neither`, 0…1 (see `judge`).
        ood_photos: files, folders or archives of photos that show no class: measure how often the
            model accepts them, of each path and in total.
        also: further labelled datasets, as `data`: measure the model on all photos of each.
        corruptions: also measure how the model does on corrupted photos.
        rules: which photos are decoded.
        name: what reports call the model; None: its path.

    Raises:
        CatordogError: the data has no such split, other classes, or no readable photo; or it is a
            folder `train/` beside `test/`, of which no photo is held out; or the model can't do
            what was asked.

    >>> result = evaluate("bundled", "drawn:n=20,seed=1", "all")
    >>> result.metrics.n, result.confidences.shape
    (20, (20, 2))
    """
    classifier = model if isinstance(model, Classifier) else load(model)
    check_rules(None, None, accept)
    for error_rate in error_rates or ():
        classifier.quantile_for(error_rate)  # refuse it before any photo is read
    if len(classifier.classes) == 1:
        raise CatordogError(
            f"this model has one class, {classifier.classes[0]!r}, so it has no accuracy: see its "
            "verdicts with 'catordog predict'"
        )
    if ood_photos and classifier.model.ood is None:
        raise ood_unavailable()
    check_own_split(data, split, name if isinstance(model, Classifier) else model)
    source = open_source(classifier, data, rules, exclude, decisions)
    others = [open_source(classifier, name, rules) for name in also]
    photos, outputs, failures = predict_split(classifier, source.dataset, split)
    labels = np.array(
        [source.indices[p.label] for p in photos if p.label is not None], dtype=np.int64
    )
    logits = np.stack([output.logits for output in outputs])
    excluded = np.array([photo.name in source.dataset.excluded for photo in photos])
    if excluded.all():
        given = {"--exclude": exclude, "--decisions": decisions}
        options = " and ".join(f"{option} {file}" for option, file in given.items() if file)
        raise CatordogError(f"{options}: no {split} photo of {data} is left")
    own_labels = _own_labels(source, photos, labels)
    relabelled = (own_labels != labels) & ~excluded
    result = Evaluation(
        model=name or model_name(model),
        data=data,
        split=split,
        classes=classifier.classes,
        photos=[photo for photo, out in zip(photos, excluded, strict=True) if not out],
        labels=labels[~excluded],
        logits=logits[~excluded],
        temperature=classifier.model.temperature,
        threshold=classifier.model.threshold,
        ood_score=_ood_scores(classifier, outputs, ~excluded),
        accept=accept,
        failures=failures,
        excluded=int(excluded.sum()),
        accuracy_with_excluded=(
            float((logits.argmax(axis=1) == labels).mean()) if excluded.any() else None
        ),
        relabelled=int(relabelled.sum()),
        accuracy_as_labelled=(
            float((logits.argmax(axis=1) == own_labels).mean()) if relabelled.any() else None
        ),
    )
    ood = None
    if ood_photos and result.ood_score is not None:
        ood = measure_ood(classifier, result.ood_score, ood_photos, accept=accept, rules=rules)
    robust = robustness(classifier, result.photos, result) if corruptions else None
    return replace(
        result,
        error_rate_checks=_checks(result, classifier, error_rates),
        ood=ood,
        also=tuple(measure_source(classifier, other, accept) for other in others),
        robustness=robust,
    )


def _own_labels(
    source: Source, photos: Sequence[Photo], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The labels that the dataset itself gives photos, `[N]`."""
    own = labels.copy()
    for row, photo in enumerate(photos):
        label = source.dataset.relabelled.get(photo.name)
        if label is not None:
            own[row] = source.indices[label]
    return own


def _ood_scores(
    classifier: Classifier, outputs: Sequence[Output], chosen: npt.NDArray[np.bool_]
) -> Floats | None:
    if classifier.model.ood is None:
        return None
    return np.array([output.ood_score for output in outputs], dtype=np.float64)[chosen]


def _checks(
    result: Evaluation, classifier: Classifier, error_rates: Sequence[float] | None
) -> list[ErrorRateCheck]:
    scores = classifier.model.nonconformity
    return [
        check_error_rate(
            scores, rate, result.confidences, result.labels, result.ood_score, result.accept
        )
        for rate in (ERROR_RATES if error_rates is None else error_rates)
        if scores
    ]


def model_name(model: Model) -> str:
    """What reports call a model that was given no name."""
    if isinstance(model, Classifier):
        return f"a {model.model.network} model"
    return "bundled" if model is None else str(model)
