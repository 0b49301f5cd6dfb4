"""Wilson's confidence interval for a fraction."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a fraction (Wilson 1927).

    Unlike ±1.96 standard errors it stays within 0…1, also if all or none are successes. SciPy has
    it too, but importing SciPy takes a second.

    Args:
        successes: how many of the n.
        n: at least 1.
        level: how often the interval contains the true fraction, 0…1.

    >>> [round(end, 4) for end in wilson(95, 100)]
    [0.8882, 0.9785]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    fraction = successes / n
    centre = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
