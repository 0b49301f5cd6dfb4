"""Split conformal prediction: prediction sets that miss the right class at a chosen error rate.

Calibration photos, which took no part in training, give the nonconformity of right answers. The
prediction set of a new photo has every class whose nonconformity is at most a quantile of theirs.
It misses the right class with at most the chosen probability, however accurate the network is, as
long as new photos resemble the calibration photos (Vovk et al. 2005; Angelopoulos and Bates 2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError

MOST_SCORES = 10_000
"""Scores in a model file; more would hardly make error rates finer."""


def nonconformity(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """The nonconformity of right answers: 1 − their confidence, `[N]`, each in 0…1.

    Args:
        confidences: `[N, C]`.
        labels: `[N]`.
    """
    result: npt.NDArray[np.float64] = 1 - confidences[np.arange(len(labels)), labels]
    return result


def quantile(scores: npt.ArrayLike, error_rate: float) -> float:
    """The conformal quantile: the largest nonconformity in a prediction set.

    It is the ⌈(n + 1)(1 − error_rate)⌉-th smallest of n scores. `np.quantile` has no method for the
    rank among n + 1, which counts the new photo as one more; so this is ours.

    Args:
        scores: of `nonconformity`, for n photos that took no part in training.
        error_rate: the fraction of prediction sets that may miss the right class, 0…1.

    Returns:
        In 0…1; infinity where n photos are too few for the error rate: then every class is in the
        prediction set.

    Raises:
        CatordogError: the error rate is not within 0…1.

    >>> quantile([0.1, 0.2, 0.3, 0.4], 0.4)
    0.3
    """
    if not 0 < error_rate < 1:
        raise CatordogError(f"an error rate of {error_rate} is not within 0…1")
    ranked = np.sort(np.asarray(scores, dtype=np.float64))
    # Rounding errors would raise some whole ranks by one, such as 3 to 4.
    rank = math.ceil((len(ranked) + 1) * (1 - error_rate) - 1e-9)
    return float(ranked[rank - 1]) if rank <= len(ranked) else math.inf


def lowest_error_rate(n: int) -> float:
    """The lowest error rate that n calibration photos can guarantee, rounded up to two digits.

    >>> lowest_error_rate(99), lowest_error_rate(64)
    (0.01, 0.016)
    """
    exact = 1 / (n + 1)
    scale = 10.0 ** (1 - math.floor(math.log10(exact)))
    return math.ceil(exact * scale - 1e-9) / scale


def thinned(scores: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Scores for a model file: all, or `MOST_SCORES` of them at evenly spaced ranks.

    Args:
        scores: sorted, `[N]`. The smallest and the largest stay.
    """
    if len(scores) > MOST_SCORES:
        scores = scores[np.linspace(0, len(scores) - 1, MOST_SCORES).round().astype(int)]
    return tuple(map(float, scores))


def prediction_set(confidences: npt.NDArray[np.float64], most: float) -> npt.NDArray[np.bool_]:
    """Which classes are in the prediction set of each photo, `[..., C]`.

    Args:
        confidences: `[..., C]`.
        most: the largest nonconformity in the set (see `quantile`).
    """
    result: npt.NDArray[np.bool_] = 1 - confidences <= most
    return result
