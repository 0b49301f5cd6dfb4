"""Temperature scaling: of answers given with a confidence of 90 %, 90 % should be right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.errors import CatordogError

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

LEAST, MOST = 0.01, 100.0
"""Bounds of the temperature. A network whose logits need one outside them is broken."""

PRIOR = 4.0
"""Weight of the prior that expects a temperature near 1."""


def fit_temperature(logits: Logits, labels: Labels, prior: float = PRIOR) -> float:
    """Find the temperature with the lowest negative log-likelihood (Guo et al. 2017).

    On a few photos that are all right, the likelihood alone would prefer a temperature of 0, which
    leaves no doubt. So 1/T has a prior: a gamma distribution with its mode at 1 and the shape
    `1 + prior`. It adds `prior · (1/T − 1 + log T)` to the summed loss, which hundreds of photos
    outweigh.

    Likelihood and prior are convex in 1/T, so the slope has one root, and bisection finds it.

    Args:
        logits: raw, `[N, C]`, of photos that the network was not trained on.
        labels: `[N]`.
        prior: its weight, 0 or more; 0 for the likelihood alone.

    Returns:
        A temperature in `LEAST`…`MOST`. It is one of the bounds where the loss falls towards it:
        without a prior, `LEAST` if every photo is right.

    Raises:
        CatordogError: there are no photos.

    >>> logits, labels = np.array([[4.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    >>> round(fit_temperature(logits, labels, prior=0), 4)  # 3 of 4 right: odds of 3 to 1
    3.641
    """
    if not len(labels):
        raise CatordogError("a temperature can't be fitted without photos")
    raw = np.asarray(logits, dtype=np.float64)
    true = raw[np.arange(len(raw)), labels]

    def slope(log_temperature: float) -> float:
        """The derivative of the summed loss with respect to 1/T."""
        temperature = math.exp(log_temperature)
        expected = (softmax(raw, temperature) * raw).sum(axis=1)
        return float((expected - true).sum()) + prior * (1 - temperature)

    low, high = math.log(LEAST), math.log(MOST)
    if slope(low) <= 0:
        return LEAST
    if slope(high) >= 0:
        return MOST
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def log_loss(confidences: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """The negative log-likelihood of each photo's label, in nats, `[N]`.

    Args:
        confidences: `[N, C]`, each in 0…1.
        labels: `[N]`.
    """
    of_label = confidences[np.arange(len(labels)), labels]
    result: npt.NDArray[np.float64] = -np.log(np.maximum(of_label, np.finfo(np.float64).tiny))
    return result
