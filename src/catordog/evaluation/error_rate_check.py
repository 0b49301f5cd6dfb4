"""Check on labelled photos whether conformal prediction meets its error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import prediction_set, quantile
from catordog.confidence.ood import ACCEPT
from catordog.confidence.wilson import wilson


@dataclass(frozen=True, slots=True)
class ErrorRateCheck:
    """How an error rate turned out; all values are fractions of the photos, 0…1.

    The budget covers prediction sets. It does not cover photos that the ood detector calls
    `neither`, whatever their prediction set: by default, one photo in a hundred.

    Attributes:
        error_rate: the error budget: the highest acceptable fraction of misses.
        missed: photos whose verdict rules the right class out: their prediction set lacks it, or
            they are called `neither`.
        missed_ci95: Wilson's 95 % interval of that fraction.
        outside_set: photos whose prediction set lacks the right class; this is what the budget
            covers.
        rejected: photos whose prediction set has it, but which the ood detector calls `neither`.
        answered: photos whose verdict is a class.
        not_sure: photos whose verdict is `not sure`: with several classes in their prediction set.
        neither: photos whose verdict is `neither`: with none, or called so by the ood detector.
    """

    error_rate: float
    missed: float
    missed_ci95: tuple[float, float]
    outside_set: float
    rejected: float
    answered: float
    not_sure: float
    neither: float


def check_error_rate(
    scores: Sequence[float],
    error_rate: float,
    confidences: npt.NDArray[np.float64],
    labels: npt.NDArray[np.integer[Any]],
    ood_score: npt.NDArray[np.float64] | None = None,
    accept: float = ACCEPT,
) -> ErrorRateCheck:
    """Compare an error budget with the errors on photos whose labels are known.

    Args:
        scores: `nonconformity` of the calibration photos.
        error_rate: the error budget, 0…1.
        confidences: of other photos, `[N, C]`.
        labels: of the same photos, `[N]`.
        ood_score: of the same photos, `[N]` (see `OodDetector.scores`); None where the model has no
            detector.
        accept: the true-accept rate, 0…1: photos with a higher `ood_score` are called `neither`.
    """
    sets = prediction_set(confidences, quantile(scores, error_rate))
    outside = ~sets[np.arange(len(labels)), labels]
    unlike = np.zeros(len(labels), bool) if ood_score is None else ood_score > accept
    missed = int((outside | unlike).sum())
    sizes = np.where(unlike, 0, sets.sum(axis=1))
    return ErrorRateCheck(
        error_rate=error_rate,
        missed=missed / len(labels),
        missed_ci95=wilson(missed, len(labels)),
        outside_set=float(outside.mean()),
        rejected=float((unlike & ~outside).mean()),
        answered=float((sizes == 1).mean()),
        not_sure=float((sizes > 1).mean()),
        neither=float((sizes == 0).mean()),
    )
