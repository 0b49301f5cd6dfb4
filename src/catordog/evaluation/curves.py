"""Curves over labelled photos: reliability diagram, risk and coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catordog.confidence.wilson import wilson
from catordog.evaluation.predictions import Floats, Labels

BINS = 15
COVERAGE_TARGETS = (0.95, 0.99, 0.999)
"""Accuracies for which reports state the coverage."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Photos of similar confidence.

    Attributes:
        n: how many.
        confidence: their mean confidence, 0…1.
        accuracy: the fraction of them that is right, 0…1.
        ci95: Wilson's 95 % interval of the accuracy.
    """

    n: int
    confidence: float
    accuracy: float
    ci95: tuple[float, float]


def reliability(confidences: Floats, labels: Labels) -> list[Bin]:
    """The equally wide bins of a reliability diagram, without the empty ones.

    Args:
        confidences: `[N, C]`.
        labels: `[N]`.
    """
    confidence = confidences.max(axis=1)
    correct, bins = confidences.argmax(axis=1) == labels, equal_width_bins(confidence)
    found = []
    for number in np.unique(bins):
        inside = bins == number
        n, right = int(inside.sum()), int(correct[inside].sum())
        found.append(Bin(n, float(confidence[inside].mean()), right / n, wilson(right, n)))
    return found


def equal_width_bins(confidence: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each confidence, 0…bins − 1: each is 1/bins wide and includes its upper end."""
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(edges, confidence, side="left")


def equal_mass_bins(confidence: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each confidence, 0…bins − 1, by rank: all hold equally many photos."""
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    return ranks * bins // max(1, len(confidence))


def in_bins(values: Floats, bins: npt.NDArray[np.int64], count: int = BINS) -> Floats:
    """Each photo's value in the column of its bin, and 0 in the others: `[N, count]`."""
    columns = np.zeros((len(values), count))
    columns[np.arange(len(values)), bins] = values
    return columns


def risk_coverage(confidences: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """The error rate among the most confident photos (Geifman and El-Yaniv 2017).

    Photos of equal confidence share the error rate of all that are at least as confident.

    Args:
        confidences: `[N, C]`.
        labels: `[N]`.

    Returns:
        the coverage `[N]`, rising to 1, and the error rate at each coverage, `[N]`.
    """
    ranked, correct = _most_confident_first(confidences, labels)
    counts = np.arange(1, len(correct) + 1)
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of those of equal confidence
    risk: Floats = (np.cumsum(~correct) / counts)[last]
    return counts / len(correct), risk


def coverage_at(confidences: Floats, labels: Labels) -> dict[str, float]:
    """The largest fraction of photos that can be answered at each of `COVERAGE_TARGETS`.

    Args:
        confidences: `[N, C]`.
        labels: `[N]`.
    """
    ranked, correct = _most_confident_first(confidences, labels)
    accuracy = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    # A threshold accepts all photos of equal confidence or none of them.
    ends = np.append(ranked[1:] != ranked[:-1], True)
    fractions = {}
    for target in COVERAGE_TARGETS:
        reached = np.flatnonzero(ends & (accuracy >= target))
        fractions[str(target)] = float((reached[-1] + 1) / len(correct)) if len(reached) else 0.0
    return fractions


def _most_confident_first(
    confidences: Floats, labels: Labels
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    confidence = confidences.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], (confidences.argmax(axis=1) == labels)[order]
