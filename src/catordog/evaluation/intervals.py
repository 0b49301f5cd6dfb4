"""Confidence intervals by the bootstrap, for means over photos; for fractions see `wilson`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000


def bootstrap(
    terms: Mapping[str, npt.NDArray[np.float64]], seed: int = 0
) -> dict[str, npt.NDArray[np.float64]]:
    """Values of several metrics on resampled photos (Efron 1979).

    Every metric sees the same resampled photos, so differences of metrics are paired. As each is
    `Σₖ |meanₙ termsₙₖ|`, a resample is a weighting of the photos, and many of them take one matrix
    product.

    Args:
        terms: for each metric, `[N, K]`; K may differ.
        seed: of the resamples.

    Returns:
        for each metric `[R]`: R is 1,000, or 200 for more than 50,000 photos.
    """
    n = len(next(iter(terms.values())))
    generator = np.random.default_rng(seed)
    resamples = RESAMPLES if n <= 50_000 else RESAMPLES // 5
    at_once = max(1, 4_000_000 // n)  # bounds the memory of the weights
    draws: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in terms}
    for start in range(0, resamples, at_once):
        rounds = min(at_once, resamples - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), rounds) / n
        for name, columns in terms.items():
            draws[name].append(np.abs(weights @ columns).sum(axis=1))
    return {name: np.concatenate(parts) for name, parts in draws.items()}


def centred_interval(draws: npt.NDArray[np.float64], value: float) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws, moved so that their mean is the value.

    The move removes a bias: a calibration error is larger on resampled photos, because a photo
    that is drawn twice repeats its random gap, and the gaps average out less.

    Args:
        draws: `[R]`.
        value: of the metric on the photos themselves.
    """
    low, high = np.quantile(draws + (value - draws.mean()), (0.025, 0.975))
    return float(low), float(high)
