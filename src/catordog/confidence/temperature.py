"""Making confidence true: what a network says 90 % of should be right nine times out of ten."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.errors import CatordogError

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

LEAST, MOST = 0.01, 100.0
"""Temperatures outside of this say that the logits are on no scale of logits."""

PRIOR = 4.0
"""How firmly a temperature near 1 is expected before any photo has been seen."""


def fit_temperature(logits: Logits, labels: Labels, prior: float = PRIOR) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al. 2017).

    The likelihood alone would have no doubt at all after a handful of photos that are all right:
    the lower the temperature, the likelier they are, without end. So 1/T has a prior, a gamma
    distribution with its mode at 1 and a shape of `1 + prior`, which hundreds of photos outweigh:
    it adds `prior · (1/T − 1 + log T)` to the sum of the photos' losses.

    Both are convex in 1/T, so the slope has one root, which is found exactly and not by a few
    gradient steps. Without a prior, the mean logit of the labels is there the mean that the
    confidences expect.

    Args:
        logits: raw, `[N, C]`, of photos that took no part in training.
        labels: `[N]`.
        prior: its weight, 0 or more; 0 for the likelihood alone.

    Returns:
        within `LEAST`…`MOST`; at an end where the loss falls on towards it, as it does without a
        prior where every photo is right.

    Raises:
        CatordogError: there is no photo.
    """
    from scipy.optimize import brentq

    if not len(labels):
        raise CatordogError("a temperature needs photos to be learnt from")
    raw = np.asarray(logits, dtype=np.float64)
    true = raw[np.arange(len(raw)), labels]

    def slope(log_temperature: float) -> float:
        """Of the sum of all losses, by 1/T."""
        temperature = float(np.exp(log_temperature))
        confidences = softmax(raw, temperature)
        expected = float(((confidences * raw).sum(axis=1) - true).sum())
        return expected + prior * (1 - temperature)

    low, high = np.log(LEAST), np.log(MOST)
    if slope(low) <= 0:  # the bolder the better
        return LEAST
    if slope(high) >= 0:
        return MOST
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))


def log_loss(confidences: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """The negative log-likelihood of each photo's label, in nats, `[N]`."""
    there = confidences[np.arange(len(labels)), labels]
    result: npt.NDArray[np.float64] = -np.log(np.maximum(there, np.finfo(np.float64).tiny))
    return result
