"""Confidence intervals."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the true accuracy in `level` of all cases (Wilson 1927).

    Unlike ±1.96 standard errors it stays within 0…1, also when all or none are right.

    >>> [round(end, 4) for end in wilson(95, 100)]
    [0.8882, 0.9785]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
