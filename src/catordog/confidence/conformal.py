"""Answers that are wrong no more often than you can live with: split conformal prediction.

Photos that took no part in training say how strange the right answer looks. Of a new photo, every
class that looks no stranger than most of theirs is kept. However good or bad the network is, the
right class is among them with the probability that was promised, as long as new photos are like
those (Vovk et al. 2005; Angelopoulos and Bates 2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError


def nonconformity(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """How strange the right answer looks: 1 − its confidence, `[N]`, each in 0…1.

    Args:
        confidences: `[N, C]`.
        labels: `[N]`.
    """
    result: npt.NDArray[np.float64] = 1 - confidences[np.arange(len(labels)), labels]
    return result


def quantile(scores: npt.ArrayLike, error_rate: float) -> float:
    """The strangeness up to which a class is kept.

    It is the ⌈(n + 1)(1 − error_rate)⌉-th smallest of n scores: the new photo counts as one more.

    Args:
        scores: of `nonconformity`, of n photos that took no part in training.
        error_rate: the share of photos whose right class may be missing, 0…1.

    Returns:
        in 0…1; infinity where n photos are too few to promise so much, and every class is kept.

    Raises:
        CatordogError: the error rate is not within 0…1.

    >>> quantile([0.1, 0.2, 0.3, 0.4], 0.4)
    0.3
    """
    if not 0 < error_rate < 1:
        raise CatordogError(f"an error rate of {error_rate} is not within 0…1")
    ranked = np.sort(np.asarray(scores, dtype=np.float64))
    # 1 − 0.4 is 0.6 and a hair: without the hair, 3.0 would be rounded up to 4.
    place = math.ceil((len(ranked) + 1) * (1 - error_rate) - 1e-9)
    return float(ranked[place - 1]) if place <= len(ranked) else math.inf


def prediction_set(confidences: npt.NDArray[np.float64], most: float) -> npt.NDArray[np.bool_]:
    """Which classes are kept for each photo, `[..., C]`.

    Args:
        confidences: `[..., C]`.
        most: see `quantile`.
    """
    result: npt.NDArray[np.bool_] = 1 - confidences <= most
    return result
