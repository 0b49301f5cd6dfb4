"""Estimate how many wrong labels are left in a dataset that is being reviewed.

The labels that nobody has judged yet are of two kinds. Suspects below the rank that the review has
reached: the last judged ranks tell how often such a label is wrong, and lower ranks are wrong less
often. All others: a random sample tells it. Each fraction has Wilson's interval, and the
intervals of the two numbers are added by MOVER (Zou and Donner 2008, "Construction of confidence
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
    ranks = sorted(rank[index] for index in judged if index in rank)
    tail = [judged[suspects[number]] for number in ranks[-TAIL:]]
    separate = len(tail) >= LEAST_TAIL
    sample: list[bool] = []
    sampled = 0
    for index in order:
        if index in judged:
            sampled += 1
            if not (separate and index in rank):
                sample.append(judged[index])
        elif index not in passed:
            break
    open_ = [index for index in order if index not in judged and index not in passed]
    suspects_left = sum(index in rank for index in open_) if separate else 0
    strata = [(sum(sample), len(sample), len(open_) - suspects_left)]
    if suspects_left:
        strata.append((sum(tail), len(tail), suspects_left))
    found = sum(judged.values())
    if len(sample) < LEAST_SAMPLE and strata[0][2]:
        return LabelsLeft(found, len(judged), sampled, missing=LEAST_SAMPLE - len(sample))
    dry = not suspects_left or sum(tail) < DRY * len(tail)
    return LabelsLeft(
        found,
        len(judged),
        sampled,
        *_sum(strata),
        enough=not open_ or (sampled >= ENOUGH_SAMPLE and dry and (separate or not suspects)),
    )


def _sum(strata: Sequence[tuple[int, int, int]]) -> tuple[float, float, float]:
    """The number of wrong labels in strata `(wrong, sample size, photos)`, and its interval."""
    total = below = above = 0.0
    for wrong, size, photos in strata:
        if not photos:
            continue
        estimate = photos * wrong / size
        low, high = (photos * end for end in wilson(wrong, size))
        total += estimate
        below += (estimate - low) ** 2
        above += (high - estimate) ** 2
    return total, max(0.0, total - math.sqrt(below)), total + math.sqrt(above)
