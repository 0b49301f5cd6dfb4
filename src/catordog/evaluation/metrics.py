"""Metrics of accuracy, confidence and calibration: one table, `METRICS`, with a row for each.

The text report, the HTML page, `evaluate --json` and `compare` iterate over the table. To add a
metric, add a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.wilson import wilson
from catordog.evaluation.curves import (
    coverage_at,
    equal_mass_bins,
    equal_width_bins,
    in_bins,
    risk_coverage,
)
from catordog.evaluation.intervals import bootstrap, centred_interval
from catordog.evaluation.predictions import Floats, Labels, Predictions

FEW_PHOTOS = 50
"""Fewer are too few to judge calibration or to trust a bootstrap interval."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    Attributes:
        name: its key in JSON, and its attribute of `Metrics`.
        title: its name in reports.
        format: writes a value for people.
        better: whether a higher or a lower value is better.
        function: computes it from N predictions. It returns either a number (None where the metric
            is undefined), or terms `[N, K]`: the metric is then `Σₖ |meanₙ termsₙₖ|`, and gets a
            bootstrap interval.
        description: what it measures, in one line.
    """

    name: str
    title: str
    format: Callable[[float], str]
    better: Literal["higher", "lower"]
    function: Callable[[Predictions], float | Floats | None]
    description: str

    def best(self, values: list[float | None]) -> list[int]:
        """The indices of the best values; more than one if they tie as printed.

        >>> METRICS[0].best([0.5, 0.9, None])
        [1]
        """
        known = [value for value in values if value is not None]
        if not known:
            return []
        best = self.format(max(known) if self.better == "higher" else min(known))
        return [
            index
            for index, value in enumerate(values)
            if value is not None and self.format(value) == best
        ]


def percent(fraction: float) -> str:
    """A fraction as a percentage with two decimals.

    >>> percent(0.98765)
    '98.77 %'
    """
    return f"{100 * fraction:.2f} %"


def decimals(value: float) -> str:
    """A number in 0…1 with four decimals, or as many as show that it is below 1.

    >>> decimals(0.98765), decimals(0.999987), decimals(1.0)
    ('0.9877', '0.99999', '1.0000')
    """
    digits = 4
    while value < 1 and digits < 15 and float(f"{value:.{digits}f}") == 1:
        digits += 1
    return f"{value:.{digits}f}"


def _accuracy(found: Predictions) -> float:
    return float(found.correct.mean())


def _nll(found: Predictions) -> Floats:
    return found.losses[:, None]


def _brier(found: Predictions) -> Floats:
    terms: Floats = ((found.confidences - found.one_hot) ** 2).sum(axis=1, keepdims=True)
    return terms


def _ece(found: Predictions) -> Floats:
    return ece_terms(found.confidences, found.labels)


def _ece_equal_mass(found: Predictions) -> Floats:
    return in_bins(found.confidence - found.correct, equal_mass_bins(found.confidence))


def _classwise_ece(found: Predictions) -> Floats:
    columns = zip(found.confidences.T, found.one_hot.T, strict=True)
    parts = [in_bins(column - truth, equal_width_bins(column)) for column, truth in columns]
    terms: Floats = np.concatenate(parts, axis=1) / len(parts)
    return terms


def _auroc(found: Predictions) -> float | None:
    """Of the second of two classes; the mean of each class against the rest if there are more."""
    from sklearn.metrics import roc_auc_score

    count = len(found.classes)
    if len(np.unique(found.labels)) < count:
        return None
    if count == 2:
        # By the margin: confidences of exactly 1 would tie where the logits still differ.
        return float(roc_auc_score(found.labels, found.logits[:, 1] - found.logits[:, 0]))
    return float(roc_auc_score(found.labels, found.confidences, multi_class="ovr"))


def _aurc(found: Predictions) -> float:
    return float(risk_coverage(found.confidences, found.labels)[1].mean())


METRICS = (
    Metric(
        "accuracy", "accuracy", percent, "higher", _accuracy,
        "the fraction of photos whose predicted class is the label",
    ),
    Metric(
        "nll", "loss (NLL)", "{:.4f}".format, "lower", _nll,
        "mean negative log-likelihood of the label, in nats: what training minimises",
    ),
    Metric(
        "brier", "Brier score", "{:.4f}".format, "lower", _brier,
        "mean squared error of the confidences, summed over classes, 0 to 2 (Brier 1950)",
    ),
    Metric(
        "ece", "ECE", percent, "lower", _ece,
        "expected calibration error: the mean gap between confidence and accuracy, over 15 "
        "equally wide bins of the top confidence (Naeini et al. 2015)",
    ),
    Metric(
        "ece_equal_mass", "ECE, equal-mass bins", percent, "lower", _ece_equal_mass,
        "the same over 15 bins of equally many photos (Nixon et al. 2019)",
    ),
    Metric(
        "classwise_ece", "classwise ECE", percent, "lower", _classwise_ece,
        "the ECE of each class's confidence, averaged over classes (Kull et al. 2019)",
    ),
    Metric(
        "auroc", "AUROC", decimals, "higher", _auroc,
        "area under the ROC curve; 0.5 is chance",
    ),
    Metric(
        "aurc", "AURC", "{:.4f}".format, "lower", _aurc,
        "area under the risk-coverage curve (Geifman et al. 2019); 0 is perfect",
    ),
)  # fmt: skip
"""All metrics, in the order in which reports list them."""


@dataclass(frozen=True)
class Metrics:
    """Metrics over N photos; fractions, not percent.

    Each metric of `METRICS` is an attribute too: `metrics.ece` is `metrics.values["ece"]`.

    Attributes:
        n: the number of photos.
        values: by the name of the metric; None where it is undefined, as AUROC is where a class
            has no photo.
        accuracy_ci95: Wilson's 95 % interval of the accuracy.
        ci95: 95 % bootstrap intervals of the other metrics that are means over photos or bins.
        coverage_at: for each target accuracy, the largest fraction of photos, taken from the most
            confident on, that reaches it.
        confusion: counts of photos by true class, then by predicted class.
    """

    n: int
    values: dict[str, float | None]
    accuracy_ci95: tuple[float, float]
    ci95: dict[str, tuple[float, float]]
    coverage_at: dict[str, float]
    confusion: dict[str, dict[str, int]]

    def __getattr__(self, name: str) -> Any:
        if name == "values" or name not in self.values:  # "values" is missing while unpickling
            raise AttributeError(f"Metrics has no attribute {name!r}")
        return self.values[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.values]

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a metric; None where it has none."""
        return self.accuracy_ci95 if name == "accuracy" else self.ci95.get(name)

    def recall(self, name: str) -> float | None:
        """The accuracy on the photos of one class, 0…1; None where it has no photo."""
        row = self.confusion[name]
        return row[name] / sum(row.values()) if any(row.values()) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "n": self.n,
            **self.values,
            "accuracy_ci95": self.accuracy_ci95,
            "ci95": self.ci95,
            "coverage_at": self.coverage_at,
            "confusion": self.confusion,
        }


def measure(found: Predictions) -> Metrics:
    """Compute every metric of `METRICS` from N ≥ 1 predictions.

    >>> import numpy as np
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    >>> metrics = measure(Predictions(("cat", "dog"), np.array([0, 1, 1]), logits))
    >>> round(metrics.accuracy, 4), metrics.confusion["dog"]
    (0.6667, {'cat': 1, 'dog': 1})
    """
    from sklearn.metrics import confusion_matrix

    values: dict[str, float | None] = {}
    terms: dict[str, Floats] = {}
    for metric in METRICS:
        value = metric.function(found)
        if isinstance(value, np.ndarray):
            terms[metric.name] = value
            value = _total(value)
        values[metric.name] = value
    n, classes = len(found.labels), found.classes
    counts = confusion_matrix(found.labels, found.predicted, labels=range(len(classes)))
    draws = bootstrap(terms)
    return Metrics(
        n=n,
        values=values,
        accuracy_ci95=wilson(int(found.correct.sum()), n),
        ci95={name: _positive_interval(draws[name], _total(terms[name])) for name in terms},
        coverage_at=coverage_at(found.confidences, found.labels),
        confusion={
            true: dict(zip(classes, row, strict=True))
            for true, row in zip(classes, counts.tolist(), strict=True)
        },
    )


def ece(confidences: Floats, labels: Labels) -> float:
    """The expected calibration error alone, 0…1 (see `METRICS`).

    Args:
        confidences: `[N, C]`.
        labels: `[N]`.
    """
    return _total(ece_terms(confidences, labels))


def ece_terms(confidences: Floats, labels: Labels) -> Floats:
    """The terms of the expected calibration error, `[N, 15]` (see `Metric.function`)."""
    confidence = confidences.max(axis=1)
    correct = confidences.argmax(axis=1) == labels
    return in_bins(confidence - correct, equal_width_bins(confidence))


def _total(terms: Floats) -> float:
    return float(np.abs(terms.mean(axis=0)).sum())


def _positive_interval(draws: npt.NDArray[np.float64], value: float) -> tuple[float, float]:
    low, high = centred_interval(draws, value)
    return max(0.0, low), high
