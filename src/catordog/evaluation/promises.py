"""Whether a promised error rate is kept on labelled photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import prediction_set, quantile


@dataclass(frozen=True, slots=True)
class ErrorRateCheck:
    """How a promised error rate came out; all are shares of the photos, 0…1.

    Attributes:
        error_rate: what was promised at most.
        missed: photos whose right class was not kept.
        missed_ci95: Wilson's 95 % interval of it.
        answered: photos with one class kept.
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
    """Hold a promised error rate against photos whose labels are known.

    Args:
        scores: of `nonconformity`, of the photos that the promise is learnt from.
        error_rate: the promise, 0…1.
        confidences: of other photos, `[N, C]`.
        labels: theirs, `[N]`.
    """
    from catordog.evaluation.intervals import wilson

    possible = prediction_set(confidences, quantile(scores, error_rate))
    missed = int((~possible[np.arange(len(labels)), labels]).sum())
    sizes = possible.sum(axis=1)
    return ErrorRateCheck(
        error_rate=error_rate,
        missed=missed / len(labels),
        missed_ci95=wilson(missed, len(labels)),
        answered=float((sizes == 1).mean()),
        not_sure=float((sizes > 1).mean()),
        neither=float((sizes == 0).mean()),
    )
