"""Check on labelled photos whether conformal prediction meets its error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import prediction_set, quantile
from catordog.evaluation.intervals import wilson


@dataclass(frozen=True, slots=True)
class ErrorRateCheck:
    """How an error rate turned out; all values are fractions of the photos, 0…1.

    Attributes:
        error_rate: the error budget: the highest acceptable fraction of misses.
        missed: photos whose prediction set lacks the right class.
        missed_ci95: Wilson's 95 % interval of that fraction.
        answered: photos with one class in their prediction set.
        not_sure: photos with several.
        neither: photos with none.
    """

    error_rate: float
    missed: float
    missed_ci95: tuple[float, float]
    answered: float
    not_sure: float
    neither: float


def check_error_rate(
    scores: Sequence[float],
    error_rate: float,
    confidences: npt.NDArray[np.float64],
    labels: npt.NDArray[np.integer[Any]],
) -> ErrorRateCheck:
    """Compare an error budget with the errors on photos whose labels are known.

    Args:
        scores: `nonconformity` of the calibration photos.
        error_rate: the error budget, 0…1.
        confidences: of other photos, `[N, C]`.
        labels: of the same photos, `[N]`.
    """
    sets = prediction_set(confidences, quantile(scores, error_rate))
    missed = int((~sets[np.arange(len(labels)), labels]).sum())
    sizes = sets.sum(axis=1)
    return ErrorRateCheck(
        error_rate=error_rate,
        missed=missed / len(labels),
        missed_ci95=wilson(missed, len(labels)),
        answered=float((sizes == 1).mean()),
        not_sure=float((sizes > 1).mean()),
        neither=float((sizes == 0).mean()),
    )
