"""Estimate how many wrong labels are left in a dataset that is being reviewed.

A random sample of the unjudged labels estimates how many of them are wrong, with Wilson's
interval. The suspects that were judged from the top of their ranking lower its upper end: lower
ranks are wrong no more often than the last judged ones. That bound adds a bound for the other
suspects and one for all other photos by MOVER (Zou and Donner 2008, "Construction of confidence
limits about effect measures").
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from catordog.confidence.wilson import wilson

TAIL = 50
"""The judged suspects of lowest rank that stand for those of lower rank."""

LEAST_TAIL, LEAST_SAMPLE = 10, 20
"""Fewer judged suspects, or fewer photos of the random sample, give no estimate."""

ENOUGH_SAMPLE = 100
"""Photos of the random sample after which judging more of them adds little."""

DRY = 0.05
"""Where fewer than this fraction of the last judged suspects were wrong, the rest is worth less."""


@dataclass(frozen=True, slots=True)
class LabelsLeft:
    """How many wrong labels are left.

    Attributes:
        found: wrong labels found so far.
        judged: labels judged so far.
        sampled: the size of the random sample: judged without a gap from its start.
        left: the estimated number of wrong labels among those not judged; None: too few judged.
        low, high: the 95 % interval of `left`.
        enough: whether judging more would find or tell little.
        missing: how many more photos of the random sample an estimate needs.
    """

    found: int
    judged: int
    sampled: int
    left: float | None = None
    low: float | None = None
    high: float | None = None
    enough: bool = False
    missing: int = 0


def labels_left(
    order: Sequence[int],
    suspects: Sequence[int],
    judged: Mapping[int, bool],
    passed: Collection[int] = (),
) -> LabelsLeft:
    """Estimate how many wrong labels are left.

    Args:
        order: indices of all labelled photos, in random order.
        suspects: indices of photos with a suspect label, the most suspect first.
        judged: by index, whether the label is wrong.
        passed: indices of photos that were seen, but whose label was not judged: skipped ones, and
            copies or unreadable files that are left out. They interrupt no sample.
    """
    rank = {index: number for number, index in enumerate(suspects)}
    seen = judged.keys() | set(passed)
    reached = next((n for n, index in enumerate(suspects) if index not in seen), len(suspects))
    tail = [judged[index] for index in suspects[:reached] if index in judged][-TAIL:]
    first_gap = next((n for n, index in enumerate(order) if index not in seen), len(order))
    prefix = [index for index in order[:first_gap] if index in judged]
    # Those above the reached rank are judged to the last, and say nothing about what is left.
    sample = [index for index in prefix if rank.get(index, reached) >= reached]
    left = [index for index in order if index not in seen]
    found = sum(judged.values())
    if len(sample) < LEAST_SAMPLE and left:
        missing = LEAST_SAMPLE - len(sample)
        return LabelsLeft(found, len(judged), len(prefix), missing=missing)
    estimate, low, high = _scaled([judged[index] for index in sample], len(left))
    others = [judged[index] for index in sample if index not in rank]
    if len(tail) >= LEAST_TAIL and others:
        suspects_left = sum(index in rank for index in left)
        parts = (_scaled(tail, suspects_left), _scaled(others, len(left) - suspects_left))
        high = min(high, sum(x for x, _, _ in parts) + math.hypot(*(h - x for x, _, h in parts)))
    dry = reached == len(suspects) or (len(tail) >= LEAST_TAIL and sum(tail) < DRY * len(tail))
    enough = not left or (len(prefix) >= ENOUGH_SAMPLE and dry)
    return LabelsLeft(
        found, len(judged), len(prefix), min(estimate, high), min(low, high), high, enough
    )


def _scaled(wrong: Sequence[bool], photos: int) -> tuple[float, float, float]:
    """The number of wrong labels among photos, and its interval, from a sample of them."""
    if not photos:
        return 0.0, 0.0, 0.0
    low, high = wilson(sum(wrong), len(wrong))
    return photos * sum(wrong) / len(wrong), photos * low, photos * high
